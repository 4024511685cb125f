"""The model that answers now, and the step from one to the next.

A batch runs on one `Serving` from start to end: contexts are built against the very catalogue whose
trie the graph walks. A swap and a catalogue change happen between batches, on the event loop, so
neither a run nor a stage of the pipeline ever sees half of one.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from feature_repo.layouts import UserRows
from models.batches import Beams
from models.catalog import Catalog
from models.contexts import context_batch
from models.runtime import Generator
from protos.registry.v1.manifest_pb2 import ModelManifest

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]


class Serving(NamedTuple):
    """One published version, loaded, verified and warmed up."""

    manifest: ModelManifest
    catalog: Catalog
    generator: Generator


class Question(NamedTuple):
    """One request, as the generator hears it."""

    rows: UserRows  # (1,) each
    now_ms: int
    place: tuple[float, float] | None


class Generated(NamedTuple):
    """One request's live beams, best first, with the version that they come from.

    Letters: M live beams, L levels, R outcomes.
    """

    serving: Serving
    items: Ints  # (M,) catalogue index
    codes: Ints  # (M, L)
    masked_log_probs: Floats  # (M, L)
    log_probs: Floats  # (M, L)
    item_logits: Floats  # (M,) what the item head says of the item; 0 without one
    values: Floats  # (M, R) odds of each of models.values.Value; 0 without a value head

    @property
    def path_log_probs(self) -> npt.NDArray[np.float64]:
        """(M,) natural log-probability of the path under the serving policy, summed from what is logged."""
        return np.asarray(self.masked_log_probs.sum(axis=1, dtype=np.float64))


class Host:
    """Holds what serves. `answer` runs in the batcher's thread; everything else on the event loop."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    @property
    def serving(self) -> Serving:
        """What answers now."""
        return self._serving

    def swap(self, serving: Serving) -> None:
        """Answer from another version; call it between batches."""
        self._serving = serving

    def answer(self, questions: Sequence[Question]) -> list[Generated]:
        """The beams of each question; they do not depend on the other questions."""
        serving = self._serving
        unknown = (float("nan"), float("nan"))
        batch = context_batch(
            UserRows(*(np.concatenate(rows) for rows in zip(*(q.rows for q in questions), strict=True))),
            serving.catalog,
            np.array([question.now_ms for question in questions], np.int64),
            np.array([question.place or unknown for question in questions], np.float64),
        )
        beams = serving.generator.generate(batch, serving.catalog.trie)
        return [_live(serving, beams, row) for row in range(len(questions))]


def _live(serving: Serving, beams: Beams, row: int) -> Generated:
    live = np.flatnonzero(beams.items[row] >= 0)
    of_request = (beams.items, beams.codes, beams.masked_log_probs, beams.log_probs, beams.item_logits, beams.values)
    return Generated(serving, *(np.asarray(field[row][live]) for field in of_request))
