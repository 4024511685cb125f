"""ActivityProducer: what is handed over arrives once, in order, in frames of one partition, or fails aloud."""

import threading
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from kafka.errors import KafkaConnectionError, KafkaError, KafkaTimeoutError
from kafka.future import Future as KafkaFuture

from core import producer as producer_module
from core.errors import BrokerUnavailable, ContractError, InputError, Overloaded, TooLarge
from core.frames import MAX_FRAME_BYTES, decode_frame
from core.partition import partition_of
from core.producer import FRAME_ACTIVITIES, ActivityProducer, make_producer, send_record
from core.settings import Kafka
from protos.events.v1.activity_pb2 import Activity
from protos.events.v1.impression_pb2 import Impression
from protos.events.v1.interaction_pb2 import Action, Interaction

KAFKA = Kafka(bootstrap_servers="broker.example:9092", activity_partitions=4)
NEVER_MS = 3_600_000  # a linger that no test waits for
SOON_S = 5.0
NOW_MS = 1_650_000_000_000


class Metadata(NamedTuple):
    partition: int
    offset: int


class Sent(NamedTuple):
    topic: str
    value: bytes
    partition: int
    timestamp_ms: int
    future: Any


class FakeKafkaProducer:
    """KafkaProducer's part that we use: sends are recorded, and acknowledged at once unless `hold` or `fault`."""

    def __init__(self, **config: object) -> None:
        self.config = config
        self.sent: list[Sent] = []
        self.hold = False
        self.fault: Exception | None = None  # raised by send, as kafka-python does when its buffer stays full
        self.refusal: KafkaError | None = None  # what the broker answers
        self.closed = False

    def send(self, topic: str, *, value: bytes, key: bytes | None, partition: int, timestamp_ms: int) -> Any:
        if self.fault is not None:
            raise self.fault
        sent = Sent(topic, value, partition, timestamp_ms, KafkaFuture())
        self.sent.append(sent)
        if self.refusal is not None:
            sent.future.failure(self.refusal)
        elif not self.hold:
            sent.future.success(Metadata(partition, len(self.sent) - 1))
        return sent.future

    def close(self, timeout: float) -> None:
        self.closed = True


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> FakeKafkaProducer:
    """The one double behind every producer made in the test."""
    fake = FakeKafkaProducer()
    monkeypatch.setattr(producer_module, "KafkaProducer", lambda **config: fake)
    return fake


@pytest.fixture
def patient(broker: FakeKafkaProducer) -> Iterator[ActivityProducer]:
    """A producer whose frames leave only when full, or at close."""
    producer = ActivityProducer(KAFKA, linger_ms=NEVER_MS, timeout_ms=1_000)
    yield producer
    producer.close(SOON_S)


def act(event_id: str, user_id: str = "u1") -> Activity:
    return Activity(interaction=Interaction(event_id=event_id, user_id=user_id))


def event_ids(sent: Sent) -> list[str]:
    return [activity.interaction.event_id for activity in decode_frame(sent.value)]


def test_frame_leaves_when_it_is_full_and_not_before(broker: FakeKafkaProducer, patient: ActivityProducer) -> None:
    waiting = [patient.send(act(str(n)), "u1", 0) for n in range(FRAME_ACTIVITIES - 1)]
    assert broker.sent == []
    waiting.append(patient.send(act("last"), "u1", 0))
    assert [len(event_ids(sent)) for sent in broker.sent] == [FRAME_ACTIVITIES]
    assert {future.result(0).offset for future in waiting} == {0}


def test_frame_leaves_when_its_linger_is_over(broker: FakeKafkaProducer) -> None:
    producer = ActivityProducer(KAFKA, linger_ms=1, timeout_ms=1_000)
    try:
        first = producer.send(act("a"), "u1", 0).result(SOON_S)
        second = producer.send(act("b"), "u1", 0).result(SOON_S)
    finally:
        producer.close(SOON_S)
    assert (first.offset, second.offset) == (0, 1)
    assert [event_ids(sent) for sent in broker.sent] == [["a"], ["b"]]


def test_large_frame_leaves_early_and_stays_readable(broker: FakeKafkaProducer, patient: ActivityProducer) -> None:
    large = Activity(impression=Impression(request_id="r" * (200 << 10)))
    for _ in range(4):
        patient.send(large, "u1", 0)
    assert [len(decode_frame(sent.value)) for sent in broker.sent] == [2, 2]
    assert max(len(sent.value) for sent in broker.sent) <= MAX_FRAME_BYTES


def test_activity_too_large_for_a_frame_is_refused_alone(broker: FakeKafkaProducer, patient: ActivityProducer) -> None:
    kept = patient.send(act("good"), "u1", 0)
    with pytest.raises(TooLarge, match="found an activity of 300"):
        patient.send(Activity(impression=Impression(request_id="r" * 300_000)), "u1", 0)
    patient.close(SOON_S)
    assert kept.result(SOON_S).offset == 0
    assert event_ids(broker.sent[0]) == ["good"]


