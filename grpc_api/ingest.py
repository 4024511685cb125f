"""IngestService: what people did, in; one result per event, out, after the broker's acks=all."""

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from grpc.aio import ServicerContext

from core.clock import Clock
from core.errors import BrokerUnavailable, InputError, TooLarge
from core.producer import Acknowledged, ActivitySink
from core.settings import Ingest
from core.telemetry import EVENTS
from core.validation import Fault, interaction_fault
from protos.events.v1.activity_pb2 import Activity
from protos.events.v1.interaction_pb2 import Interaction
from protos.ingest.v1 import ingest_pb2_grpc
from protos.ingest.v1.ingest_pb2 import EventResult, IngestRequest, IngestResponse

NAMED_FAULTS: Final = 3  # faults that the message of a wholly refused call spells out

_log = logging.getLogger(__name__)

Context = ServicerContext[IngestRequest, IngestResponse]
Fate = Acknowledged | Fault | None  # of one event; None = good, not sent yet


class IngestService(ingest_pb2_grpc.IngestServiceServicer):
    """Judges each event by `core.validation` and logs the good ones under the platform's time."""

    def __init__(self, sink: ActivitySink, clock: Clock, settings: Ingest) -> None:
        self._sink = sink
        self._clock = clock
        self._settings = settings
        # kafka-python may block a sender while it knows no broker; one thread keeps the order of events.
        self._sender = ThreadPoolExecutor(1, thread_name_prefix="ingest")

    async def Ingest(self, request: IngestRequest, context: Context) -> IngestResponse:
        """One result per event, in order, once every good one is acknowledged by all replicas.

        Raises:
            TooLarge: more events than one call may carry; none was kept.
            InputError: no event was good.
            BrokerUnavailable: an acknowledgement is missing; some events may have been kept, and
                sending all again is safe, because each carries its event_id.
        """
        events = request.events
        if len(events) > self._settings.max_events:
            raise TooLarge(f"found {len(events)} events, expected at most {self._settings.max_events}; send fewer")
        now_ms = self._clock.now_ms()
        fates: list[Fate] = [interaction_fault(event, now_ms) for event in events]
        good = [index for index, fault in enumerate(fates) if fault is None]
        if good:
            for index, fate in zip(good, await self._keep([events[index] for index in good], now_ms), strict=True):
                fates[index] = fate
        results = [_result(event, fate) for event, fate in zip(events, fates, strict=True)]
        kept = sum(result.kept for result in results)
        EVENTS.labels("kept").inc(kept)
        EVENTS.labels("rejected").inc(len(events) - kept)
        if not kept:
            raise InputError(_nothing_kept(results))
        return IngestResponse(results=results)

    async def _keep(self, events: Sequence[Interaction], now_ms: int) -> list[Acknowledged | Fault]:
        sending = asyncio.get_running_loop().run_in_executor(self._sender, self._send, events, now_ms)
        try:
            async with asyncio.timeout(self._settings.ack_timeout_ms / 1000.0):
                return [await _fate(sent) for sent in await sending]
        except (TimeoutError, BrokerUnavailable) as error:
            EVENTS.labels("failed").inc(len(events))
            _log.warning("ingest.unacknowledged events=%d error=%r", len(events), error)
            raise BrokerUnavailable(
                f"not all of {len(events)} events were acknowledged within {self._settings.ack_timeout_ms} ms; "
                "send the call again, event ids make it safe"
            ) from error

    def _send(self, events: Sequence[Interaction], now_ms: int) -> list["Future[Acknowledged] | Fault"]:
        sent: list[Future[Acknowledged] | Fault] = []
        for event in events:
            try:
                sent.append(self._sink.send(Activity(interaction=event), event.user_id, now_ms))
            except TooLarge as error:
                sent.append(Fault("", str(error)))
        return sent


async def _fate(sent: "Future[Acknowledged] | Fault") -> Acknowledged | Fault:
    if isinstance(sent, Fault):
        return sent
    acknowledged: Acknowledged = await asyncio.wrap_future(sent)
    return acknowledged


def _nothing_kept(results: Sequence[EventResult]) -> str:
    if not results:
        return "found no events, expected at least one"
    named = [f"events[{index}].{result.field}: {result.reason}" for index, result in enumerate(results[:NAMED_FAULTS])]
    more = f"; and {len(results) - NAMED_FAULTS} more" if len(results) > NAMED_FAULTS else ""
    return f"none of {len(results)} events was kept: {'; '.join(named)}{more}"


def _result(event: Interaction, fate: Fate) -> EventResult:
    if isinstance(fate, Acknowledged):
        return EventResult(event_id=event.event_id, kept=True, partition=fate.partition, offset=fate.offset)
    assert fate is not None, "every good event was acknowledged or refused"
    return EventResult(event_id=event.event_id, kept=False, field=fate.field, reason=fate.reason)
