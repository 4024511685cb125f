"""One graph answers as torch does, for any batch and any trie; new weights need no new export."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
import torch

from core.errors import ArtefactError, ContractError
from models.batches import Beams, ContextBatch, beam_difference, take_rows
from models.export import beams_of, check_graph, export_generator, replace_weights
from models.generator import Generator
from models.runtime import OnnxGenerator
from models.trie import Trie, set_live
from tests.models.worlds import random_context, random_trie, random_words, small_config, small_generator

SIZE, WIDTH = 8, 6


class Exported(NamedTuple):
    path: Path
    generator: Generator
    golden: ContextBatch
    trie: Trie
    answer: Beams


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A small generator's graph. Sets per block and split values take every branch of the decoder."""
    rng = np.random.default_rng(0)
    generator = small_generator(config=small_config(SIZE, kv_sets=2, kv_split=2))
    golden, (trie, _, _) = random_context(rng, 3, SIZE), random_trie(rng, 40, SIZE, 0.7)
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    return Exported(path, generator, golden, trie, export_generator(generator, path, golden, trie, beam_width=WIDTH))


@pytest.fixture
def runtime(exported: Exported) -> OnnxGenerator:
    return OnnxGenerator.load(exported.path, threads=1)


def test_the_golden_answer_is_what_torch_answers(exported: Exported) -> None:
    expected = beams_of(exported.generator, exported.golden, exported.trie, WIDTH)
    assert beam_difference(expected, exported.answer) < 1e-5
    assert [field.dtype for field in exported.answer] == [np.int32] * 2 + [np.float32] * 4
    assert np.array_equal(expected.items, exported.answer.items)


@pytest.mark.parametrize("requests", [1, 2, 9])
@pytest.mark.parametrize("items", [1, 7, 300])
def test_batch_and_trie_may_have_any_size(
    exported: Exported, runtime: OnnxGenerator, requests: int, items: int
) -> None:
    rng = np.random.default_rng(requests * 1000 + items)
    context, (trie, _, _) = random_context(rng, requests, SIZE), random_trie(rng, items, SIZE, 0.8)
    assert beam_difference(beams_of(exported.generator, context, trie, WIDTH), runtime.generate(context, trie)) < 1e-4


def test_a_users_beams_do_not_depend_on_the_batch(exported: Exported, runtime: OnnxGenerator) -> None:
    context = random_context(np.random.default_rng(1), 8, SIZE)
    whole = runtime.generate(context, exported.trie)
    for user in range(8):
        alone = runtime.generate(take_rows(context, slice(user, user + 1)), exported.trie)
        assert beam_difference(Beams._make(field[user : user + 1] for field in whole), alone) < 1e-5


def test_the_trie_is_read_at_every_run(exported: Exported, runtime: OnnxGenerator) -> None:
    best = int(exported.answer.items[0, 0])
    set_live(exported.trie, best, False)
    closed = runtime.generate(exported.golden, exported.trie)
    set_live(exported.trie, best, True)
    assert best not in closed.items
    assert beam_difference(exported.answer, runtime.generate(exported.golden, exported.trie)) == 0


def test_the_graph_says_what_it_is(runtime: OnnxGenerator) -> None:
    assert (runtime.beam_width, runtime.precision) == (WIDTH, "float32")
    assert runtime.provider.endswith("ExecutionProvider")


def test_every_weight_is_an_initializer_under_its_own_name(exported: Exported) -> None:
    graph = onnx.load(str(exported.path)).graph
    stored = {weight.name: tuple(weight.dims) for weight in graph.initializer}
    for name, weight in exported.generator.named_parameters():
        assert stored[f"generator.{name}"] == tuple(weight.shape)


def test_the_graph_does_not_tell_where_it_was_made(exported: Exported) -> None:
    assert b".py" not in exported.path.read_bytes()


def test_replaced_weights_answer_as_the_new_model(exported: Exported, tmp_path: Path) -> None:
    updated = small_generator(seed=5, config=exported.generator.config)
    answer = replace_weights(exported.path, tmp_path / "new.onnx", updated, exported.golden, exported.trie)
    assert beam_difference(beams_of(updated, exported.golden, exported.trie, WIDTH), answer) < 1e-4
    assert beam_difference(exported.answer, answer) > 0.1


