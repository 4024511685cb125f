"""RecommendService: a message in, the pipeline, a message out; the impression follows after the answer."""

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple, Protocol

import numpy as np
from grpc.aio import ServicerContext

from core.clock import Clock
from core.errors import InputError, NotReady, Overloaded
from core.geo import cell_of, centre_of
from core.settings import Scorer
from core.telemetry import DEGRADED, QUEUE_DEPTH
from core.validation import impression_fault
from grpc_api.answer import Answer, Query
from grpc_api.impressions import Shown, feature_ages, feature_cursor
from grpc_api.pipeline import Pipeline
from protos.events.v1.impression_pb2 import Impression
from protos.scoring.v1 import recommend_pb2_grpc
from protos.scoring.v1.recommend_pb2 import RecommendRequest, RecommendResponse, StageTime

DEFAULT_SLATE: Final = 5
MAX_SLATE: Final = 50
MAX_EXCLUDED: Final = 1000

Context = ServicerContext[RecommendRequest, RecommendResponse]


class Freshness(Protocol):
    """Whether this process still knows the newest catalogue."""

    @property
    def offset(self) -> int:
        """The catalog.v1 offset applied; -1 = none."""
        ...

    def check(self) -> None:
        """Raise LeaseExpired when it may not know it any more."""


class Parts(NamedTuple):
    """What answers, once it is there."""

    pipeline: Pipeline
    catalog: Freshness
    log: Callable[[Shown], None]


class RecommendService(recommend_pb2_grpc.RecommendServiceServicer):
    """Answers within the call's deadline; refuses at once what it has no room for."""

    def __init__(self, *, clock: Clock, rng: np.random.Generator, settings: Scorer, location_resolution: int) -> None:
        self._parts: Parts | None = None
        self._clock = clock
        self._rng = rng
        self._settings = settings
        self._location_resolution = location_resolution
        self._in_work = 0

    def open(self, parts: Parts) -> None:
        """Answer from now on."""
        self._parts = parts

    async def Recommend(self, request: RecommendRequest, context: Context) -> RecommendResponse:
        """The slate of one person.

        Raises:
            NotReady: no model is loaded yet.
            InputError: the request cannot be understood; the message names the field.
            Overloaded: `scorer.max_queue` requests are in work already.
            LeaseExpired: the catalogue may have moved on without this process.
        """
        arrived_s = time.monotonic()
        parts = self._parts
        if parts is None:
            raise NotReady("found no model loaded yet; ask again when health says SERVING")
        query = self._query(request, arrived_s, context.time_remaining())
        with self._room():
            parts.catalog.check()
            answer = await parts.pipeline.answer(query)
            parts.catalog.check()  # this process may have been asleep in between
        shown = Shown(request, answer, parts.catalog.offset)
        for reason in answer.reasons:
            DEGRADED.labels(reason).inc()
        if not request.preview:
            parts.log(shown)
        return response_of(answer)

    @contextmanager
    def _room(self) -> Iterator[None]:
        if self._in_work >= self._settings.max_queue:
            raise Overloaded(f"found {self._in_work} requests in work, expected fewer than that; try another scorer")
        self._in_work += 1
        QUEUE_DEPTH.set(self._in_work)
        try:
            yield
        finally:
            self._in_work -= 1
            QUEUE_DEPTH.set(self._in_work)

    def _query(self, request: RecommendRequest, arrived_s: float, remaining_s: float | None) -> Query:
        if remaining_s is None:
            remaining_s = self._settings.default_deadline_ms / 1000.0
        request_id = request.request_id or uuid.uuid4().hex
        now_ms = self._clock.now_ms()
        _understood(request, request_id, now_ms)
        location = place = None
        if request.HasField("location"):
            location = request.location.latitude, request.location.longitude
            place = centre_of(cell_of(*location, self._location_resolution))
        explore = not request.preview and self._rng.random() < self._settings.exploration_share
        return Query(
            request_id=request_id,
            user_id=request.user_id,
            slate_size=request.slate_size or DEFAULT_SLATE,
            location=location,
            place=place,
            exclude=tuple(request.exclude_item_ids),
            explore=explore,
            asked_at_ms=now_ms,
            ready_by_s=arrived_s + remaining_s - self._settings.reserve_ms / 1000.0,
        )


def response_of(answer: Answer) -> RecommendResponse:
    """What the caller is told of an answer."""
    generated, drawn = answer.generated, answer.drawn
    response = RecommendResponse(
        request_id=answer.query.request_id,
        model_version=answer.serving.manifest.model_version if answer.model_took_part else 0,
        degraded=bool(answer.reasons),
        degraded_reasons=answer.reasons,
        explored=drawn is not None,
        slate_log_prob=drawn.slate_log_prob if drawn is not None else None,
        feature_cursor=feature_cursor(answer),
        feature_ages=feature_ages(answer),
        stage_times=[StageTime(stage=stage, ms=1000.0 * seconds) for stage, seconds in answer.stage_s],
    )
    response.served_at.FromMilliseconds(answer.served_at_ms)
    log_probs = generated.path_log_probs if generated is not None else None
    for position, slot in enumerate(answer.slots):
        item = response.items.add(
            item_id=slot.item_id, position=position, source=slot.source, distance_m=slot.distance_m
        )
        if generated is not None and log_probs is not None and slot.candidate >= 0:
            item.log_prob = float(log_probs[slot.candidate])
            item.codes.extend(generated.codes[slot.candidate].tolist())
    return response


def _understood(request: RecommendRequest, request_id: str, now_ms: int) -> None:
    """Refuse what cannot be answered, and what the log would refuse as an impression afterwards."""
    if request.slate_size > MAX_SLATE:
        raise InputError(f"slate_size: found {request.slate_size}, expected at most {MAX_SLATE}")
    if len(request.exclude_item_ids) > MAX_EXCLUDED:
        raise InputError(f"exclude_item_ids: found {len(request.exclude_item_ids)}, expected at most {MAX_EXCLUDED}")
    shown = Impression(
        request_id=request_id,
        user_id=request.user_id,
        surface=request.surface,
        session_id=request.session_id,
        location=request.location if request.HasField("location") else None,
    )
    shown.served_at.FromMilliseconds(now_ms)
    fault = impression_fault(shown, now_ms)
    if fault is not None:
        raise InputError(f"{fault.field}: {fault.reason}")
