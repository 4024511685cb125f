"""Values: the head never moves what is generated, learns who likes what, and its odds mean what they say."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import InputError
from models.batches import take_rows
from models.export import beams_of
from models.generator import Generator
from models.train_value_head import (
    Shown,
    ValueArguments,
    _rates,
    foresight,
    joined,
    odds_of,
    shown_of,
    train_value_head,
)
from models.values import BEAM_ALONE, WORTH, SelectionWeights, Value, selection_scores
from tests.models.worlds import random_context, random_paths, random_trie, small_config, small_generator

SIZE, ITEMS, WIDTH = 5, 40, 16
CODES = random_paths(np.random.default_rng(0), ITEMS, SIZE)
ARGS = ValueArguments(epochs=8, batch_size=64)


def with_head(seed: int = 0, items: int = ITEMS) -> Generator:
    return small_generator(seed, small_config(SIZE, value_items=items))


def taste_world(exposures: int, seed: int = 0) -> Shown:
    """Everybody watches by how state and item agree, likes what is popular, and hardly ever orders."""
    rng = np.random.default_rng(seed)
    states, items = rng.standard_normal((exposures, WIDTH)).astype(np.float32), rng.integers(0, ITEMS, exposures)
    vectors = with_head().code_vectors(torch.from_numpy(CODES)).detach().numpy()
    fits = (states * vectors[items]).sum(1) / np.linalg.norm(vectors[items], axis=1)
    outcomes = np.zeros((exposures, len(Value)), bool)
    outcomes[:, Value.WATCHED] = rng.random(exposures) < 1 / (1 + np.exp(-2 * fits))
    outcomes[:, Value.LIKED] = rng.random(exposures) < np.where(items < 5, 0.6, 0.1)
    outcomes[::400, Value.ORDERED] = True
    return Shown(torch.from_numpy(states), items.astype(np.int32), outcomes, np.arange(exposures))


def test_a_head_that_is_trained_leaves_what_is_generated_as_it_was() -> None:
    rng = np.random.default_rng(0)
    generator, (trie, _, _) = with_head(), random_trie(rng, ITEMS, SIZE)
    batch = random_context(rng, 4, SIZE)
    before = beams_of(generator, batch, trie, 8)
    train_value_head(generator, taste_world(1_000), CODES, ARGS)
    after = beams_of(generator, batch, trie, 8)
    for name in ("items", "codes", "masked_log_probs", "log_probs", "item_logits"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name))
    assert np.abs(before.values - after.values).max() > 0.01
    assert not any(weight.requires_grad for weight in generator.value_head.parameters())


def test_the_graph_says_of_its_beams_what_the_head_says_of_exposures() -> None:
    rng = np.random.default_rng(1)
    trie, codes, _ = random_trie(rng, ITEMS, SIZE)
    generator, batch = with_head(), random_context(rng, 3, SIZE)
    train_value_head(generator, taste_world(500), codes, ARGS)
    beams = beams_of(generator, batch, trie, 8)
    row, rank = np.nonzero(beams.items >= 0)
    items = beams.items[row, rank]
    shown = shown_of(generator, take_rows(batch, row), items, np.zeros((len(row), len(Value)), bool), row)
    np.testing.assert_allclose(odds_of(generator, shown, codes), beams.values[row, rank], atol=1e-5)


def test_without_a_head_values_are_zero() -> None:
    rng = np.random.default_rng(0)
    trie, _, _ = random_trie(rng, ITEMS, SIZE)
    assert not beams_of(small_generator(), random_context(rng, 2, SIZE), trie, 8).values.any()


def test_who_likes_what_is_learned_and_odds_mean_what_they_say() -> None:
    generator, later = with_head(), taste_world(4_000, seed=1)
    train_value_head(generator, taste_world(8_000), CODES, ARGS)
    odds = odds_of(generator, later, CODES)
    watched, liked = (foresight(odds[:, each], later.outcomes[:, each]) for each in (Value.WATCHED, Value.LIKED))
    assert watched.auc > 0.75
    assert liked.auc > 0.65
    for each in (watched, liked):
        assert each.log_loss < each.base_log_loss - 0.02
        assert each.calibration_error < 0.04


def test_odds_of_all_items_are_those_of_each() -> None:
    generator, shown = with_head(), taste_world(500)
    train_value_head(generator, shown, CODES, ARGS)
    with torch.no_grad():
        vectors = generator.code_vectors(torch.from_numpy(CODES))
        every = generator.value_head.odds_of_all(shown.states, vectors).numpy()
    own = every[np.arange(500), shown.items]
    np.testing.assert_allclose(own, odds_of(generator, shown, CODES), atol=1e-5)


def test_what_hardly_ever_comes_has_the_rate_of_its_item() -> None:
    generator, shown = with_head(), taste_world(2_000)
    train_value_head(generator, shown, CODES, ARGS)
    rates = torch.sigmoid(generator.value_head.rates[:-1, Value.ORDERED]).numpy()
    np.testing.assert_allclose(odds_of(generator, shown, CODES)[:, Value.ORDERED], rates[shown.items], rtol=1e-5)
    assert rates.max() < 0.05


def test_an_item_that_came_later_has_the_rate_of_all_and_the_fit_of_its_codes() -> None:
    generator, shown = with_head(items=ITEMS - 10), taste_world(2_000)
    with torch.no_grad():
        generator.value_head.rates[-1] = torch.tensor([0.5, -1.0, -2.0])
    late = shown._replace(items=np.full_like(shown.items, ITEMS - 1))
    expected = 1 / (1 + np.exp(-np.array([0.5, -1.0, -2.0])))
    np.testing.assert_allclose(odds_of(generator, late, CODES), np.tile(expected, (2_000, 1)), rtol=1e-5)


@settings(max_examples=30)
@given(seed=st.integers(0, 1 << 30), exposures=st.integers(2, 30))
def test_no_exposure_stands_in_the_rate_that_it_is_learned_with(seed: int, exposures: int) -> None:
    rng = np.random.default_rng(seed)
    row, outcomes = rng.integers(0, 4, exposures).astype(np.int32), rng.random((exposures, len(Value))) < 0.4
    _, without = _rates(row, outcomes, 5, prior=3.0)
    mean = (outcomes.sum(axis=0) + 0.5) / (exposures + 1.0)
    for one in range(exposures):
        others = (row == row[one]) & (np.arange(exposures) != one)
        rate = (outcomes[others].sum(axis=0) + 3.0 * mean) / (others.sum() + 3.0)
        np.testing.assert_allclose(without[one].numpy(), np.log(rate / (1 - rate)), rtol=1e-4, atol=1e-5)


def test_equal_arguments_give_equal_odds_and_order_of_time_is_kept() -> None:
    shown = taste_world(600)
    parts = [Shown._make(field[at] for field in shown) for at in (slice(300, None), slice(0, 300))]
    odds = []
    for given_as in (shown, joined(parts)):
        generator = with_head()
        train_value_head(generator, given_as, CODES, ARGS)
        odds.append(odds_of(generator, shown, CODES))
    np.testing.assert_array_equal(*odds)


def test_a_head_that_was_fitted_before_is_calibrated_anew() -> None:
    generator, shown, later = with_head(), taste_world(8_000), taste_world(4_000, seed=1)
    for _ in range(2):
        with torch.no_grad():
            generator.value_head.scale.fill_(3.0)
            generator.value_head.shift.fill_(1.0)
        train_value_head(generator, shown, CODES, ARGS)
    watched = foresight(odds_of(generator, later, CODES)[:, Value.WATCHED], later.outcomes[:, Value.WATCHED])
    assert watched.calibration_error < 0.04


def test_always_saying_the_rate_is_the_base() -> None:
    came = np.arange(1_000) % 4 == 0
    found = foresight(np.full(1_000, 0.25, np.float32), came)
    assert found.log_loss == pytest.approx(found.base_log_loss)
    assert found.calibration_error == pytest.approx(0.0, abs=1e-6)
    assert found.auc == 0.5
    assert foresight(np.full(1_000, 0.75, np.float32), came).calibration_error == pytest.approx(0.5)


def test_what_cannot_be_fitted_is_refused_with_the_remedy() -> None:
    with pytest.raises(InputError, match="set value_items"):
        train_value_head(small_generator(), taste_world(100), CODES, ARGS)
    with pytest.raises(InputError, match="name more days"):
        train_value_head(with_head(), taste_world(20), CODES, ARGS)
    with pytest.raises(InputError, match="held back"):
        ValueArguments(held_back=1.0)


def test_selection_is_the_beam_without_weights_and_each_head_counts_by_its_own() -> None:
    log_probs = np.log(np.array([[[0.5, 0.5], [0.4, 0.5], [0.0, 0.0]]], np.float32) + 1e-30)
    values = np.array([[[0.1, 0.0, 0.0], [0.9, 0.2, 0.0], [0.0, 0.0, 0.0]]], np.float32)
    own = log_probs.sum(-1)
    logits = np.array([[1.0, 3.0, -np.inf]], np.float32)
    np.testing.assert_allclose(selection_scores(log_probs, logits, values, BEAM_ALONE), own)
    np.testing.assert_allclose(
        selection_scores(log_probs, logits, np.zeros_like(values), SelectionWeights(0.0, 2.0)), own
    )
    re_scored = selection_scores(log_probs, logits, values, SelectionWeights(2.0, 0.0))[0]
    np.testing.assert_allclose(re_scored, own[0] + 2.0 * logits[0], rtol=1e-6)
    weighed = selection_scores(log_probs, logits, values, SelectionWeights(0.0, 1.0))[0]
    np.testing.assert_allclose(weighed[:2] - own[0, :2], np.log(values[0, :2] @ WORTH), rtol=1e-4)
    assert weighed[1] > weighed[0]
