"""What was shown is judged user by user, ties against us, and play time only against videos of like length."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.quality.exposures import exposure_measures, percentiles_among_like
from benchmarks.quality.split import Split, ordered
from benchmarks.quality.statistics import value_of
from protos.catalog.v1.catalog_pb2 import Item

SHOWN = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.booleans()), min_size=1, max_size=15)


def shown(rows: list[tuple[int, int, bool]]) -> tuple[Split, np.ndarray]:
    users, scores, good = (np.array(column) for column in zip(*sorted(rows, key=lambda row: row[0]), strict=True))
    events = ordered(users, np.arange(len(users)), np.arange(len(users)), good, good.astype(np.float32))
    shelf = [Item(item_id=str(n)) for n in range(len(users))]
    asked = np.arange(len(users))
    split = Split("shown", "test", shelf, events, np.zeros(len(users), np.bool_), asked, mask_seen=False, exposed=True)
    return split, scores.astype(np.float32)


@given(SHOWN)
def test_auc_is_that_of_a_plain_loop_over_pairs(rows: list[tuple[int, int, bool]]) -> None:
    split, scores = shown(rows)
    found = dict(exposure_measures(split, scores))
    total = weight = 0.0
    for user in set(split.events.users.tolist()):
        mine = split.events.users == user
        ups, downs = scores[mine & split.events.good], scores[mine & ~split.events.good]
        if len(ups) and len(downs):
            total += mine.sum() * np.mean([up > down for up in ups for down in downs])
            weight += mine.sum()
    assert value_of(found["gauc long_view"]) == pytest.approx(total / weight if weight else 0.0)
    assert value_of(found["gauc play"]) == pytest.approx(value_of(found["gauc long_view"]))


def test_the_perfect_order_has_ndcg_1_and_ties_have_the_worst() -> None:
    rows = [(0, 3, True), (0, 2, False), (0, 1, False)]
    split, scores = shown(rows)
    assert value_of(dict(exposure_measures(split, scores))["ndcg long_view"]) == 1.0
    assert value_of(dict(exposure_measures(split, 0 * scores))["ndcg long_view"]) == pytest.approx(0.5)


def test_users_whose_outcomes_are_all_alike_are_left_out() -> None:
    split, scores = shown([(0, 1, True), (0, 2, True), (1, 2, True), (1, 1, False)])
    found = dict(exposure_measures(split, scores))
    assert found["gauc long_view"].counts.tolist() == [0.0, 2.0]
    assert value_of(found["gauc long_view"]) == 1.0


def test_play_time_is_compared_among_like_lengths_and_with_what_may_be_learned() -> None:
    play_s = np.array([2.0, 4.0, 6.0, 50.0, 100.0, 5.0, 3.0])
    length_s = np.array([10.0, 10.0, 10.0, 100.0, 100.0, 10.0, 0.0])
    found = percentiles_among_like(play_s, length_s, np.arange(5))
    assert found[:6].tolist() == pytest.approx([1 / 3, 2 / 3, 1.0, 0.5, 1.0, 2 / 3])
    assert np.isnan(found[6])
