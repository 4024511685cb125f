"""Laws of the count model: its numbers are probabilities by the stated formula, and good paths carry more."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from models.tokenizer_recall import Questions, carried, next_items

CLUSTERS, EACH = 8, 12


def random_paths(items: int, seed: int) -> np.ndarray:
    numbers = np.random.default_rng(seed).choice(64, items, replace=False)
    return np.stack([numbers // 16, numbers // 4 % 4, numbers % 4], axis=1).astype(np.int32)


def plain_chance(codes: np.ndarray, pairs: np.ndarray, strength: float, item: int, following: int) -> float:
    """The formula of the module, for one pair of items."""
    levels, product = codes.shape[1], 1.0
    for level in range(1, levels + 1):
        siblings = {
            tuple(path[:level])
            for path in codes.tolist()
            if path[: level - 1] == codes[following][: level - 1].tolist()
        }
        chance = 1 / len(siblings)
        for depth in range(levels + 1):
            like = (codes[:, :depth] == codes[item][:depth]).all(axis=1)
            behind = [(codes[:, :length] == codes[following][:length]).all(axis=1) for length in (level - 1, level)]
            before, seen = (pairs[np.ix_(like, where)].sum() for where in behind)
            chance = (seen + strength * chance) / (before + strength)
        product *= chance
    return product


@given(st.integers(2, 20), st.integers(0, 100), st.floats(0.5, 20))
def test_chances_are_those_of_the_formula_and_sum_to_one(items: int, seed: int, strength: float) -> None:
    rng = np.random.default_rng(seed)
    codes, pairs = random_paths(items, seed), rng.poisson(0.3, (items, items)).astype(float)
    chances = next_items(codes, sparse.csr_array(pairs), strength)
    np.testing.assert_allclose(chances.sum(axis=1), 1.0, rtol=1e-4)
    item, following = rng.integers(0, items, 2)
    assert chances[item, following] == pytest.approx(plain_chance(codes, pairs, strength, item, following), rel=1e-3)


def clustered_world(seed: int = 0) -> tuple[list[np.ndarray], Questions, np.ndarray]:
    """People stay in one cluster; cluster of every item."""
    rng = np.random.default_rng(seed)
    walks = [rng.permutation(EACH)[:6] + EACH * rng.integers(CLUSTERS) for _ in range(150)]
    histories = np.stack([walk[:5][::-1] for walk in walks]).astype(np.int32)
    targets = np.array([walk[5] for walk in walks], np.int32)
    return [walk[:5] for walk in walks], Questions(histories, targets), np.arange(CLUSTERS * EACH) // EACH


def test_paths_that_say_the_cluster_carry_more_than_random_ones() -> None:
    sequences, questions, cluster = clustered_world()
    within = np.arange(len(cluster)) % EACH
    telling = np.stack([cluster, within // 4, within % 4], axis=1).astype(np.int32)
    shuffled = np.random.default_rng(1).permutation(telling)
    good, bad = (carried(codes, sequences, questions) for codes in (telling, shuffled))
    assert good.nats < bad.nats - 0.3
    assert good.recall_at_10 > bad.recall_at_10


def test_what_stands_in_the_history_is_not_ranked() -> None:
    codes = random_paths(12, 0)
    questions = Questions(np.array([[0, -1], [0, 1]], np.int32), np.array([1, 1], np.int32))
    found = carried(codes, [np.array([0, 1])] * 5, questions)
    assert found.recall_at_10 == 0.0  # the reported question asks for an item that its history holds
    turned = Questions(questions.histories[::-1], questions.targets[::-1])
    assert carried(codes, [np.array([0, 1])] * 5, turned).recall_at_10 == 1.0
