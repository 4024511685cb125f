"""Serving needs no torch, and a fake generator obeys the laws of a real one."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, save

from core.errors import ArtefactError, ContractError
from models.runtime import Generator, OnnxGenerator, UniformGenerator
from tests.models.worlds import random_context, random_trie

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("module", ["models.runtime", "models.batches", "models.catalog"])
def test_serving_does_not_load_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == 0


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="found no file"):
        OnnxGenerator.load(tmp_path / "model.onnx", threads=1)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(ArtefactError, match="cannot be loaded"):
        OnnxGenerator.load(tmp_path / "model.onnx", threads=1)


def test_a_graph_that_does_not_describe_itself_is_refused(tmp_path: Path) -> None:
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", value[:1], value[1:])
    save(
        helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)]),
        str(tmp_path / "model.onnx"),
    )
    with pytest.raises(ArtefactError, match="does not say its beam_width, codebook_size, precision"):
        OnnxGenerator.load(tmp_path / "model.onnx", threads=1)


def test_the_uniform_generator_serves_live_items_with_the_probabilities_of_a_uniform_policy() -> None:
    rng = np.random.default_rng(0)
    trie, codes, live = random_trie(rng, 20, 5, 0.6)
    generator: Generator = UniformGenerator(beam_width=30, codebook_size=5)
    beams = generator.generate(random_context(rng, 2, 5), trie)
    alive = beams.items[0] >= 0
    items = beams.items[0, alive]
    assert sorted(items.tolist()) == np.flatnonzero(live).tolist()
    assert np.array_equal(beams.codes[0, alive], codes[items])
    scores = beams.masked_log_probs[0].sum(-1)
    assert np.exp(scores[alive]).sum() == pytest.approx(1.0)
    assert (scores[:-1] >= scores[1:]).all() and (scores[~alive] == -np.inf).all()
    assert beams.log_probs[0, 0] == pytest.approx(-np.log(5))
    assert all(np.array_equal(field[0], field[1]) for field in beams)


def test_the_uniform_generator_refuses_a_foreign_trie() -> None:
    rng = np.random.default_rng(0)
    trie, _, _ = random_trie(rng, 100, 8)
    with pytest.raises(ContractError, match="model speaks 5 codes a level, trie knows 8"):
        UniformGenerator(beam_width=3, codebook_size=5).generate(random_context(rng, 1, 5), trie)
