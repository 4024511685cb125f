"""activity.v1 in, settled batches out: the Faust application around the state pattern.

What Faust does here: group membership, fetching, one stream per partition, committing the offsets of
acknowledged records. What it does not do: hold state. `faust -A` is not needed; `streams.worker` runs it.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import faust
from aiokafka.errors import IllegalStateError
from faust.streams import Stream
from faust.transport.consumer import Consumer
from faust.types import TP, EventT, StreamT

from core.clock import Clock
from core.settings import Settings
from core.topics import ACTIVITY
from streams.cursor import Record
from streams.holes import Holes, Step, runs
from streams.ownership import Owner

logger = logging.getLogger(__name__)


def build_app(
    settings: Settings, owner: Owner, clock: Clock, fail: Callable[[BaseException], None], scratch: Path
) -> faust.App:
    """The application, not started. `fail` is told what a worker cannot survive; `scratch` is an empty folder."""
    app = faust.App(
        settings.streams.group,
        broker=[f"kafka://{server}" for server in settings.kafka.bootstrap_servers.split(",")],
        datadir=str(scratch),
        store="memory://",
        autodiscover=False,
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        topic_partitions=settings.kafka.activity_partitions,
        consumer_auto_offset_reset="earliest",
        broker_commit_interval=0.5,
        broker_session_timeout=6,
        broker_heartbeat_interval=1,
        stream_wait_empty=False,
        stream_recovery_delay=0,
        # Frames are large; what is fetched ahead waits in memory.
        stream_buffer_maxsize=4 * settings.streams.max_batch,
    )
    activity = app.topic(ACTIVITY, value_type=bytes, value_serializer="raw")
    holes = Holes()
    within_s = max(settings.streams.max_wait_ms, 1) / 1000.0  # zero would mean: wait for a full batch

    async def settle(stream: Stream[Any], events: Sequence[EventT[Any]]) -> None:
        at: TP = events[0].message.tp
        records = [_record(event) for event in events]
        for run in runs(records):
            settled = await owner.settle(at.partition, records[run])
            for event in events[run][:settled]:
                await stream.ack(event)
            expected = owner.expected(at.partition)
            if settled == len(records[run]):
                holes.closed(at.partition)
            elif expected is not None:
                await _go_back(at, expected, records[run][settled].offset)

    async def _go_back(at: TP, expected: int, found: int) -> None:
        """Records between `expected` and `found` were not delivered: ask for them, or learn that there are none."""
        step = holes.met(at.partition, expected, found, clock.monotonic_s())
        if step is Step.WAIT:
            return
        if step is Step.STEP_OVER:
            logger.warning(
                "partition.hole partition=%d expected=%d found=%d: no records there", at.partition, expected, found
            )
            owner.skip_hole(at.partition, found)
        await _seek(at, expected)

    @app.agent(activity, isolated_partitions=True, name="fold_activity")
    async def fold_activity(values: StreamT[Any]) -> None:
        """Fold activity into every state; acknowledge what is committed."""
        # A revoked partition cancels its agent. Leaving quietly is what tells Faust that this was no crash: it
        # would start the agent again, on a partition that is no longer ours, and trip over it at the next rebalance.
        with suppress(asyncio.CancelledError):
            await fold_stream(cast(Stream[Any], values))

    async def fold_stream(stream: Stream[Any]) -> None:
        # noack_take: the others acknowledge a batch in hand when the agent is stopped, applied or not.
        async for events in stream.noack_take(settings.streams.max_batch, within=within_s):
            try:
                await settle(stream, events)
            except Exception as error:
                # An exception that leaves an isolated agent makes Faust lose track of its actors.
                fail(error)
                await asyncio.Event().wait()

    starting: set[asyncio.Task[None]] = set()

    async def _read_from_cursor(at: TP) -> None:
        """Where to read on is what the cursor says: committed offsets lag behind, or are those of an earlier topic."""
        expected = owner.expected(at.partition)
        if expected is not None:
            await _seek(at, expected)

    async def _seek(at: TP, offset: int) -> None:
        # In the consumer's own thread. Faust's plain `seek` is not: between two steps of a fetch it takes the records
        # away that the fetch goes on with, and the consumer crashes.
        with suppress(IllegalStateError):  # the partition has left us
            await app.consumer.seek_wait({at: offset})

    async def begin(partitions: set[int]) -> None:
        """Own what was assigned before anything arrives: what waits there may be due."""
        try:
            await asyncio.gather(*(owner.settle(partition, ()) for partition in partitions))
            # By then Faust has gone where Kafka's committed offsets are.
            await cast(Consumer, app.consumer).can_resume_flow.wait()
            for partition in partitions:
                await _read_from_cursor(TP(ACTIVITY, partition))
        except Exception as error:
            fail(error)
        else:
            logger.info("worker.ready partitions=%s", owner.owned)

    @app.on_partitions_revoked.connect
    async def on_revoked(_app: Any, /, *revoked: set[TP], **_: Any) -> None:
        await owner.revoked(_numbers(*revoked))

    @app.on_partitions_assigned.connect
    async def on_assigned(_app: Any, /, *assigned: set[TP], **_: Any) -> None:
        holes.forget()
        partitions = _numbers(*assigned)
        owner.assigned(partitions)
        task = asyncio.create_task(begin(partitions))
        starting.add(task)
        task.add_done_callback(starting.discard)

    return app


def _numbers(*groups: set[TP]) -> set[int]:
    return {at.partition for group in groups for at in group if at.topic == ACTIVITY}


def _record(event: EventT[Any]) -> Record:
    message = event.message
    # Faust gives seconds; Kafka's milliseconds survive the way through a float.
    return Record(message.offset, round(message.timestamp * 1000), message.value)
