"""After the answer: everything learning will ever need of it, sent to activity.v1.

The answer does not wait for this. Impressions are built and sent in a thread of their own, up to
MAX_PENDING at a time; what cannot be kept is counted and logged. A graceful stop sends what waits. A
crash loses what was pending: stage "log" in - out - removed says how many that is at any moment,
typically the last few milliseconds of answers.
"""

import logging
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, NamedTuple

from core.producer import Acknowledged, ActivitySink
from core.telemetry import IMPRESSIONS, STAGE_IN, STAGE_OUT, STAGE_REMOVED
from grpc_api.answer import Answer
from grpc_api.selection import METHOD
from protos.events.v1.activity_pb2 import Activity
from protos.events.v1.impression_pb2 import (
    Candidate,
    Exploration,
    FeatureAge,
    FeatureCursor,
    Impression,
    Removal,
    Slot,
)
from protos.events.v1.interaction_pb2 import Location
from protos.scoring.v1.recommend_pb2 import RecommendRequest

STAGE: Final = "log"
MAX_PENDING: Final = 5_000  # about 10 KB each; reached only while the broker is away

_log = logging.getLogger(__name__)


class Shown(NamedTuple):
    """One answer with the request that it answers and the catalogue offset that it obeyed."""

    request: RecommendRequest
    answer: Answer
    catalog_offset: int  # -1 = none applied


class ImpressionLog:
    """Sends impressions in order, off the event loop."""

    def __init__(self, sink: ActivitySink) -> None:
        self._sink = sink
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="impressions")
        self._settled = threading.Condition()
        self._pending = 0

    def log(self, shown: Shown) -> None:
        """Take over one answer; returns at once."""
        STAGE_IN.labels(STAGE).inc()
        with self._settled:
            if self._pending >= MAX_PENDING:
                self._lost("full", f"{MAX_PENDING} impressions wait for the broker")
                return
            self._pending += 1
        self._thread.submit(self._send, shown)

    def close(self, timeout_s: float) -> int:
        """Take no more, and wait until all are acknowledged or lost; how many still pend after `timeout_s`."""
        with self._settled:
            self._settled.wait_for(lambda: self._pending == 0, timeout_s)
            if self._pending:
                _log.error("impressions.unsent count=%d", self._pending)
            pending = self._pending
        self._thread.shutdown(wait=False, cancel_futures=True)
        return pending

    def _send(self, shown: Shown) -> None:
        try:
            impression = impression_of(shown)
            sent = self._sink.send(Activity(impression=impression), impression.user_id, shown.answer.served_at_ms)
        except Exception as error:
            self._settle("refused", error)
        else:
            sent.add_done_callback(self._acknowledged)

    def _acknowledged(self, sent: "Future[Acknowledged]") -> None:
        self._settle("unacknowledged", sent.exception())

    def _settle(self, fate: str, error: BaseException | None) -> None:
        if error is None:
            STAGE_OUT.labels(STAGE).inc()
            IMPRESSIONS.labels("kept").inc()
        else:
            self._lost(fate, repr(error))
        with self._settled:
            self._pending -= 1
            self._settled.notify_all()

    def _lost(self, reason: str, error: str) -> None:
        STAGE_REMOVED.labels(STAGE, reason).inc()
        IMPRESSIONS.labels("failed").inc()
        _log.warning("impression.lost reason=%s error=%s", reason, error)


def impression_of(shown: Shown) -> Impression:
    """The complete record of one answer."""
    request, answer = shown.request, shown.answer
    query, manifest = answer.query, answer.serving.manifest
    impression = Impression(
        request_id=query.request_id,
        user_id=query.user_id,
        surface=request.surface,
        session_id=request.session_id,
        model_version=manifest.model_version if answer.model_took_part else 0,
        tokenizer_version=manifest.tokenizer_version,
        catalog_digest=manifest.catalog_digest,
        catalog_offset=shown.catalog_offset,
        policy_version=answer.policy_version,
        feature_service=manifest.feature_service,
        numeric_precision=answer.serving.generator.precision,
        execution_provider=answer.serving.generator.provider,
        feature_ages=feature_ages(answer),
        feature_cursor=feature_cursor(answer),
        candidates=_candidates(answer),
        removals=[Removal(filter=name, count=count) for name, count in answer.sieved.removed.items()],
        slots=[
            Slot(item_id=slot.item_id, position=position, source=slot.source, candidate_index=slot.candidate)
            for position, slot in enumerate(answer.slots)
        ],
        exploration=_exploration(answer),
        degraded_reasons=answer.reasons,
        origin=request.origin,
    )
    impression.served_at.FromMilliseconds(answer.served_at_ms)
    if query.place is not None:
        latitude, longitude = query.place
        impression.location.CopyFrom(
            Location(latitude=latitude, longitude=longitude, accuracy_m=request.location.accuracy_m)
        )
    return impression


def feature_ages(answer: Answer) -> list[FeatureAge]:
    """How old each view's row was when the answer was given."""
    return [
        FeatureAge(
            view=age.view,
            found=age.updated_ms > 0,
            age_ms=answer.served_at_ms - age.updated_ms if age.updated_ms > 0 else 0,
        )
        for age in answer.hydrated.ages
    ]


def feature_cursor(answer: Answer) -> FeatureCursor | None:
    """Up to which activity record the person's rows went; None when there were none."""
    if not answer.hydrated.rows.found[0]:
        return None
    history = answer.hydrated.rows.history[0]
    return FeatureCursor(
        partition=int(history["log_partition"]),
        offset=int(history["log_offset"]),
        applied_events=int(history["applied"]),
    )


def _candidates(answer: Answer) -> list[Candidate]:
    generated = answer.generated
    if generated is None:
        return []
    items = generated.serving.catalog.items
    rows = zip(
        generated.items.tolist(),
        generated.codes.tolist(),
        generated.masked_log_probs.tolist(),
        generated.log_probs.tolist(),
        generated.item_logits.tolist(),
        (generated.values if generated.values.any() else generated.values[:, :0]).tolist(),
        answer.sieved.removed_by,
        strict=True,
    )
    return [
        Candidate(
            item_id=items[item].item_id,
            codes=codes,
            masked_log_probs=masked,
            log_probs=full,
            item_logit=item_logit,
            values=values,
            removed_by=removed_by,
        )
        for item, codes, masked, full, item_logit, values, removed_by in rows
    ]


def _exploration(answer: Answer) -> Exploration | None:
    drawn = answer.drawn
    if drawn is None:
        return None
    return Exploration(
        method=METHOD,
        temperature=drawn.temperature,
        slate_log_prob=drawn.slate_log_prob,
        slot_log_probs=drawn.slot_log_probs.tolist(),
    )
