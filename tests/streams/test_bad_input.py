"""Laws of bad input: each kind ends in rejected.v1, whole, with a reason to act on, and harms nothing else."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.frames import MAX_FRAME_ACTIVITIES, MAX_FRAME_BYTES, encode_frame
from core.topics import REJECTED
from core.validation import MAX_AHEAD_MS, MAX_ID_BYTES, MAX_PLAY_MS, MAX_SLOTS, MAX_VALUE_MICROS
from feature_repo.folds.act import NoItems
from feature_repo.folds.context import FoldContext
from protos.events.v1.activity_pb2 import Activity, ActivityFrame, Forget
from protos.events.v1.interaction_pb2 import Action
from protos.events.v1.rejected_pb2 import Rejected
from protos.registry.v1.manifest_pb2 import ModelManifest
from streams.cursor import Record
from streams.driver import Driver
from streams.reading import WHOLE_RECORD
from streams.rejects import MAX_PAYLOAD_BYTES
from streams.state_store import MemoryStateStore
from tests.streams.log_maker import HORIZON_MS, PARTITION, START_MS, STRANGER, USERS, frame, impression, interaction

CONTEXT = FoldContext(NoItems(), 1, HORIZON_MS, 9)
ALICE, BOB = USERS[:2]
NAN = float("nan")


def driver_on(store: MemoryStateStore) -> Driver:
    return Driver(PARTITION, store, lambda: CONTEXT, cache_users=100)


def rejects_in(store: MemoryStateStore) -> list[Rejected]:
    produced = [record for _, record in store.outbox.values() if record.topic == REJECTED]
    return [Rejected.FromString(record.value) for record in produced]


def act(**changes: Any) -> Activity:
    """A good act with `changes`; None takes a field away."""
    activity = interaction("bad", ALICE, START_MS)
    for field, value in changes.items():
        if value is None:
            activity.interaction.ClearField(field)  # type: ignore[arg-type]
        else:
            setattr(activity.interaction, field, value)
    return activity


def acted_at(at_ms: int) -> Activity:
    return interaction("bad", ALICE, at_ms)


def located(latitude: float = 0.0, longitude: float = 0.0, accuracy_m: float = 0.0) -> Activity:
    activity = act()
    at = activity.interaction.location
    at.latitude, at.longitude, at.accuracy_m = latitude, longitude, accuracy_m
    return activity


def shown(**changes: Any) -> Activity:
    activity = impression("bad", ALICE, START_MS)
    for field, value in changes.items():
        setattr(activity.impression, field, value)
    return activity


def slots(count: int, item_id: str = "7", candidate_index: int = -1) -> Activity:
    activity = impression("bad", ALICE, START_MS, ())
    for position in range(count):
        activity.impression.slots.add(item_id=item_id, position=position, candidate_index=candidate_index)
    return activity


def forget(user_id: str, at_ms: int | None) -> Activity:
    wish = Forget(user_id=user_id)
    if at_ms is not None:
        wish.requested_at.FromMilliseconds(at_ms)
    return Activity(forget=wish)


def without_time(activity: Activity) -> Activity:
    activity.impression.ClearField("served_at")
    return activity


def nanos(value: int) -> Activity:
    activity = act()
    activity.interaction.occurred_at.nanos = value
    return activity


class Entry(NamedTuple):
    """An entry that may not be applied, the field at fault, and words of the reason."""

    activity: Activity
    field: str
    reason: str


ENTRIES = {
    "of no kind": Entry(Activity(), "kind", "update the reader"),
    "of another partition": Entry(interaction("bad", STRANGER, START_MS), "user_id", "partition by murmur2"),
    "shown in another partition": Entry(impression("bad", STRANGER, START_MS), "user_id", "partition by murmur2"),
    "forgets in another partition": Entry(forget(STRANGER, START_MS), "user_id", "partition by murmur2"),
    "without event id": Entry(act(event_id=None), "event_id", "found nothing"),
    "without user": Entry(act(user_id=None), "user_id", "found nothing"),
    "without item": Entry(act(item_id=None), "item_id", "found nothing"),
    "without action": Entry(act(action=None), "action", "found 0"),
    "without time": Entry(act(occurred_at=None), "occurred_at", "found nothing"),
    "unknown action": Entry(act(action=99), "action", "found 99"),
    "over-long event id": Entry(act(event_id="e" * (MAX_ID_BYTES + 1)), "event_id", "found 257 bytes"),
    "over-long user": Entry(act(user_id="u" * 5_000), "user_id", "found 5000 bytes"),
    "over-long item, in bytes": Entry(act(item_id="店" * 86), "item_id", "found 258 bytes"),
    "over-long request": Entry(act(request_id="r" * 300), "request_id", "found 300 bytes"),
    "over-long surface": Entry(act(surface="s" * 300), "surface", "found 300 bytes"),
    "over-long session": Entry(act(session_id="s" * 300), "session_id", "found 300 bytes"),
    "NUL in the user": Entry(act(user_id="a\x00b"), "user_id", "NUL"),
    "NUL in the item": Entry(act(item_id="\x00"), "item_id", "NUL"),
    "NUL in the request": Entry(act(request_id="r\x00"), "request_id", "NUL"),
    "ahead of its record": Entry(acted_at(START_MS + MAX_AHEAD_MS + 1), "occurred_at", "ahead of the platform"),
    "seconds for milliseconds": Entry(acted_at(START_MS // 1000), "occurred_at", "seconds sent as milliseconds"),
    "before 1970": Entry(acted_at(-1), "occurred_at", "found -1 ms"),
    "nanos beyond a second": Entry(nanos(10**9), "occurred_at", "nanos"),
    "negative nanos": Entry(nanos(-1), "occurred_at", "nanos"),
    "negative play": Entry(act(play_ms=-1), "play_ms", "found -1 ms"),
    "endless play": Entry(act(play_ms=MAX_PLAY_MS + 1), "play_ms", "found 86400001 ms"),
    "negative length": Entry(act(duration_ms=-1), "duration_ms", "found -1 ms"),
    "absurd length": Entry(act(duration_ms=2**63 - 1), "duration_ms", "found 9223372036854775807 ms"),
    "negative value": Entry(act(value_micros=-1, currency="CNY"), "value_micros", "found -1"),
    "absurd value": Entry(act(value_micros=MAX_VALUE_MICROS + 1, currency="CNY"), "value_micros", "millionths"),
    "value without currency": Entry(act(value_micros=1), "currency", "found ''"),
    "a novel for a currency": Entry(act(value_micros=1, currency="C" * 200_000), "currency", "199960 characters more"),
    "latitude NaN": Entry(located(latitude=NAN), "location.latitude", "found nan"),
    "latitude beyond the pole": Entry(located(latitude=91), "location.latitude", "found 91.0"),
    "longitude infinite": Entry(located(longitude=float("inf")), "location.longitude", "found inf"),
    "accuracy NaN": Entry(located(accuracy_m=NAN), "location.accuracy_m", "found nan"),
    "shown without request": Entry(shown(request_id=""), "request_id", "found nothing"),
    "shown to nobody": Entry(shown(user_id=""), "user_id", "found nothing"),
    "shown at no time": Entry(without_time(shown()), "served_at", "found nothing"),
    "shown ahead of its record": Entry(impression("bad", ALICE, START_MS + 10**9), "served_at", "ahead"),
    "shown on a NUL": Entry(shown(surface="\x00"), "surface", "NUL"),
    "a slot without item": Entry(slots(1, item_id=""), "slots.item_id", "found nothing"),
    "a slot of no candidate": Entry(slots(1, candidate_index=3), "slots.candidate_index", "found 3"),
    "a slate without end": Entry(slots(MAX_SLOTS + 1), "slots", "found 501"),
    "forgets nobody": Entry(forget("", START_MS), "user_id", "found nothing"),
    "forgets at no time": Entry(forget(ALICE, None), "requested_at", "found nothing"),
    "forgets ahead of its record": Entry(forget(ALICE, START_MS + 10**9), "requested_at", "ahead"),
    "forgets a NUL": Entry(forget("\x00", START_MS), "user_id", "NUL"),
}

GOOD = [interaction("good-1", ALICE, START_MS), interaction("good-2", BOB, START_MS)]
FRAME = encode_frame(GOOD)
INVALID_UTF8 = FRAME.replace(ALICE.encode(), b"\xff" * len(ALICE))

RECORDS: dict[str, tuple[Record, str]] = {
    "no value": (Record(0, START_MS, None), "found a record without a value"),
    "empty value": (Record(0, START_MS, b""), "found schema_version 0"),
    "truncated": (Record(0, START_MS, FRAME[:-1]), "are not an ActivityFrame"),
    "JSON": (Record(0, START_MS, b'{"event_id": "e1"}'), "are not an ActivityFrame"),
    "a message of another kind": (
        Record(0, START_MS, ModelManifest(model_version=7, tokenizer_version=3).SerializeToString()),
        "found schema_version 7",
    ),
    "a single activity without its frame": (Record(0, START_MS, GOOD[0].SerializeToString()), "found"),
    "invalid UTF-8": (Record(0, START_MS, INVALID_UTF8), "strings in UTF-8"),
    "unknown version": (
        Record(0, START_MS, ActivityFrame(schema_version=2, activities=GOOD).SerializeToString()),
        "update the reader",
    ),
    "too many entries": (
        Record(0, START_MS, encode_frame(GOOD * (MAX_FRAME_ACTIVITIES // 2) + GOOD[:1])),
        "found 501 activities",
    ),
    "too many bytes": (Record(0, START_MS, bytes(MAX_FRAME_BYTES + 1)), "send smaller frames"),
    "more bytes than a reject carries": (
        Record(0, START_MS, bytes(MAX_PAYLOAD_BYTES + 1)),
        "the record itself is whole",
    ),
    "no timestamp": (Record(0, -1, FRAME), "set the producer's clock"),
    "a timestamp in seconds": (Record(0, START_MS // 1000, FRAME), "set the producer's clock"),
    "a timestamp in microseconds": (Record(0, START_MS * 1000, FRAME), "set the producer's clock"),
    "the last timestamp there is": (Record(0, 2**63 - 1, FRAME), "set the producer's clock"),
}


def can_act_on(reason: str) -> bool:
    """Found, expected, next step."""
    return "found " in reason and "expected " in reason and "; " in reason and len(reason) < 600


@pytest.mark.parametrize("name", ENTRIES)
def test_a_bad_entry_is_set_aside_alone(name: str) -> None:
    bad = ENTRIES[name]
    store = MemoryStateStore()
    driver = driver_on(store)
    driver.apply([frame(0, START_MS, GOOD[0], bad.activity, GOOD[1])])
    (reject,) = rejects_in(store)
    assert (reject.topic, reject.partition, reject.offset, reject.index) == ("activity.v1", PARTITION.number, 0, 1)
    assert reject.field == bad.field
    assert bad.reason in reject.reason
    assert can_act_on(reject.reason), reject.reason
    assert Activity.FromString(reject.payload).SerializeToString() == bad.activity.SerializeToString()
    assert (driver.cursor.applied, driver.cursor.rejected) == (2, 1)


@pytest.mark.parametrize("name", RECORDS)
def test_a_bad_record_is_set_aside_whole(name: str) -> None:
    record, reason = RECORDS[name]
    store = MemoryStateStore()
    driver = driver_on(store)
    driver.apply([record, frame(1, START_MS, *GOOD)])
    (reject,) = rejects_in(store)
    assert (reject.topic, reject.partition, reject.offset, reject.index) == (
        "activity.v1", PARTITION.number, 0, WHOLE_RECORD,
    )  # fmt: skip
    assert reject.field == ""
    assert reason in reject.reason
    assert can_act_on(reject.reason), reject.reason
    assert reject.payload == (record.value or b"")[:MAX_PAYLOAD_BYTES]
    assert (driver.cursor.applied, driver.cursor.rejected, driver.cursor.records) == (2, 1, 2)
    assert driver.cursor.log_time_ms == START_MS, "a record that is not read moves no time"


def test_a_reject_outlives_the_broken_clock_that_it_is_about() -> None:
    """The broker deletes by timestamp: one of 1970 would be gone within minutes."""
    store = MemoryStateStore()
    driver_on(store).apply([frame(0, START_MS), Record(1, START_MS // 1000, FRAME), Record(2, 2**63 - 1, FRAME)])
    assert [record.timestamp_ms for _, record in store.outbox.values()] == [START_MS, START_MS]


def test_a_partition_full_of_poison_is_read_to_its_end() -> None:
    store = MemoryStateStore()
    driver = driver_on(store)
    count = 300
    driver.apply([Record(offset, START_MS, b"\xff" * (offset % 7)) for offset in range(count)])
    assert (driver.cursor.next_offset, driver.cursor.rejected, driver.cursor.applied) == (count, count, 0)
    assert len(rejects_in(store)) == count


timestamps = st.sampled_from((START_MS, START_MS + 1, 0, -1, 2**63 - 1)) | st.integers(-(2**63), 2**63 - 1)
texts = st.sampled_from((ALICE, BOB, STRANGER, "", "\x00")) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=3
)
int64 = st.integers(-(2**63), 2**63 - 1)
floats = st.floats()


@st.composite
def activities(draw: Callable[..., Any]) -> Activity:
    """Any combination of values that protobuf can carry, good ones often enough to get far."""
    user_id, at_ms = draw(texts), draw(st.sampled_from((START_MS, START_MS - 10**9, START_MS + 10**9)))
    kind = draw(st.sampled_from(("act", "impression", "forget", "none")))
    if kind == "act":
        activity = interaction(draw(texts), user_id, at_ms, item=draw(texts), request=draw(texts))
        event = activity.interaction
        event.action = draw(st.sampled_from(Action.values()) | st.integers(-(2**31), 2**31 - 1))
        for field in ("play_ms", "duration_ms", "value_micros"):
            if draw(st.booleans()):
                setattr(event, field, draw(st.integers(0, 10**6) | int64))
        event.currency = draw(st.sampled_from(("CNY", "", "yuan")))
        if draw(st.booleans()):
            place = event.location
            place.latitude, place.longitude, place.accuracy_m = draw(floats), draw(floats), draw(st.floats(width=32))
        event.occurred_at.nanos = draw(st.sampled_from((0, 1, 10**9, -1)))
        return activity
    if kind == "impression":
        activity = impression(draw(texts), user_id, at_ms, tuple(draw(st.lists(texts, max_size=3))))
        for slot in activity.impression.slots:
            slot.candidate_index = draw(st.sampled_from((-1, 0, -2, 2**31 - 1)))
        activity.impression.served_at.seconds += draw(st.sampled_from((0, 2**61)))
        return activity
    return forget(user_id, at_ms) if kind == "forget" else Activity()


values = (
    st.none()
    | st.binary(max_size=40)
    | st.lists(activities(), max_size=6).map(encode_frame)
    | st.tuples(
        st.lists(activities(), min_size=1, max_size=3).map(encode_frame), st.integers(0, 300), st.binary(max_size=2)
    ).map(lambda cut: cut[0][: cut[1]] + cut[2])
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(timestamps, values), min_size=1, max_size=8))
def test_no_record_makes_the_driver_raise(log: list[tuple[int, bytes | None]]) -> None:
    """An exception here would end every worker at the same record, again and again."""
    store = MemoryStateStore()
    driver = driver_on(store)
    records = [Record(offset, timestamp_ms, value) for offset, (timestamp_ms, value) in enumerate(log)]
    assert driver.apply(records) == len(records)
    assert driver.cursor.next_offset == len(records)
    for reject in rejects_in(store):
        assert can_act_on(reject.reason), reject.reason
