"""Laws of rejects: nothing is lost on the way in, and what has become readable goes back."""

from concurrent.futures import Future

from core.clock import FixedClock
from core.frames import encode_frame
from core.producer import Acknowledged
from core.validation import Fault
from protos.events.v1.activity_pb2 import Activity
from protos.events.v1.rejected_pb2 import Rejected
from streams.reading import WHOLE_RECORD, Rejection
from streams.rejects import MAX_PAYLOAD_BYTES, Listed, rejected_message, replay
from tests.streams.log_maker import PARTITION, START_MS, USERS, interaction

NOW = FixedClock(START_MS + 5)


class Sink:
    """Acknowledges everything, in order."""

    def __init__(self) -> None:
        self.sent: list[tuple[Activity, str, int]] = []

    def send(self, activity: Activity, user_id: str, timestamp_ms: int) -> "Future[Acknowledged]":
        self.sent.append((activity, user_id, timestamp_ms))
        done: Future[Acknowledged] = Future()
        done.set_result(Acknowledged(0, len(self.sent), 0.0))
        return done


def test_a_reject_says_where_it_stood_and_why() -> None:
    fault = Fault("user_id", "found nothing, expected a non-empty id")
    message = rejected_message(Rejection(7, 3, START_MS, fault, b"payload"), PARTITION)
    assert (message.topic, message.partition, message.offset, message.index) == ("activity.v1", 1, 7, 3)
    assert (message.field, message.reason, message.payload) == (fault.field, fault.reason, b"payload")
    assert message.recorded_at.ToMilliseconds() == START_MS


def test_a_payload_too_large_to_travel_is_cut_and_says_so() -> None:
    message = rejected_message(Rejection(0, WHOLE_RECORD, -1, Fault("", "too large"), bytes(2 << 20)), PARTITION)
    assert len(message.payload) == MAX_PAYLOAD_BYTES
    assert f"of {2 << 20} bytes" in message.reason


def test_replay_sends_an_entry_back_stamped_with_the_present() -> None:
    act = interaction("e1", USERS[0], START_MS)
    sink = Sink()
    replayed = replay(Listed(4, Rejected(index=2, payload=act.SerializeToString())), sink, NOW, 1.0)
    assert (replayed.offset, replayed.activities, replayed.refused) == (4, 1, "")
    assert sink.sent == [(act, USERS[0], START_MS + 5)]


def test_replay_takes_a_whole_record_apart() -> None:
    acts = [interaction(f"e{number}", user_id, START_MS) for number, user_id in enumerate(USERS)]
    sink = Sink()
    assert replay(Listed(4, Rejected(index=WHOLE_RECORD, payload=encode_frame(acts))), sink, NOW, 1.0).activities == 5
    assert [user_id for _, user_id, _ in sink.sent] == USERS


def test_what_is_still_unreadable_is_refused_not_sent() -> None:
    sink = Sink()
    for rejected in (
        Rejected(index=WHOLE_RECORD, payload=b"\xff"),
        Rejected(index=0, payload=b"\xff"),
        Rejected(index=0, payload=Activity().SerializeToString()),
        Rejected(index=WHOLE_RECORD, payload=encode_frame([interaction("e1", USERS[0], START_MS), Activity()])),
    ):
        replayed = replay(Listed(1, rejected), sink, NOW, 1.0)
        assert replayed.activities == 0 and replayed.refused
    assert sink.sent == []
