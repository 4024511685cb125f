"""A history is what stands before, newest first, and a split that nobody could answer is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.quality.split import Events, check_split, histories, ordered, seen_pairs
from core.errors import InputError
from tests.benchmarks.quality.worlds import walks

ACTS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 4), st.booleans()), min_size=1, max_size=20
)


def events_of(acts: list[tuple[int, int, int, bool]]) -> Events:
    users, items, at_s, good = (np.array(column) for column in zip(*acts, strict=True))
    return ordered(users, items, at_s, good)


@given(ACTS)
def test_acts_stand_by_user_then_time_then_as_given(acts: list[tuple[int, int, int, bool]]) -> None:
    found = events_of(acts)
    assert list(zip(found.users, found.items, found.at_s, found.good, strict=True)) == sorted(
        acts, key=lambda act: (act[0], act[2])
    )


@given(ACTS, st.integers(1, 4), st.booleans())
def test_histories_are_those_of_a_plain_loop(acts: list[tuple[int, int, int, bool]], length: int, good: bool) -> None:
    events = events_of(acts)
    asked = np.arange(len(acts))
    found = histories(events, asked, length, events.good if good else None)
    for act in asked:
        before = [
            other
            for other in range(act - 1, -1, -1)
            if events.users[other] == events.users[act] and (events.good[other] or not good)
        ][:length]
        assert found[act].tolist() == before + [-1] * (length - len(before))


@given(ACTS)
def test_what_was_seen_is_each_item_once(acts: list[tuple[int, int, int, bool]]) -> None:
    events = events_of(acts)
    rows, items = seen_pairs(events, np.arange(len(acts)))
    expected = {
        (row, int(events.items[other]))
        for row in range(len(acts))
        for other in range(row)
        if events.users[other] == events.users[row]
    }
    assert sorted(zip(rows.tolist(), items.tolist(), strict=True)) == sorted(expected)


def test_a_split_that_nobody_could_answer_is_refused() -> None:
    split = walks()
    check_split(split)
    leaking = split.learn.copy()
    leaking[split.asked[0]] = True
    turned = split.events._replace(at_s=split.events.at_s[::-1])
    strange = split.events._replace(items=split.events.items + 1)
    twins = [*split.items[:-1], split.items[0]]
    for broken, told in (
        (split._replace(learn=leaking), "a leak"),
        (split._replace(events=turned), "out of order"),
        (split._replace(events=strange), "beyond the catalogue"),
        (split._replace(items=twins), "repeated item ids"),
        (split._replace(asked=split.asked[:0]), "no act to ask for"),
        (split._replace(learn=leaking[:-1]), "shape"),
    ):
        with pytest.raises(InputError, match=told):
            check_split(broken)
