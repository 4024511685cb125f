"""A generator as one ONNX graph: context, beam search and trie in, items and log-probabilities out.

The batch is dynamic, the beam width is fixed, the trie's arrays have any length. The graph is checked
against torch before it counts as exported. Because the generator keeps its weights as they are used, each
of them is an initializer under its own name: `replace_weights` turns a policy update into a new graph in
a tenth of a second, where an export takes 15 s of one core. The graph does not depend on the weights, so an
export of an untrained generator may run while another is trained.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from core.errors import ArtefactError, ContractError
from models.batches import Beams, ContextBatch, beam_difference
from models.beam import BeamTensors, search
from models.context_processor import ContextTensors, context_tensors
from models.generator import Generator
from models.runtime import BEAM_WIDTH, CODEBOOK_SIZE, CONTEXT_PREFIX, PRECISION, TRIE_PREFIX, OnnxGenerator
from models.trie import Trie
from models.trie_tensors import TrieTensors, trie_tensors

TOLERANCE: Final = 1e-4  # largest difference of a log-probability between torch and ONNX Runtime, float32
_PREFIX: Final = "generator."  # what ServingGraph adds to the name of a weight

logger = logging.getLogger(__name__)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence the exporter's own deprecations and its notes on packages it would know but does not need."""
    noisy = logging.getLogger("torch.onnx")
    level = noisy.level
    noisy.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        noisy.setLevel(level)


class ServingGraph(nn.Module):
    """What is exported: flat tensors in, flat tensors out."""

    def __init__(self, generator: Generator, beam_width: int) -> None:
        super().__init__()
        self.generator = generator
        self.beam_width = beam_width

    def forward(self, *inputs: Tensor) -> BeamTensors:
        context = ContextTensors(*inputs[: len(ContextTensors._fields)])
        trie = TrieTensors(*inputs[len(ContextTensors._fields) :])
        return search(self.generator, context, trie, self.beam_width)


def beams_of(generator: Generator, batch: ContextBatch, trie: Trie, beam_width: int) -> Beams:
    """What the torch generator answers: the reference that an exported graph is held to."""
    with torch.no_grad():
        tensors = search(generator, context_tensors(batch), trie_tensors(trie), beam_width)
    return Beams._make(tensor.numpy() for tensor in tensors)


def export_generator(generator: Generator, path: Path, golden: ContextBatch, trie: Trie, *, beam_width: int) -> Beams:
    """Write the graph to `path` and return what it answers to the golden batch.

    Args:
        generator: its weights become the graph's.
        golden: at least 2 requests, kept beside the graph for those who load it.
        trie: of the same codebook; only its shapes shape the graph.

    Raises:
        ArtefactError: the graph does not answer as torch does; nothing should be published.
    """
    size = trie.token.shape[0]
    if len(golden.mask) < 2:
        raise ValueError(f"found {len(golden.mask)} golden requests, expected at least 2: one would fix the batch size")
    inputs = (*context_tensors(golden), *trie_tensors(trie))
    batch = torch.export.Dim("batch")
    lengths = {name: torch.export.Dim(f"{name}_length") for name in Trie._fields}
    shapes = tuple([{0: batch} for _ in ContextTensors._fields] + [{0: lengths[name]} for name in Trie._fields])
    graph = ServingGraph(generator, beam_width).eval()
    with _quiet_exporter(), torch.no_grad():
        program = torch.onnx.export(
            graph,
            inputs,
            dynamo=True,
            dynamic_shapes=(shapes,),
            optimize=False,  # the optimizer merges equal weights; ONNX Runtime optimizes at load anyway
            input_names=[CONTEXT_PREFIX + name for name in ContextBatch._fields]
            + [TRIE_PREFIX + name for name in Trie._fields],
            output_names=list(Beams._fields),
            verbose=False,
        )
    if program is None:
        raise ArtefactError("torch.onnx.export returned nothing, expected a program; export again with verbose output")
    model = program.model_proto
    for node in model.graph.node:  # source lines of every node: half the file, and nobody's business
        del node.metadata_props[:]
        node.doc_string = ""
    for key, value in (
        (BEAM_WIDTH, str(beam_width)),
        (CODEBOOK_SIZE, str(generator.config.codebook_size)),
        (PRECISION, "float32"),
    ):
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, str(path))
    logger.info("model.exported beam_width=%d trie_edges=%d bytes=%d", beam_width, size, path.stat().st_size)
    return check_graph(generator, path, golden, trie)


def replace_weights(source: Path, path: Path, generator: Generator, golden: ContextBatch, trie: Trie) -> Beams:
    """Write the graph of `source` with this generator's weights to `path`, and return what it answers.

    Raises:
        ContractError: a weight has no initializer of its name and shape in the graph: the architecture
            changed since `source` was exported.
        ArtefactError: the new graph does not answer as torch does.
    """
    model = onnx.load(str(source))
    slots = {initializer.name: initializer for initializer in model.graph.initializer}
    for name, weight in generator.named_parameters():
        slot = slots.get(_PREFIX + name)
        found = "none" if slot is None else list(slot.dims)
        if slot is None or found != list(weight.shape):
            raise ContractError(
                f"weight {name}: graph {source.name} holds {found}, model has {list(weight.shape)}; "
                "export the model anew instead of replacing its weights"
            )
        array = np.ascontiguousarray(weight.detach().cpu().numpy())
        slot.CopyFrom(numpy_helper.from_array(array, slot.name))
    onnx.save(model, str(path))
    return check_graph(generator, path, golden, trie)


def check_graph(generator: Generator, path: Path, golden: ContextBatch, trie: Trie) -> Beams:
    """What the graph at `path` answers to the golden batch, having found it equal to torch's answer.

    Raises:
        ArtefactError: an item or a log-probability differs by more than `TOLERANCE`.
    """
    runtime = OnnxGenerator.load(path, threads=1)
    expected = beams_of(generator, golden, trie, runtime.beam_width)
    found = runtime.generate(golden, trie)
    difference = beam_difference(expected, found)
    if difference > TOLERANCE:
        raise ArtefactError(
            f"{path.name} differs from torch by {difference:.2e} on the golden batch, "
            f"expected at most {TOLERANCE:.0e}; do not publish it, and report the versions of torch and onnxruntime"
        )
    return found
