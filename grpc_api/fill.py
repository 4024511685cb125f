"""The last stage: empty slots get what is popular around the person, then everywhere, then anything live."""

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from grpc_api.answer import CATALOG, NEARBY, POPULAR, Hydrated, Query, Slot, slot_of
from grpc_api.filters import Circumstances, sieve
from grpc_api.serving import Serving
from grpc_api.trace import Trace

_FILL_CHUNK: Final = 512  # items of the catalogue that one step of the last resort looks at

Ints = npt.NDArray[np.int32]


def fill(
    query: Query, hydrated: Hydrated, serving: Serving, about: Circumstances, slots: tuple[Slot, ...], trace: Trace
) -> tuple[Slot, ...]:
    """The slate, with its empty slots filled as far as anything may be shown."""
    filled = list(slots)
    if len(filled) >= query.slate_size:
        return slots
    taken = {slot.item for slot in filled}
    catalog = serving.catalog
    with trace.stage("fill", entering=query.slate_size - len(filled)) as passed:
        for source, items in _fillers(hydrated, serving):
            fresh = np.array([item for item in items.tolist() if item not in taken], np.int32)
            sieved = sieve(fresh, catalog, about)
            for name, count in sieved.removed.items():
                passed.removed(name, count)
            for item in fresh[sieved.kept[: query.slate_size - len(filled)]].tolist():
                taken.add(item)
                filled.append(slot_of(catalog, item, source, -1, query.location))
            if len(filled) >= query.slate_size:
                break
        passed.out(len(filled) - len(slots))
    return tuple(filled)


def _fillers(hydrated: Hydrated, serving: Serving) -> Iterator[tuple[str, Ints]]:
    """Catalogue indices by source, most wanted first; the last resort is the whole catalogue."""
    catalog = serving.catalog
    for source, cells in ((NEARBY, hydrated.nearby), (POPULAR, [hydrated.world])):
        for cell in cells:
            keys = np.array([key for key, score in cell.scores if score > 0.0], np.int64)
            indices = catalog.indices_of(keys)
            yield source, indices[indices >= 0]
    for start in range(0, len(catalog.codes), _FILL_CHUNK):
        chunk = catalog.available[start : start + _FILL_CHUNK]
        yield CATALOG, (np.flatnonzero(chunk) + start).astype(np.int32)