def test_frame_holds_users_of_one_partition(broker: FakeKafkaProducer, patient: ActivityProducer) -> None:
    users = [f"user-{n}" for n in range(60)]
    waiting = {user: patient.send(act(user, user), user, 0) for user in users}
    patient.close(SOON_S)
    assert sorted(sent.partition for sent in broker.sent) == [0, 1, 2, 3]
    for sent in broker.sent:
        assert sent.topic == "activity.v1"
        for user in event_ids(sent):
            assert partition_of(user, 4) == sent.partition == waiting[user].result(SOON_S).partition


def test_one_users_order_holds_across_frames_lingers_and_threads(broker: FakeKafkaProducer) -> None:
    """Each thread is one user's app; frames leave by size and by linger at the same time."""
    producer = ActivityProducer(KAFKA, linger_ms=1, timeout_ms=1_000)
    count = 3 * FRAME_ACTIVITIES + 7

    def app(user: str) -> None:
        for n in range(count):
            producer.send(act(f"{user} {n}", user), user, 0)

    apps = [threading.Thread(target=app, args=(f"user-{n}",)) for n in range(6)]
    for thread in apps:
        thread.start()
    for thread in apps:
        thread.join()
    producer.close(SOON_S)
    arrived: dict[str, list[int]] = defaultdict(list)
    for sent in broker.sent:
        for event_id in event_ids(sent):
            user, n = event_id.split()
            arrived[user].append(int(n))
    assert arrived == {f"user-{n}": list(range(count)) for n in range(6)}


def test_records_time_is_its_latest_entrys(broker: FakeKafkaProducer, patient: ActivityProducer) -> None:
    for at_ms in (10, 30, 20):
        patient.send(act(str(at_ms)), "u1", at_ms)
    patient.close(SOON_S)
    assert broker.sent[0].timestamp_ms == 30


def test_nobody_is_answered_before_the_broker_acknowledged(
    broker: FakeKafkaProducer, patient: ActivityProducer
) -> None:
    broker.hold = True
    waiting = [patient.send(act(str(n)), "u1", 0) for n in range(FRAME_ACTIVITIES)]
    assert not any(future.done() for future in waiting)
    broker.sent[0].future.success(Metadata(2, 41))
    assert {(future.result(0).partition, future.result(0).offset) for future in waiting} == {(2, 41)}


def test_refused_frame_fails_every_waiter(broker: FakeKafkaProducer, patient: ActivityProducer) -> None:
    broker.refusal = KafkaTimeoutError("no answer")
    waiting = [patient.send(act(str(n)), "u1", 0) for n in range(FRAME_ACTIVITIES)]
    for future in waiting:
        with pytest.raises(BrokerUnavailable, match=r"^activity\.v1: .*no answer.*send again"):
            future.result(0)


@pytest.mark.parametrize(
    ("fault", "becomes"),
    [
        (KafkaTimeoutError("buffer full"), BrokerUnavailable),
        (ValueError("Unrecognized partition 3 for topic activity.v1"), ContractError),
    ],
)
def test_producer_survives_a_frame_that_cannot_be_sent(
    broker: FakeKafkaProducer, fault: Exception, becomes: type[Exception]
) -> None:
    """The flusher thread must not die of it: whoever waits for a linger would wait for ever."""
    producer = ActivityProducer(KAFKA, linger_ms=1, timeout_ms=1_000)
    try:
        broker.fault = fault
        with pytest.raises(becomes, match=fault.args[0]):
            producer.send(act("a"), "u1", 0).result(SOON_S)
        broker.fault = None
        assert producer.send(act("b"), "u1", 0).result(SOON_S).offset == 0
    finally:
        producer.close(SOON_S)


def test_close_sends_what_waits_and_takes_no_more(broker: FakeKafkaProducer, patient: ActivityProducer) -> None:
    waiting = patient.send(act("a"), "u1", 0)
    patient.close(SOON_S)
    assert waiting.result(0).offset == 0
    assert broker.closed
    with pytest.raises(BrokerUnavailable, match="closed"):
        patient.send(act("b"), "u1", 0)
    assert "frame-flusher" not in {thread.name for thread in threading.enumerate()}


def order(event_id: str, **changes: Any) -> Interaction:
    """A good event with `changes`."""
    fields: dict[str, Any] = {"event_id": event_id, "user_id": "u1", "item_id": "i1", "action": Action.ACTION_LIKE}
    event = Interaction(**(fields | changes))
    event.occurred_at.FromMilliseconds(NOW_MS)
    return event


def test_each_event_has_an_answer_of_its_own(broker: FakeKafkaProducer, patient: ActivityProducer) -> None:
    kept = [patient.send_event(order("e1"), NOW_MS), patient.send_event(order("e2", user_id="u2"), NOW_MS)]
    with pytest.raises(InputError, match=r"^item_id: found nothing, expected .*; "):
        patient.send_event(order("e3", item_id=""), NOW_MS)
    with pytest.raises(InputError, match=r"^occurred_at: found 600000 ms ahead"):
        patient.send_event(order("e4"), NOW_MS - 600_000)
    patient.flush(SOON_S)
    assert all(future.done() and future.exception() is None for future in kept)
    assert sorted(event_id for sent in broker.sent for event_id in event_ids(sent)) == ["e1", "e2"]
    assert {sent.partition for sent in broker.sent} == {partition_of("u1", 4), partition_of("u2", 4)}
    assert {sent.timestamp_ms for sent in broker.sent} == {NOW_MS}


