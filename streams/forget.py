"""One user is forgotten: a tombstone in the log, and what follows from it.

    nearfeed forget 12345

The worker that meets the tombstone empties the user's state; the archiver that meets it takes the user's entries
out of the archive; every replay meets it again. What cannot be taken back, and for how long it stays, is said: see
docs/privacy.md.
"""

import threading
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from core.archive import archived_until, topic_ids
from core.clock import Clock
from core.errors import InputError
from core.frames import encode_frame
from core.partition import partition_of
from core.producer import make_producer, send_record
from core.settings import Settings
from core.topics import ACTIVITY, OUTCOMES, REJECTED
from core.validation import forget_fault
from feature_repo.store import PackedStore
from protos.events.v1.activity_pb2 import Activity, Forget
from streams.activity_log import activity_topic
from streams.archiver import is_archiving, run_archiver
from streams.forget_archive import entries_of
from streams.replay_tables import forget_beside, open_answers, positions, serving

_POLL_S: Final = 0.2


class Place(NamedTuple):
    """What one place holds of the user now."""

    where: str
    removed: str
    remains: str  # and for how long; empty = nothing


class Forgotten(NamedTuple):
    """What was reached."""

    partition: int
    offset: int  # of the tombstone in activity.v1
    places: list[Place]
    waiting: list[str]  # what did not happen in time, and the next step; empty = all of it did


def forget(settings: Settings, user_id: str, *, timeout_s: float, clock: Clock) -> Forgotten:
    """The tombstone stands in activity.v1; feature store and archive hold nothing of the user from before it, unless
    `waiting` says otherwise. Again for the same user is harmless.

    Raises:
        InputError: this can be no user's id.
        BrokerUnavailable, StoreUnavailable: one did not answer in time; do it again.
    """
    now_ms = clock.now_ms()
    wish = Forget(user_id=user_id)
    wish.requested_at.FromMilliseconds(now_ms)
    fault = forget_fault(wish, now_ms)
    if fault is not None:
        raise InputError(f"{fault.field}: {fault.reason}")
    home, group = settings.archive.home, settings.streams.group
    topic_id = activity_topic(settings.kafka)
    partition = partition_of(user_id, settings.kafka.activity_partitions)
    answers = _answers(settings, user_id)
    archived = entries_of(home, topic_id, partition, user_id)
    offset = _send(settings, wish, partition, now_ms)
    deadline_s = clock.monotonic_s() + timeout_s
    waiting: list[str] = []

    def until(condition: Callable[[], bool], what: str) -> bool:
        while not condition():
            if clock.monotonic_s() > deadline_s:
                waiting.append(f"{what} within {timeout_s:g} s; the tombstone stands and waits for it")
                return False
            time.sleep(_POLL_S)
        return True

    with serving(settings.postgres) as connection:
        applied = until(
            lambda: positions(connection, group, topic_id).get(partition, 0) > offset,
            "no worker has reached it: run `nearfeed stream`",
        )
        beside = forget_beside(connection, user_id)
    with PackedStore(settings.postgres, "nearfeed-forget", connections=1) as store:
        rows = store.read_users([user_id])
    kept = bool(rows.found[0]) and (not applied or int(rows.history["log_offset"][0]) <= offset)
    if kept and applied:
        waiting.append(
            "the worker that passed it left the user's state: restart it with this version, and forget again"
        )
    places = [
        Place("feature store", "" if kept else f"state and {answers} open answers", "the state" if kept else ""),
        Place("tables of earlier and unfinished replays", f"{beside} rows", ""),
    ]
    if topic_ids(home):
        if not is_archiving(home):
            run_archiver(settings, once=True, stop=threading.Event(), clock=clock)
        until(lambda: archived_until(home, topic_id, partition) > offset, "the archiver has not passed it")
        left = entries_of(home, topic_id, partition, user_id)
        places.append(Place(f"archive {home}", f"{max(0, archived - left)} entries", f"{left} entries" if left else ""))
    return Forgotten(partition, offset, places + _remaining(settings), waiting)


def _remaining(settings: Settings) -> list[Place]:
    """What a tombstone does not reach."""
    days = settings.kafka.retention_days
    retention = f"for {days} days after each record's time" if days else "for ever (kafka.retention_days = 0)"
    return [
        Place(ACTIVITY, "", f"the user's entries, {retention}; and the tombstone with the user id"),
        Place(OUTCOMES, "", f"outcomes of what the user was shown, {retention}"),
        Place(REJECTED, "", f"what was rejected, {retention}"),
        Place("cells and items", "", "sums over all users; what one user added decays with hours and days"),
        Place("published models", "", "what was learned; gone with the versions trained before, and their data sets"),
    ]


def _answers(settings: Settings, user_id: str) -> int:
    with serving(settings.postgres) as connection:
        return open_answers(connection, user_id)


def _send(settings: Settings, wish: Forget, partition: int, now_ms: int) -> int:
    """The offset at which all replicas hold the tombstone."""
    timeout_s = settings.kafka.request_timeout_ms / 1000.0
    producer = make_producer(settings.kafka, timeout_ms=settings.kafka.request_timeout_ms)
    try:
        frame = encode_frame([Activity(forget=wish)])
        sent = send_record(producer, ACTIVITY, frame, partition=partition, timestamp_ms=now_ms)
        return sent.result(2 * timeout_s).offset
    finally:
        producer.close(timeout=timeout_s)
