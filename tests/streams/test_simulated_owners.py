"""Laws of ownership under any schedule: told late, cancelled in the middle, without a store; everything counts once."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

from core.errors import StoreUnavailable
from streams.ownership import Owner
from tests.streams.simulated_owners import simulate_owners

SCHEDULES = 200
_PER_TEST = 50

T = TypeVar("T")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Each fault is a line of the log; there are thousands."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("first", range(0, SCHEDULES, _PER_TEST))
def test_whoever_owns_when_everything_takes_effect_once(first: int) -> None:
    struck: Counter[str] = Counter()
    for seed in range(first, first + _PER_TEST):
        struck += simulate_owners(seed)
    assert min(struck[fault] for fault in ("told late", "store away", "answer lost", "failed")) > 0, struck


class TriesAgainWithTheSameDriver(Owner):
    """After a failed commit the driver's rows hold what may not be stored, or be stored already."""

    async def _in_thread(self, partition: int, work: Callable[..., T], *arguments: object) -> T:
        try:
            return await super()._in_thread(partition, work, *arguments)
        except StoreUnavailable:
            return await super()._in_thread(partition, work, *arguments)


def test_an_owner_that_trusts_a_failed_driver_is_found() -> None:
    assert any(_fails(seed, TriesAgainWithTheSameDriver) for seed in range(SCHEDULES))


def _fails(seed: int, owner: type[Owner]) -> bool:
    try:
        simulate_owners(seed, owner)
    except AssertionError:
        return True
    return False
