"""The process behind `nearfeed stream`: a Faust worker that keeps every state of its partitions.

    nearfeed stream

Ends with 0 when asked to (SIGTERM, SIGINT): it stops taking batches, finishes the one in work, commits,
acknowledges and leaves the group. Ends with 1 and one line when something stands in the way; a restart
goes on where the cursors are.
"""

import asyncio
import gc
import logging
import os
import signal
import sys
import tempfile
import threading
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final, NamedTuple

import faust
import uvloop
from aiokafka.errors import KafkaError
from kafka import KafkaProducer

from core.clock import Clock
from core.errors import BrokerUnavailable, ContractError, NearfeedError
from core.frames import encode_frame
from core.producer import Acknowledged, make_producer, send_record
from core.settings import Kafka, Settings, load
from core.telemetry import configure_logging, serve_metrics
from core.topics import ACTIVITY
from feature_repo.folds.act import NoItems
from feature_repo.folds.context import FoldContext
from protos.events.v1.activity_pb2 import Activity
from protos.events.v1.interaction_pb2 import Action, Interaction
from streams.activity_log import activity_topic
from streams.app import build_app
from streams.cursor import Partition, Record
from streams.driver import Committed, Driver
from streams.metrics import observe
from streams.outbox import Relay
from streams.ownership import Owner
from streams.postgres_state import PostgresStateStore
from streams.published import PublishedItems
from streams.state_store import MemoryStateStore

logger = logging.getLogger(__name__)

_MOST_THREADS: Final = 4  # folding holds the interpreter; more threads would only wait for PostgreSQL
_STOP_S: Final = 15.0  # then the process ends without leaving the group
# What these cannot do comes back as an exception or is tried again; every attempt would be lines of its own.
_LOG_LEVELS: Final = {
    "aiokafka": logging.ERROR,
    "faust": logging.WARNING,
    "mode": logging.WARNING,
}
_HEARTBEAT: Final = encode_frame(())
_ANY_TIME_MS: Final = 1_750_000_000_000
_TOPIC_CHECK_S: Final = 5.0
# States are tuples, made and dropped by the ten thousand and never in cycles: with Python's defaults the collector
# walks the whole cache for every few hundred events, 15 % of the time.
_COLLECT_AFTER: Final = (50_000, 20, 100)


class _Parts(NamedTuple):
    """What a running worker is made of, besides Faust."""

    items: PublishedItems
    producer: KafkaProducer
    owner: Owner
    relay: Relay


def run_worker(settings: Settings) -> int:
    """Runs until it is asked to end or cannot go on; the exit code of the process."""
    gc.set_threshold(*_COLLECT_AFTER)
    for name, level in _LOG_LEVELS.items():
        logging.getLogger(name).setLevel(level)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            reason = runner.run(_run(settings))
    except NearfeedError as error:
        reason = error
    if reason is None:
        logger.info("worker.ended")
        return 0
    text = str(reason) if isinstance(reason, NearfeedError) else f"unexpected {type(reason).__name__}: {reason}"
    logger.error("worker.failed reason=%s", text)
    return 1


