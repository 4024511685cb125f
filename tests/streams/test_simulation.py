"""Laws of the simulation: no schedule loses, doubles or changes anything, and a bug of any kind would show."""

from collections import Counter

import pytest

from tests.streams.planted_bugs import BUGS
from tests.streams.simulation import SOUND, Parts, simulate

SCHEDULES = 1_200
_PER_TEST = 100
_UNTIL_FOUND = 100  # schedules that a bug may survive, all of them among SCHEDULES

FAULTS = (
    "killed",
    "store away",
    "answer lost",
    "broker away",
    "fetch leaves out",
    "fetch repeats",
    "fenced",
    "hole: go back",
    "hole: step over",
    "hole: wait",
)


@pytest.mark.parametrize("first", range(0, SCHEDULES, _PER_TEST))
def test_whatever_dies_when_everything_takes_effect_once(first: int) -> None:
    struck: Counter[str] = Counter()
    for seed in range(first, first + _PER_TEST):
        struck += simulate(seed)
    assert min(struck[fault] for fault in FAULTS) > 0, struck


@pytest.mark.parametrize("bug", BUGS)
def test_a_bug_of_each_kind_is_found(bug: str) -> None:
    assert any(_fails(seed, BUGS[bug]) for seed in range(_UNTIL_FOUND))


def test_a_failure_names_the_seed_and_the_seed_repeats_it() -> None:
    parts = BUGS["applies what the cursor covers"]
    seed = next(seed for seed in range(_UNTIL_FOUND) if _fails(seed, parts))
    first, again = _failure(seed, parts), _failure(seed, parts)
    assert first == again
    assert first.startswith(f"simulate({seed}): ")
    assert "last steps:" in first
    assert not _fails(seed, SOUND)


def _failure(seed: int, parts: Parts) -> str:
    try:
        simulate(seed, parts)
    except AssertionError as error:
        return str(error)
    return ""


def _fails(seed: int, parts: Parts) -> bool:
    return bool(_failure(seed, parts))
