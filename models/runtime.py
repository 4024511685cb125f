"""What serves: an exported graph in ONNX Runtime. numpy and onnxruntime only, never torch.

A generator says on which provider it runs and in which precision; both are logged with every impression,
since a log-probability is only comparable with one of the same kind.
"""

import ctypes
import logging
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import onnxruntime as ort

from core.errors import ArtefactError, ContractError
from models.batches import LEVELS, Beams, ContextBatch
from models.trie import Trie
from models.values import Value

CONTEXT_PREFIX: Final = "context_"  # what stands before a ContextBatch field in the name of a graph input
TRIE_PREFIX: Final = "trie_"
BEAM_WIDTH: Final = "beam_width"
CODEBOOK_SIZE: Final = "codebook_size"
PRECISION: Final = "precision"

_CPU: Final = "CPUExecutionProvider"
_CUDA: Final = "CUDAExecutionProvider"
_ERRORS_ONLY: Final = 3  # ONNX Runtime's severities: 2 warnings, 3 errors

logger = logging.getLogger(__name__)


class Generator(Protocol):
    """What can answer a batch of contexts. Safe to call from several threads."""

    @property
    def beam_width(self) -> int:
        """K: beams per request."""
        ...

    @property
    def precision(self) -> str:
        """Of the arithmetic, for example "float32"."""
        ...

    @property
    def provider(self) -> str:
        """What computes, for example "CPUExecutionProvider"."""
        ...

    def generate(self, batch: ContextBatch, trie: Trie) -> Beams:
        """The beams of each request. They do not depend on the other requests of the batch.

        Raises:
            ContractError: the model and the trie speak of different codebooks.
        """
        ...


class OnnxGenerator:
    """An exported graph, loaded."""

    def __init__(self, session: ort.InferenceSession, name: str) -> None:
        described = session.get_modelmeta().custom_metadata_map
        missing = [key for key in (BEAM_WIDTH, CODEBOOK_SIZE, PRECISION) if key not in described]
        if missing:
            raise ArtefactError(f"{name} does not say its {', '.join(missing)}; export it with models.export")
        self._session = session
        self._inputs = [node.name for node in session.get_inputs()]
        self._codebook_size = int(described[CODEBOOK_SIZE])
        self.beam_width = int(described[BEAM_WIDTH])
        self.precision: str = described[PRECISION]
        self.provider: str = session.get_providers()[0]

    @classmethod
    def load(cls, path: Path, threads: int) -> "OnnxGenerator":
        """The graph at `path`, on the GPU where there is one, else on the CPU.

        Args:
            path: a file written by `models.export`.
            threads: inside an operator; operators run one after the other.

        Raises:
            ArtefactError: the file is missing, damaged, or was not written by `models.export`.
        """
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        # Idle threads that spin take the cores from the event loop and from the store.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if not path.is_file():
            raise ArtefactError(f"found no file {path}, expected an exported generator; publish a model first")
        try:
            session = ort.InferenceSession(str(path), options, providers=_providers())
        except Exception as error:  # ONNX Runtime raises a class of its own per kind of damage
            raise ArtefactError(f"{path} cannot be loaded ({error}); export and publish it again") from error
        generator = cls(session, path.name)
        logger.info("model.loaded file=%s provider=%s threads=%d", path.name, generator.provider, threads)
        return generator

    def generate(self, batch: ContextBatch, trie: Trie) -> Beams:
        """As in `Generator`."""
        check_codebook(trie, self._codebook_size)
        values = {CONTEXT_PREFIX + name: array for name, array in zip(batch._fields, batch, strict=True)}
        values |= {TRIE_PREFIX + name: array for name, array in zip(trie._fields, trie, strict=True)}
        try:
            outputs = self._session.run(Beams._fields, {name: values[name] for name in self._inputs})
        except Exception as error:
            shapes = {name: values[name].shape for name in self._inputs if name in values}
            raise ContractError(
                f"the model does not take these inputs ({error}); found {shapes}; "
                "export the model and the catalogue together"
            ) from error
        return Beams._make(outputs)


class UniformGenerator:
    """A fake that finds all live tokens of a level equally likely. Its beams: the first K live paths.

    It obeys the laws of a real one: only live items, dead beams last, equal answers to equal requests.
    """

    precision = "float32"
    provider = "UniformGenerator"

    def __init__(self, beam_width: int, codebook_size: int) -> None:
        self.beam_width = beam_width
        self._codebook_size = codebook_size

    def generate(self, batch: ContextBatch, trie: Trie) -> Beams:
        """As in `Generator`."""
        check_codebook(trie, self._codebook_size)
        leaves = trie.leaf[trie.leaf >= 0]
        paths = []
        for leaf in leaves[trie.live[leaves] > 0].tolist():
            codes, shares, node = [], [], leaf
            while (above := int(trie.parent[node])) >= 0:
                children = trie.child[trie.row_start[above] : trie.row_start[above + 1]]
                codes.append(int(trie.token[node - 1]))
                shares.append(-float(np.log(np.count_nonzero(trie.live[children]))))
                node = above
            paths.append((-sum(shares), codes[::-1], shares[::-1], int(trie.leaf_item[leaf])))
        best = sorted(paths)[: self.beam_width]
        count, requests = len(best), len(batch.mask)
        items = np.full(self.beam_width, -1, np.int32)
        codes_of = np.full((self.beam_width, LEVELS), -1, np.int32)
        masked = np.full((self.beam_width, LEVELS), -np.inf, np.float32)
        full = masked.copy()
        if best:
            items[:count] = [path[3] for path in best]
            codes_of[:count] = [path[1] for path in best]
            masked[:count] = [path[2] for path in best]
            full[:count] = -np.log(self._codebook_size)
        scored = np.where(items < 0, np.float32(-np.inf), np.float32(0.0))
        values = np.zeros((self.beam_width, len(Value)), np.float32)
        return Beams._make(
            np.repeat(array[None], requests, axis=0) for array in (items, codes_of, masked, full, scored, values)
        )


def check_codebook(trie: Trie, codebook_size: int) -> None:
    """Raise ContractError unless every token of the trie is one that the model speaks."""
    largest = int(trie.token.max(initial=0))
    if largest >= codebook_size:
        raise ContractError(
            f"model speaks {codebook_size} codes a level, trie knows {largest + 1}; "
            "export the model and the catalogue together"
        )


def _providers() -> list[str]:
    """The GPU first where the driver is there. Asking for it elsewhere costs seconds and a page of warnings."""
    if _CUDA in ort.get_available_providers():
        try:
            ctypes.CDLL("libcuda.so.1")
        except OSError:
            return [_CPU]
        ort.preload_dlls()  # the CUDA and cuDNN libraries that the wheels brought; nothing else finds them
        return [_CUDA, _CPU]
    return [_CPU]
