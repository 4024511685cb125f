"""A recommendation as a list of named stages.

    hydrate    the person's rows and what is popular around them; the last known ones when the store is late
    generate   the model's beams, in a batch with others; none for a person without a history
    filter     what may be shown now, and how many each filter took away
    select     the beam's own order, or a draw whose probability is known
    fill       slots still empty: popular around here, popular everywhere, anything live

Each stage reports the same four numbers: in, out, removed by reason, seconds. A stage that cannot make
the deadline, or whose dependency is down, costs quality and not the answer: the slate then comes from
what is left, and `reasons` says why. Everything that is shown passes the same filters.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from core.clock import Clock
from core.errors import StoreUnavailable
from core.geo import cell_name, neighbours
from core.ids import item_key
from feature_repo.folds.popularity import CellState, cell_key, top_of
from feature_repo.layouts import GLOBAL_CELL, USER, UserRows, user_rows
from grpc_api.answer import (
    EXPLORED,
    FEATURES_ABSENT,
    FEATURES_STALE,
    GENERATOR,
    GENERATOR_FAILED,
    GENERATOR_LATE,
    SLATE_SHORT,
    STORE_LATE,
    STORE_UNAVAILABLE,
    Answer,
    Hydrated,
    Point,
    Query,
    Slot,
    slot_of,
)
from grpc_api.fill import fill
from grpc_api.filters import Circumstances, Sieved, sieve
from grpc_api.last_known import LastKnown
from grpc_api.selection import Draw, draw, policy_version
from grpc_api.serving import Generated, Question, Serving
from grpc_api.trace import Trace
from models.values import SelectionWeights, selection_scores

HYDRATE_SHARE: Final = 0.5  # of the time left; the rest belongs to the generator

_log = logging.getLogger(__name__)

Result = TypeVar("Result")


class FeatureSource(Protocol):
    """Reads the online store without blocking the event loop; raises StoreUnavailable."""

    async def read_users(self, user_ids: Sequence[str]) -> UserRows: ...

    async def read_cells(self, cells: Sequence[str]) -> npt.NDArray[np.void]: ...


class Pipeline:
    """Answers queries from a store, a generator and a catalogue."""

    def __init__(
        self,
        source: FeatureSource,
        generate: Callable[[Question, float], Awaitable[Generated]],
        serving: Callable[[], Serving],
        *,
        clock: Clock,
        rng: np.random.Generator,
        service_radius_m: float,
        location_resolution: int,
        weights: SelectionWeights,
    ) -> None:
        self._source = source
        self._generate_in_batch = generate
        self._serving = serving
        self._clock = clock
        self._rng = rng
        self._service_radius_m = service_radius_m
        self._location_resolution = location_resolution
        self._weights = weights
        self._last_known = LastKnown()

    async def warm_up(self) -> None:
        """What is popular everywhere has been read once; raises StoreUnavailable when the store does not answer."""
        await self._read_cells([GLOBAL_CELL])

    async def answer(self, query: Query) -> Answer:
        """The slate, on time or nearly so; raises nothing that a dependency could cause."""
        trace = Trace()
        hydrated = await self._hydrate(query, trace)
        generated, reasons = await self._generate(query, hydrated, trace)
        # From here on nothing waits, so the catalogue cannot change under a stage.
        serving = generated.serving if generated is not None else self._serving()
        about = self._circumstances(query, hydrated)
        sieved = _filter(generated, about, trace)
        slots, drawn = self._select(query, generated, sieved.kept, trace)
        slots = fill(query, hydrated, serving, about, slots, trace)
        short = (SLATE_SHORT,) if len(slots) < query.slate_size else ()
        return Answer(
            query,
            self._clock.now_ms(),
            serving,
            hydrated,
            generated,
            sieved,
            slots,
            drawn,
            policy_version(self._weights),
            (*hydrated.reasons, *reasons, *short),
            tuple(trace.seconds),
        )

    # --- hydrate ---------------------------------------------------------------------------------

    async def _hydrate(self, query: Query, trace: Trace) -> Hydrated:
        now_s = time.monotonic()
        until_s = now_s + HYDRATE_SHARE * (query.ready_by_s - now_s)
        with trace.stage("hydrate") as passed:
            reasons: list[str] = []
            users = asyncio.ensure_future(self._source.read_users([query.user_id]))
            around = self._cells_around(query.place)
            if around:  # the place is known at once: both reads share one wait
                cells = asyncio.ensure_future(self._read_cells(around))
            rows = await _in_time(users, until_s, reasons)
            if rows is None:
                rows = self._last_known.user(query.user_id)
                reasons.append(FEATURES_ABSENT if rows is None else FEATURES_STALE)
            else:
                self._last_known.remember_user(query.user_id, rows)
            rows = _nobody() if rows is None else rows
            last_place = _last_place(rows)
            if not around:
                around = self._cells_around(last_place) or [GLOBAL_CELL]
                cells = asyncio.ensure_future(self._read_cells(around))
            states = await _in_time(cells, until_s, reasons)
            if states is None:
                states = self._last_known.cells(around)
            passed.out(1)
        world, own, ring = states[-1], states[:1], states[1:-1]
        nearby = [*own, top_of(ring)] if ring else []
        return Hydrated(rows, query.location or last_place, nearby, world, tuple(dict.fromkeys(reasons)))

    def _cells_around(self, place: Point | None) -> list[str]:
        """The cell of a place, the cells that touch it, and everywhere; nothing without a place."""
        if place is None:
            return []
        own = cell_key(*place, self._location_resolution)
        return [own, *(cell_name(cell) for cell in neighbours(int(own, 16))), GLOBAL_CELL]

    async def _read_cells(self, cells: Sequence[str]) -> list[CellState]:
        return self._last_known.remember_cells(cells, await self._source.read_cells(cells))

    # --- generate --------------------------------------------------------------------------------

    async def _generate(
        self, query: Query, hydrated: Hydrated, trace: Trace
    ) -> tuple[Generated | None, tuple[str, ...]]:
        if not hydrated.known:
            return None, ()
        with trace.stage("generate") as passed:
            question = Question(hydrated.rows, query.asked_at_ms, query.place)
            try:
                generated = await self._generate_in_batch(question, query.ready_by_s)
            except TimeoutError:
                passed.removed(GENERATOR_LATE)
                return None, (GENERATOR_LATE,)
            except Exception:  # whatever the runtime raised: the person still gets a slate
                _log.exception("generate.failed request_id=%s", query.request_id)
                passed.removed(GENERATOR_FAILED)
                return None, (GENERATOR_FAILED,)
            passed.out(len(generated.items))
            return generated, ()

    # --- filter, select --------------------------------------------------------------------------

    def _circumstances(self, query: Query, hydrated: Hydrated) -> Circumstances:
        history = hydrated.rows.history[0]
        acts, positives = int(history["length"]), int(history["positive_length"])
        return Circumstances(
            now_ms=query.asked_at_ms,
            here=hydrated.here,
            service_radius_m=self._service_radius_m,
            excluded=np.array([item_key(item_id) for item_id in query.exclude], np.int64),
            seen=np.concatenate([history["item"][:acts], history["positive_item"][:positives]]),
            seen_at_s=np.concatenate([history["at_s"][:acts], history["positive_at_s"][:positives]]).astype(np.int64),
        )

    def _select(
        self, query: Query, generated: Generated | None, kept: npt.NDArray[np.intp], trace: Trace
    ) -> tuple[tuple[Slot, ...], Draw | None]:
        with trace.stage("select", entering=len(kept)) as passed:
            if generated is None or not len(kept):
                return (), None
            scores = selection_scores(
                generated.masked_log_probs, generated.item_logits, generated.values, self._weights
            )[kept]
            drawn = draw(scores, query.slate_size, self._rng) if query.explore else None
            order = np.argsort(-scores, kind="stable")[: query.slate_size] if drawn is None else drawn.order
            chosen = kept[order]
            passed.out(len(chosen))
            source = GENERATOR if drawn is None else EXPLORED
            catalog = generated.serving.catalog
            return tuple(
                slot_of(catalog, int(generated.items[candidate]), source, int(candidate), query.location)
                for candidate in chosen
            ), drawn


def _filter(generated: Generated | None, about: Circumstances, trace: Trace) -> Sieved:
    """What may be shown of the generated, best first."""
    if generated is None:
        return Sieved(np.empty(0, np.intp), {}, [])
    with trace.stage("filter", entering=len(generated.items)) as passed:
        sieved = sieve(generated.items, generated.serving.catalog, about, generated.codes)
        passed.out(len(sieved.kept))
        for name, count in sieved.removed.items():
            passed.removed(name, count)
        return sieved


def _nobody() -> UserRows:
    """The rows of a person of whom nothing is known."""
    return user_rows(np.zeros(1, USER), np.zeros(1, bool))


def _last_place(rows: UserRows) -> Point | None:
    place = rows.places[0]
    if not place["last_cell"]:
        return None
    return float(place["last_latitude"]), float(place["last_longitude"])


async def _in_time(read: "asyncio.Future[Result]", until_s: float, reasons: list[str]) -> Result | None:
    """The result of a read, or None and the reason.

    A late read is cancelled but not waited for: taking leave of a database that hangs may hang too.
    """
    await asyncio.wait([read], timeout=max(0.0, until_s - time.monotonic()))
    if not read.done():
        read.cancel()
        reasons.append(STORE_LATE)
        return None
    try:
        return read.result()
    except StoreUnavailable as error:
        _log.warning("hydrate.store_unavailable error=%s", error)
        reasons.append(STORE_UNAVAILABLE)
        return None
