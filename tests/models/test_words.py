"""The words of items: an item that came after training is scored by what is said of it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import ContractError
from models.batches import LEVELS, Beams
from models.context_processor import context_tensors
from models.export import beams_of
from models.generator import Generator
from models.item_vectors import FEATURES, WORDS, hashed_features, words_of
from models.losses import item_loss
from models.trie import Trie
from models.trie_tensors import trie_tensors
from models.words import Words
from protos.catalog.v1.catalog_pb2 import Item
from tests.models.worlds import random_context, random_trie, random_words, small_config, small_generator

SIZE, ITEMS, KNOWN = 5, 60, 40


def world(seed: int) -> tuple[Trie, np.ndarray]:
    rng = np.random.default_rng(seed)
    trie, codes, _ = random_trie(rng, ITEMS, SIZE)
    return trie._replace(words=random_words(rng, len(trie.leaf))), codes


def generator_with(**changes: float) -> Generator:
    shape = {"kv_groups": 4, "items": KNOWN, "item_head": True, "words": 0.5} | changes
    generator = small_generator(config=small_config(SIZE, **shape))
    with torch.no_grad():
        if generator.config.words:
            generator.words.table[:FEATURES].normal_()
    return generator


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_some_items_are_said_to_be_what_all_are_but_for_their_bias(seed: int) -> None:
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    words, said, state = Words(8, 30, 0.0), torch.from_numpy(random_words(rng, 30)), torch.randn(4, 8)
    some = torch.from_numpy(rng.integers(0, 30, (4, 5)))
    with torch.no_grad():
        words.bias.normal_()
        expected = (words.of_known(state, said) - words.bias).gather(1, some)
        torch.testing.assert_close(words(state, said[some]), expected, atol=1e-5, rtol=1e-4)


def test_an_item_of_which_nothing_is_said_has_no_vector_and_never_gets_one() -> None:
    rng = np.random.default_rng(0)
    words, nothing, state = Words(8, 21, 0.0), torch.full((1, WORDS), FEATURES), torch.randn(2, 8)
    said = torch.cat([torch.from_numpy(random_words(rng, 20)), nothing])
    optimizer = torch.optim.AdamW(words.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        (words.of_known(state, said).square().sum() + words(state, said.expand(2, -1, -1)).sum()).backward()
        optimizer.step()
    assert not words(state, nothing.expand(2, 1, -1)).any()
    assert words(state, said.expand(2, -1, -1)).abs().sum() > 0


def test_the_first_features_are_kept_tags_before_the_title() -> None:
    item = Item(item_id="x", tags=["tea", "green"], author_id="a", title=" ".join(f"word{n}" for n in range(60)))
    np.testing.assert_array_equal(words_of(item), hashed_features(item)[0][:WORDS])
    assert (words_of(Item(item_id="x", tags=["tea"])) == FEATURES).sum() == WORDS - 1


def test_a_new_item_is_scored_by_its_words_and_a_known_one_as_before() -> None:
    (trie, _), batch = world(0), random_context(np.random.default_rng(0), 2, SIZE)
    trie.words[ITEMS - 1] = trie.words[ITEMS - 2]
    plain, worded = generator_with(words=0.0), generator_with()
    worded.load_state_dict(plain.state_dict(), strict=False)
    before, after = (_by_item(beams_of(each, batch, trie, ITEMS)) for each in (plain, worded))
    np.testing.assert_array_equal(before[:, :KNOWN], after[:, :KNOWN])
    np.testing.assert_allclose(after[:, ITEMS - 1], after[:, ITEMS - 2], atol=1e-6)
    assert np.abs(before[:, KNOWN:] - after[:, KNOWN:]).max() > 0.1
    with torch.no_grad():
        state = worded.step(0, worded.encode(context_tensors(batch)), torch.zeros(2, 1), None).state[:, 0]
        said = worded.words(state, torch.from_numpy(trie.words)[None, KNOWN:ITEMS].expand(2, -1, -1))
    np.testing.assert_allclose(after[:, KNOWN:], 0.5 * said.numpy(), atol=1e-5)


def test_words_learn_and_nothing_flows_back_from_them() -> None:
    (trie, codes), generator = world(0), generator_with().train()
    batch = random_context(np.random.default_rng(0), 4, SIZE)
    targets = torch.arange(4)[:, None]
    paths = torch.from_numpy(codes)[targets]
    found = generator.decode(context_tensors(batch), paths, trie_tensors(trie), torch.from_numpy(codes[:KNOWN]))
    assert found.word_logits is not None
    item_loss(found.word_logits, targets).backward()
    moved = {name for name, weight in generator.named_parameters() if weight.grad is not None and weight.grad.any()}
    assert moved == {f"words.{name}" for name, _ in generator.words.named_parameters()}


@pytest.mark.parametrize("has_trie", [False, True], ids=["no-trie", "a-trie-without-words"])
def test_words_that_nobody_hands_in_are_a_clear_error(has_trie: bool) -> None:
    rng = np.random.default_rng(0)
    trie = trie_tensors(random_trie(rng, ITEMS, SIZE)[0]) if has_trie else None
    batch, paths = context_tensors(random_context(rng, 1, SIZE)), torch.zeros(1, 1, LEVELS, dtype=torch.int32)
    with pytest.raises(ContractError, match="hand in the trie of a Catalog"):
        generator_with().decode(batch, paths, trie, torch.zeros(KNOWN, LEVELS, dtype=torch.int32))


def _by_item(beams: Beams) -> np.ndarray:
    by_item = np.full((len(beams.items), ITEMS), -np.inf)
    np.put_along_axis(by_item, beams.items, beams.item_logits, axis=1)
    return by_item