@pytest.mark.parametrize(
    "parts",
    [
        {"prior": True},
        {"items": 40},
        {"items": 40, "item_head": True},
        {"items": 40, "item_head": True, "prior": True},
        {"items": 40, "item_head": True, "value_items": 40},
    ],
    ids=lambda parts: "+".join(parts),
)
def test_an_update_may_replace_the_weights_of_whatever_parts_a_model_has(
    parts: dict[str, float], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    golden, (trie, _, _) = random_context(rng, 3, SIZE), random_trie(rng, 60, SIZE, 0.7)
    before, after = (small_generator(seed, small_config(SIZE, **parts)) for seed in (0, 5))
    export_generator(before, tmp_path / "old.onnx", golden, trie, beam_width=WIDTH)
    answer = replace_weights(tmp_path / "old.onnx", tmp_path / "new.onnx", after, golden, trie)
    assert beam_difference(beams_of(after, golden, trie, WIDTH), answer) < 1e-4


def test_weights_of_another_architecture_are_refused(exported: Exported, tmp_path: Path) -> None:
    wider = small_generator(config=small_config(SIZE, kv_sets=2, kv_split=2, d_feature=6))
    with pytest.raises(ContractError, match="export the model anew"):
        replace_weights(exported.path, tmp_path / "new.onnx", wider, exported.golden, exported.trie)


def test_a_graph_that_differs_from_torch_is_refused(exported: Exported) -> None:
    other = small_generator(seed=6, config=exported.generator.config)
    with pytest.raises(ArtefactError, match="differs from torch"):
        check_graph(other, exported.path, exported.golden, exported.trie)


def test_a_context_of_another_shape_names_the_remedy(exported: Exported, runtime: OnnxGenerator) -> None:
    short = exported.golden._replace(place=exported.golden.place[:, :-1])
    with pytest.raises(ContractError, match="export the model and the catalogue together"):
        runtime.generate(short, exported.trie)


def test_a_trie_of_a_larger_codebook_names_both_sizes(exported: Exported, runtime: OnnxGenerator) -> None:
    trie, _, _ = random_trie(np.random.default_rng(2), 500, SIZE + 4)
    with pytest.raises(ContractError, match=f"model speaks {SIZE} codes a level, trie knows {SIZE + 4}"):
        runtime.generate(exported.golden, trie)


def test_one_golden_request_is_too_few(exported: Exported, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 2"):
        export_generator(
            exported.generator,
            tmp_path / "m.onnx",
            take_rows(exported.golden, slice(0, 1)),
            exported.trie,
            beam_width=2,
        )


@pytest.mark.parametrize("words", [0.0, 0.5])
def test_a_prior_and_both_heads_export_with_the_rest(tmp_path: Path, words: float) -> None:
    """Evidence, context blocks, table, words and heads: the graph is held to torch, also on another trie."""
    rng = np.random.default_rng(0)
    shape = {"kv_groups": 4, "prior": True, "items": 60, "item_head": True, "context_blocks": 1, "value_items": 60}
    generator = small_generator(config=small_config(SIZE, **shape, words=words))
    with torch.no_grad():
        generator.value_head.rates.normal_()
        generator.value_head.w_does.normal_()
        generator.value_head.w_fits.normal_()
    golden, (trie, _, _) = random_context(rng, 3, SIZE), random_trie(rng, 60, SIZE, 0.7)
    trie = trie._replace(words=random_words(rng, len(trie.leaf)))
    export_generator(generator, tmp_path / "model.onnx", golden, trie, beam_width=WIDTH)
    other, (grown, _, _) = random_context(rng, 5, SIZE), random_trie(rng, 90, SIZE, 0.5)
    grown = grown._replace(words=random_words(rng, len(grown.leaf)))
    found = OnnxGenerator.load(tmp_path / "model.onnx", threads=1).generate(other, grown)
    assert beam_difference(beams_of(generator, other, grown, WIDTH), found) < 1e-4
    assert found.item_logits[found.items >= 0].std() > 0
    assert found.values[found.items >= 0].std() > 0