async def _run(settings: Settings) -> BaseException | None:
    """None after a stop that was asked for, else what stood in the way.

    Raises:
        NearfeedError: the worker could not start.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[BaseException | None] = loop.create_future()

    def end(reason: BaseException | None) -> None:
        if not ended.done():
            ended.set_result(reason)

    def task_ended(task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and task.exception() is not None:
            end(task.exception())

    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, end, None)
    clock = settings.clock.clock()
    with ExitStack() as closing:
        scratch = Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="nearfeed-stream-")))
        parts = await asyncio.to_thread(_build, settings, clock, closing)
        app = build_app(settings, parts.owner, clock, end, scratch)
        tasks = [
            asyncio.create_task(_start(app, settings.kafka)),
            asyncio.create_task(_beat(settings, clock, app, parts)),
            asyncio.create_task(_watch(settings, parts.items)),
            asyncio.create_task(_watch_topic(settings.kafka)),
        ]
        for task in tasks:
            task.add_done_callback(task_ended)
        reason = await ended
        _end_by_force_after(_STOP_S, reason)
        await parts.owner.drain()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await app.stop()
    return reason


def _build(settings: Settings, clock: Clock, closing: ExitStack) -> _Parts:
    """Everything connected and checked; `closing` ends it in reverse order.

    Raises:
        BrokerUnavailable, StoreUnavailable: one did not answer in time.
        ContractError: the topic or the tables are not as expected.
    """
    streams = settings.streams
    activity_topic(settings.kafka)
    threads = min(_MOST_THREADS, settings.kafka.activity_partitions)
    store = PostgresStateStore(settings.postgres, streams.group, connections=threads + 1)
    closing.callback(store.close)
    store.open()
    producer = make_producer(settings.kafka, timeout_ms=settings.kafka.request_timeout_ms)
    closing.callback(producer.close, timeout=1.0)
    compile_folds()
    items = PublishedItems(
        settings.registry.home, FoldContext(NoItems(), 0, streams.horizon_s * 1000, streams.location_resolution)
    )

    def take_over(number: int) -> Driver:
        # Asked every time: a topic that was made again has another id, and its offsets begin anew.
        topic_id = activity_topic(settings.kafka)
        partition = Partition(streams.group, ACTIVITY, topic_id, number, settings.kafka.activity_partitions)
        return Driver(partition, store, lambda: items.context, cache_users=streams.cache_users, committed=committed)

    def committed(done: Committed) -> None:
        observe(done, clock, settings.clock.speed)
        if done.commit.produced:
            relay.wake()

    owner = Owner(take_over, clock, threads=threads)
    closing.callback(owner.close)
    relay = Relay(store, producer, lambda: owner.owned, ack_timeout_s=settings.kafka.request_timeout_ms / 1000.0)
    relay.start()
    closing.callback(relay.stop)
    logger.info("worker.started metrics_port=%d", serve_metrics(settings.telemetry.metrics_port))
    return _Parts(items, producer, owner, relay)


def compile_folds() -> None:
    """The folds' loops are compiled: seconds the first time, and no partition waits for them."""
    everywhere = Partition("compile", ACTIVITY, "", 0, 1)
    context = FoldContext(NoItems(), 0, 0, 0)
    act = Interaction(event_id="e", user_id="u", item_id="1", action=Action.ACTION_LIKE)
    act.occurred_at.FromMilliseconds(_ANY_TIME_MS)
    frame = encode_frame([Activity(interaction=act)])
    Driver(everywhere, MemoryStateStore(), lambda: context, cache_users=0).apply([Record(0, _ANY_TIME_MS, frame)])


async def _start(app: faust.App, kafka: Kafka) -> None:
    """Faust runs.

    Raises:
        BrokerUnavailable: the broker has gone since `_build` spoke to it.
    """
    try:
        await app.start()
    except KafkaError as error:
        raise BrokerUnavailable(
            f"no Kafka broker answered at {kafka.bootstrap_servers} ({type(error).__name__}); restart the worker"
        ) from error


async def _watch(settings: Settings, items: PublishedItems) -> None:
    """A newer published version is taken up soon after it appears."""
    while True:
        await asyncio.sleep(settings.registry.poll_ms / 1000.0)
        await asyncio.to_thread(items.refresh)


async def _watch_topic(kafka: Kafka) -> None:
    """Ends when the topic is another one than before: offsets began anew, and those already passed would be skipped."""
    before = await asyncio.to_thread(activity_topic, kafka)
    while True:
        await asyncio.sleep(_TOPIC_CHECK_S)
        with suppress(BrokerUnavailable):
            now = await asyncio.to_thread(activity_topic, kafka)
            if now != before:
                raise ContractError(f"{ACTIVITY}: found topic id {now}, expected {before}; it was made again, restart")


async def _beat(settings: Settings, clock: Clock, app: faust.App, parts: _Parts) -> None:
    """Quiet partitions where something is due get an empty frame, whose timestamp moves their time."""
    on_their_way: dict[int, Future[Acknowledged]] = {}
    while True:
        await asyncio.sleep(settings.streams.heartbeat_s)
        if app.crashed:
            raise ContractError(f"Faust crashed: {app.crash_reason!r}; restart the worker")
        if parts.relay.failure is not None:  # else outcomes would wait for ever behind a worker that looks well
            raise parts.relay.failure
        for partition in parts.owner.overdue(settings.streams.heartbeat_s):
            if partition in on_their_way and not on_their_way[partition].done():
                continue  # the broker is away; one will do when it is back
            sent = await asyncio.to_thread(
                send_record, parts.producer, ACTIVITY, _HEARTBEAT, partition=partition, timestamp_ms=clock.now_ms()
            )
            sent.add_done_callback(_heartbeat_sent)
            on_their_way[partition] = sent


def _heartbeat_sent(sent: "Future[Acknowledged]") -> None:
    if sent.exception() is not None:
        logger.warning("heartbeat.waiting reason=%s", sent.exception())


def _end_by_force_after(seconds: float, reason: BaseException | None) -> None:
    """A stop that hangs (a broker or a store that does not answer) must not keep the process, nor the reason of it."""

    def end() -> None:
        logger.error("worker.stop.forced after_s=%g reason=%s", seconds, reason or "asked to end")
        os._exit(0 if reason is None else 1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


if __name__ == "__main__":
    _settings = load()
    configure_logging(_settings.telemetry.log_level, "stream")
    sys.exit(run_worker(_settings))
