"""How long after the broker's acknowledgement an event can be read, while a steady load runs."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple

from confluent_kafka import Producer
from feast import FeatureStore

from benchmarks.speed.ground import Ground, make_producer, send
from benchmarks.speed.load import Frame
from benchmarks.speed.systems import Running
from core.errors import BrokerUnavailable, NotReady
from core.frames import encode_frame
from core.partition import partition_of
from feature_repo.apply import feature_store
from feature_repo.store import PackedStore
from protos.events.v1.activity_pb2 import Activity
from protos.events.v1.interaction_pb2 import Action, Interaction

_FEATURE: Final = "user_history:applied"
_MARK_EVERY_S: Final = 0.05
_POLL_S: Final = 0.005  # what reads and what streams share the machine
_PATIENCE_S: Final = 30.0


class Freshness(NamedTuple):
    """Milliseconds from acknowledgement to readable, one number per marked event."""

    feast_ms: list[float]
    store_ms: list[float]


class _Sending(NamedTuple):
    due_s: float  # after the start
    frame: Frame
    mark: str  # the user of a marked event, who has no other; empty for the load's frames


def freshness(ground: Ground, running: Running, frames: Sequence[Frame], events_per_s: float) -> Freshness:
    """Marked events, a few per second and each of a user of its own, among `frames` sent at a steady rate.

    Raises:
        NotReady: a marked event did not become readable, or the load could not be kept up from here.
    """
    plan = _plan(frames, events_per_s, ground.settings.kafka.activity_partitions)
    acknowledged: dict[str, float] = {}  # user -> monotonic seconds
    seen: Freshness = Freshness([], [])
    with (
        PackedStore(ground.settings.postgres, "bench-reader", connections=1) as store,
        feature_store(ground.settings) as feast,
        _sent(ground, plan, acknowledged) as sender,
    ):
        _readable(feast, ["nobody"])  # the registry is read once, before anything is measured
        waiting = [sending.mark for sending in plan if sending.mark]
        since = time.monotonic()
        while waiting:
            asked = [mark for mark in waiting if mark in acknowledged]
            stored = store.read_users(asked).history["applied"] > 0 if asked else ()
            at_s = time.monotonic()
            fresh = [mark for mark, there in zip(asked, stored, strict=True) if there]
            if fresh:
                seen.store_ms.extend(1000.0 * (at_s - acknowledged[mark]) for mark in fresh)
                _readable(feast, fresh)
                at_s = since = time.monotonic()
                seen.feast_ms.extend(1000.0 * (at_s - acknowledged[mark]) for mark in fresh)
                waiting = [mark for mark in waiting if mark not in set(fresh)]
            running.check()
            if time.monotonic() - since > _PATIENCE_S:
                raise NotReady(f"{len(waiting)} marked events not readable after {_PATIENCE_S:.0f} s")
            time.sleep(_POLL_S)
        sender.join()
    return seen


def _plan(frames: Sequence[Frame], events_per_s: float, partitions: int) -> list[_Sending]:
    plan, sent = [], 0
    for frame in frames:
        plan.append(_Sending(sent / events_per_s, frame, ""))
        sent += frame.events
    for number in range(int(sent / events_per_s / _MARK_EVERY_S)):
        due_s = number * _MARK_EVERY_S
        at_ms = frames[int(number * len(frames) * _MARK_EVERY_S * events_per_s / sent)].timestamp_ms
        plan.append(_Sending(due_s, _marked(f"mark-{number}-{at_ms}", partitions, at_ms), f"mark-{number}-{at_ms}"))
    return sorted(plan, key=lambda sending: sending.due_s)


def _marked(user_id: str, partitions: int, at_ms: int) -> Frame:
    act = Interaction(event_id=user_id, user_id=user_id, item_id="item-00000", action=Action.ACTION_LIKE)
    act.occurred_at.FromMilliseconds(at_ms)
    return Frame(partition_of(user_id, partitions), at_ms, encode_frame([Activity(interaction=act)]), 1)


@contextmanager
def _sent(ground: Ground, plan: Sequence[_Sending], acknowledged: dict[str, float]) -> Iterator[threading.Thread]:
    """Two threads until the end of the block: one sends by the plan, one notes acknowledgements as they arrive."""
    producer = make_producer(ground.settings)
    ended = threading.Event()

    def note() -> None:
        while not ended.is_set():
            producer.poll(0.05)

    noting = threading.Thread(target=note, name="acknowledgements")
    sender = threading.Thread(target=_send_by_plan, args=(producer, plan, acknowledged, ended), name="load")
    noting.start()
    sender.start()
    try:
        yield sender
    finally:
        ended.set()
        sender.join()
        noting.join()
        producer.flush(_PATIENCE_S)


def _send_by_plan(
    producer: Producer, plan: Sequence[_Sending], acknowledged: dict[str, float], ended: threading.Event
) -> None:
    def delivered_of(mark: str) -> object:
        def delivered(error: object, _: object) -> None:
            if error is not None:
                raise BrokerUnavailable(f"a frame was not acknowledged: {error}")
            if mark:
                acknowledged[mark] = time.monotonic()

        return delivered

    started = time.monotonic()
    for sending in plan:
        wait_s = started + sending.due_s - time.monotonic()
        if ended.wait(max(0.0, wait_s)):
            return
        send(producer, sending.frame, delivered_of(sending.mark))


def _readable(feast: FeatureStore, user_ids: Sequence[str]) -> None:
    """Feast has been asked; what it says of users that are stored must be there.

    Raises:
        NotReady: it is not.
    """
    rows = [{"user_id": user_id} for user_id in user_ids]
    found = feast.get_online_features(features=[_FEATURE], entity_rows=rows).to_dict()["applied"]
    if None in found and "nobody" not in user_ids:
        raise NotReady(f"stored users are not there through Feast: {found}")
