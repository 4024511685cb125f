"""A beam may only spell items that exist and are live, and finds what a slow search finds."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.batches import LEVELS, Beams, ContextBatch, beam_difference, take_rows
from models.beam import legal_tokens
from models.context_processor import context_tensors
from models.export import beams_of
from models.generator import Generator
from models.trie import set_live
from models.values import Value
from tests.models.worlds import random_context, random_trie, small_generator

SIZE = 5
GENERATOR = small_generator()
seeds = st.integers(0, 2**32 - 1)


class Path(NamedTuple):
    score: float
    masked: list[float]
    full: list[float]
    codes: list[int]


def log_softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


def slow_search(
    generator: Generator, context: ContextBatch, live_paths: list[tuple[int, ...]], width: int
) -> list[Path]:
    """Beam search for one request, one prefix at a time, the model run from the start each time."""
    beams = [Path(0.0, [], [], [])]
    for level in range(LEVELS):
        longer = []
        for beam in beams:
            known = torch.tensor([[beam.codes + [0] * (LEVELS - level)]])
            with torch.no_grad():
                logits = generator(context_tensors(context), known)[0, 0, level].double().numpy()
            legal = sorted({path[level] for path in live_paths if list(path[:level]) == beam.codes})
            if not legal:
                continue
            masked, full = log_softmax(logits[legal]), log_softmax(logits)
            longer += [
                Path(beam.score + share, [*beam.masked, share], [*beam.full, float(full[code])], [*beam.codes, code])
                for code, share in zip(legal, masked.tolist(), strict=True)
            ]
        beams = sorted(longer, reverse=True)[:width]
    return beams


def as_beams(paths: list[Path], items: dict[tuple[int, ...], int], width: int) -> Beams:
    beams = Beams(
        np.full((1, width), -1, np.int32),
        np.full((1, width, LEVELS), -1, np.int32),
        np.full((1, width, LEVELS), -np.inf, np.float32),
        np.full((1, width, LEVELS), -np.inf, np.float32),
        np.full((1, width), -np.inf, np.float32),
        np.zeros((1, width, len(Value)), np.float32),
    )
    for rank, path in enumerate(paths):
        beams.items[0, rank] = items[tuple(path.codes)]
        beams.codes[0, rank], beams.masked_log_probs[0, rank], beams.log_probs[0, rank] = path[3], path[1], path[2]
        beams.item_logits[0, rank] = 0.0
    return beams


@settings(max_examples=25, deadline=None)
@given(seed=seeds, items=st.integers(1, 60), width=st.integers(1, 12), live_share=st.sampled_from([0.0, 0.3, 1.0]))
def test_the_search_is_its_slow_twin(seed: int, items: int, width: int, live_share: float) -> None:
    rng = np.random.default_rng(seed)
    trie, codes, live = random_trie(rng, items, SIZE, live_share)
    context = random_context(rng, 1, SIZE)
    paths = [tuple(path) for path in codes[live].tolist()]
    names = {tuple(path): item for item, path in enumerate(codes.tolist())}
    found = beams_of(GENERATOR, context, trie, width)
    expected = as_beams(slow_search(GENERATOR, context, paths, width), names, width)
    assert beam_difference(expected, found) < 1e-4
    assert ((found.codes < 0).all(-1) == (found.items < 0)).all()


@settings(max_examples=15, deadline=None)
@given(seed=seeds, items=st.integers(1, 40), live_share=st.sampled_from([0.5, 1.0]))
def test_enough_beams_enumerate_every_live_item_once_and_the_policy_sums_to_one(
    seed: int, items: int, live_share: float
) -> None:
    rng = np.random.default_rng(seed)
    trie, _, live = random_trie(rng, items, SIZE, live_share)
    beams = beams_of(GENERATOR, random_context(rng, 2, SIZE), trie, SIZE**LEVELS)
    for request in range(2):
        alive = beams.items[request] >= 0
        assert sorted(beams.items[request, alive].tolist()) == np.flatnonzero(live).tolist()
        if live.any():
            total = np.exp(beams.masked_log_probs[request].sum(-1, dtype=np.float64)).sum()
            assert total == pytest.approx(1.0, abs=1e-5)


@settings(max_examples=15, deadline=None)
@given(seed=seeds)
def test_beams_come_best_first_and_dead_ones_last(seed: int) -> None:
    rng = np.random.default_rng(seed)
    trie, _, _ = random_trie(rng, 20, SIZE, 0.4)
    beams = beams_of(GENERATOR, random_context(rng, 3, SIZE), trie, 15)
    scores = beams.masked_log_probs.sum(-1)
    assert (scores[:, :-1] >= scores[:, 1:]).all()
    assert ((scores == -np.inf) == (beams.items < 0)).all()
    assert (beams.log_probs <= beams.masked_log_probs + 1e-5).all()


def test_a_closed_item_is_never_spelled_again_and_an_opened_one_comes_back() -> None:
    rng = np.random.default_rng(1)
    trie, _, _ = random_trie(rng, 30, SIZE)
    context = random_context(rng, 1, SIZE)
    first = beams_of(GENERATOR, context, trie, 10)
    best = int(first.items[0, 0])
    set_live(trie, best, False)
    assert best not in beams_of(GENERATOR, context, trie, SIZE**LEVELS).items
    set_live(trie, best, True)
    assert beam_difference(first, beams_of(GENERATOR, context, trie, 10)) == 0


def test_an_empty_trie_gives_only_dead_beams() -> None:
    rng = np.random.default_rng(2)
    trie, _, _ = random_trie(rng, 10, SIZE, 0.0)
    beams = beams_of(GENERATOR, random_context(rng, 2, SIZE), trie, 4)
    assert (beams.items == -1).all() and (beams.codes == -1).all() and (beams.masked_log_probs == -np.inf).all()


def test_a_users_beams_do_not_depend_on_the_batch() -> None:
    rng = np.random.default_rng(3)
    trie, _, _ = random_trie(rng, 40, SIZE)
    context = random_context(rng, 7, SIZE)
    whole = beams_of(GENERATOR, context, trie, 12)
    for user in range(7):
        alone = beams_of(GENERATOR, take_rows(context, slice(user, user + 1)), trie, 12)
        assert beam_difference(Beams._make(field[user : user + 1] for field in whole), alone) < 1e-5


@settings(max_examples=25, deadline=None)
@given(seed=seeds, live_share=st.sampled_from([0.3, 1.0]))
def test_legal_tokens_are_the_first_codes_of_live_items_behind_the_prefix(seed: int, live_share: float) -> None:
    rng = np.random.default_rng(seed)
    trie, codes, live = random_trie(rng, 25, SIZE, live_share)
    asked = np.concatenate([codes, rng.integers(0, SIZE, (10, LEVELS)).astype(np.int32)])  # some leave the trie
    table = legal_tokens(trie, asked, SIZE)
    for row, path in enumerate(asked.tolist()):
        for level in range(LEVELS):
            expected = {other[level] for other in codes[live].tolist() if other[:level] == path[:level]}
            assert set(np.flatnonzero(table[row, level]).tolist()) == expected