def test_flush_returns_when_everything_is_acknowledged_and_says_what_is_not(
    broker: FakeKafkaProducer, patient: ActivityProducer
) -> None:
    broker.hold = True
    waiting = [patient.send(act("a"), "u1", 0), patient.send(act("b"), "u1", 0)]
    with pytest.raises(BrokerUnavailable, match="2 activities were not acknowledged"):
        patient.flush(0.01)
    flushing = threading.Thread(target=patient.flush, args=(SOON_S,))
    flushing.start()
    broker.sent[0].future.success(Metadata(0, 7))
    flushing.join(SOON_S)
    assert not flushing.is_alive()
    assert [future.result(0).offset for future in waiting] == [7, 7]


def test_leaving_the_with_block_sends_what_waits(broker: FakeKafkaProducer) -> None:
    with ActivityProducer(KAFKA, linger_ms=NEVER_MS, timeout_ms=1_000) as producer:
        waiting = producer.send(act("a"), "u1", 0)
    assert waiting.result(0).offset == 0
    assert broker.closed


def test_closing_without_a_broker_says_so_and_ends(broker: FakeKafkaProducer) -> None:
    producer = ActivityProducer(KAFKA, linger_ms=NEVER_MS, timeout_ms=1_000)
    broker.hold = True
    waiting = producer.send(act("a"), "u1", 0)
    with pytest.raises(BrokerUnavailable, match="1 activities were not acknowledged"):
        producer.close(0.01)
    assert broker.closed
    broker.sent[0].future.failure(KafkaTimeoutError("expired"))
    with pytest.raises(BrokerUnavailable, match="expired"):
        waiting.result(0)


def test_a_full_buffer_holds_the_sender_up_and_then_refuses(
    broker: FakeKafkaProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = Activity(impression=Impression(request_id="r" * 1_000))
    monkeypatch.setattr(producer_module, "MAX_UNSETTLED_BYTES", 2 * large.ByteSize())
    producer = ActivityProducer(KAFKA, linger_ms=0, timeout_ms=20)
    broker.hold = True
    for _ in range(2):
        producer.send(large, "u1", 0)
    with pytest.raises(Overloaded, match=r"no room .* send again later"):
        producer.send(large, "u1", 0)
    producer._timeout_s = SOON_S
    sending = threading.Thread(target=producer.send, args=(large, "u1", 0))
    sending.start()
    with pytest.raises(BrokerUnavailable):
        producer.flush(0.01)  # both frames have left
    broker.hold = False
    for sent in list(broker.sent):
        sent.future.success(Metadata(0, 0))
    sending.join(SOON_S)
    assert not sending.is_alive(), "there is room again"
    producer.close(SOON_S)


def test_whoever_is_told_of_a_failure_may_send_again(broker: FakeKafkaProducer, patient: ActivityProducer) -> None:
    broker.fault = KafkaTimeoutError("buffer full")
    again: list[Any] = []

    def retry(failed: Any) -> None:
        broker.fault = None
        again.append(patient.send(act("again"), "u1", 0))

    first = [patient.send(act(str(n)), "u1", 0) for n in range(FRAME_ACTIVITIES - 1)]
    first[0].add_done_callback(retry)
    patient.send(act("last"), "u1", 0)
    patient.flush(SOON_S)
    assert again[0].result(0).offset == 0


def test_single_record_goes_out_as_it_is_given(broker: FakeKafkaProducer) -> None:
    kept = send_record(make_producer(KAFKA, timeout_ms=1_000), "outcomes.v1", b"o", partition=3, timestamp_ms=9)
    assert (kept.result(0).partition, kept.result(0).offset) == (3, 0)
    assert broker.sent[0][:4] == ("outcomes.v1", b"o", 3, 9)


def test_unreachable_broker_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**config: object) -> None:
        raise KafkaConnectionError

    monkeypatch.setattr(producer_module, "KafkaProducer", refuse)
    with pytest.raises(BrokerUnavailable, match=r"broker\.example:9092 .*NEARFEED_KAFKA__BOOTSTRAP_SERVERS"):
        ActivityProducer(KAFKA, linger_ms=1, timeout_ms=1_000)


def test_a_send_is_acknowledged_by_all_replicas_and_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    config: dict[str, Any] = {}
    monkeypatch.setattr(producer_module, "KafkaProducer", lambda **given: config.update(given))
    make_producer(KAFKA, timeout_ms=700, linger_ms=20)
    assert config["acks"] == "all"
    assert config["request_timeout_ms"] <= 700
    assert config["delivery_timeout_ms"] == 720
    assert config["max_block_ms"] == 700
    assert config["allow_auto_create_topics"] is False
