"""Ranks are counted at item level, and ties against us."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.batches import Beams
from models.metrics import NOT_RANKED, ndcg_gains, popularity, ranks_in_beams, ranks_in_scores, recall_at

HOUR_MS = 3_600_000


def beams(items: list[list[int]], scores: list[list[float]]) -> Beams:
    per_code = np.repeat(np.array(scores, np.float32)[:, :, None] / 3, 3, axis=2)
    codes, values = np.zeros(per_code.shape, np.int32), np.zeros(per_code.shape, np.float32)
    return Beams(np.array(items, np.int32), codes, per_code, per_code, per_code.sum(-1), values)


def test_the_rank_is_the_place_among_the_beams() -> None:
    answer = beams([[7, 8, 9]] * 4, [[-1.0, -2.0, -3.0]] * 4)
    assert ranks_in_beams(answer, np.array([7, 8, 9, 4], np.int32)).tolist() == [1, 2, 3, NOT_RANKED]


def test_a_tie_counts_against_us() -> None:
    answer = beams([[7, 8, 9]] * 3, [[-1.0, -1.0, -2.0]] * 3)
    assert ranks_in_beams(answer, np.array([7, 8, 9], np.int32)).tolist() == [2, 2, 3]
    assert ranks_in_scores(np.array([1.0, 1.0, 0.0]), np.array([0, 1, 2], np.int32)).tolist() == [2, 2, 3]


def test_a_dead_beam_is_no_hit() -> None:
    answer = beams([[7, -1]], [[-1.0, -np.inf]])
    assert ranks_in_beams(answer, np.array([-1], np.int32)).tolist() == [NOT_RANKED]
    assert ranks_in_beams(answer, np.array([7], np.int32)).tolist() == [1]


def test_saying_the_same_of_everything_scores_nothing() -> None:
    ranks = ranks_in_scores(np.zeros(1000), np.arange(1000, dtype=np.int32))
    assert recall_at(ranks, 999) == 0.0


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.data())
def test_one_table_for_all_is_a_table_for_each(scores: list[int], data: st.DataObject) -> None:
    index = st.integers(0, len(scores) - 1)
    targets = np.array(data.draw(st.lists(index, min_size=1, max_size=8)), np.int32)
    table = np.array(scores, float)
    each = ranks_in_scores(np.repeat(table[None], len(targets), axis=0), targets)
    assert ranks_in_scores(table, targets).tolist() == each.tolist()
    assert each.tolist() == [sum(score >= table[target] for score in scores) for target in targets]


def test_recall_and_ndcg_by_hand() -> None:
    ranks = np.array([1, 3, 11, NOT_RANKED])
    assert recall_at(ranks, 10) == 0.5
    assert ndcg_gains(ranks, 10).mean() == pytest.approx((1.0 + 0.5) / 4)
    assert recall_at(ranks, 11) == 0.75


def test_no_requests_are_no_success() -> None:
    assert recall_at(np.zeros(0, np.int64), 10) == ndcg_gains(np.zeros(0, np.int64), 10).sum() == 0.0


def test_an_act_counts_half_after_its_half_life() -> None:
    items, at_ms = np.array([0, 1], np.int32), np.array([0, 6 * HOUR_MS])
    scores = popularity(items, at_ms, count=3, now_ms=6 * HOUR_MS + 1, half_life_h=6)
    assert scores == pytest.approx([0.5, 1.0, 0.0], abs=1e-6)


def test_popularity_never_looks_ahead() -> None:
    items, at_ms = np.array([0, 1, 1], np.int32), np.array([0, 10, 11])
    assert popularity(items, at_ms, count=2, now_ms=10, half_life_h=np.inf).tolist() == [1.0, 0.0]
