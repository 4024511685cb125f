"""What may enter the log: every fault names its field, and nothing a client sends raises."""

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from core.validation import (
    MAX_AHEAD_MS,
    MAX_ID_BYTES,
    MAX_PLAY_MS,
    MAX_SLOTS,
    MAX_VALUE_MICROS,
    forget_fault,
    impression_fault,
    interaction_fault,
    location_fault,
)
from protos.events.v1.activity_pb2 import Forget
from protos.events.v1.impression_pb2 import Candidate, Impression, Slot
from protos.events.v1.interaction_pb2 import Action, Interaction, Location

NOW_MS = 1_650_000_000_000
NAN = float("nan")
INF = float("inf")


def interaction(**changes: object) -> Interaction:
    """A good order, with `changes`."""
    fields: dict[str, object] = {
        "event_id": "e1",
        "user_id": "u1",
        "item_id": "i1",
        "action": Action.ACTION_ORDER,
        "play_ms": 1_000,
        "duration_ms": 2_000,
        "value_micros": 5_000_000,
        "currency": "CNY",
        "location": Location(latitude=31.2, longitude=121.5, accuracy_m=20),
    }
    event = Interaction(**(fields | changes))  # type: ignore[arg-type]
    event.occurred_at.FromMilliseconds(NOW_MS)
    return event


def at(ms: int) -> Interaction:
    event = interaction()
    event.occurred_at.FromMilliseconds(ms)
    return event


def located(latitude: float = 0.0, longitude: float = 0.0, accuracy_m: float = 0.0) -> Interaction:
    return interaction(location=Location(latitude=latitude, longitude=longitude, accuracy_m=accuracy_m))


def impression(**changes: object) -> Impression:
    """A good impression of one generated and one popular item, with `changes`."""
    fields: dict[str, object] = {
        "request_id": "r1",
        "user_id": "u1",
        "candidates": [Candidate(item_id="i1")],
        "slots": [Slot(item_id="i1", candidate_index=0), Slot(item_id="i2", position=1, candidate_index=-1)],
    }
    shown = Impression(**(fields | changes))  # type: ignore[arg-type]
    shown.served_at.FromMilliseconds(NOW_MS)
    return shown


def test_good_ones_are_kept() -> None:
    assert interaction_fault(interaction(), NOW_MS) is None
    assert impression_fault(impression(), NOW_MS) is None


def test_only_the_required_fields_are_required() -> None:
    event = Interaction(event_id="e1", user_id="u1", item_id="i1", action=Action.ACTION_VIEW)
    event.occurred_at.FromMilliseconds(NOW_MS)
    assert interaction_fault(event, NOW_MS) is None


@pytest.mark.parametrize("action", [value for value in Action.values() if value])
def test_every_named_action_is_kept(action: int) -> None:
    assert interaction_fault(interaction(action=action), NOW_MS) is None


FAULTS: list[tuple[Interaction, str, str]] = [
    (interaction(event_id=""), "event_id", "found nothing"),
    (interaction(user_id=""), "user_id", "found nothing"),
    (interaction(item_id=""), "item_id", "found nothing"),
    (interaction(user_id="u" * (MAX_ID_BYTES + 1)), "user_id", "found 257 bytes"),
    (interaction(item_id="店" * 86), "item_id", "found 258 bytes"),
    (interaction(user_id="a\x00b"), "user_id", "NUL"),
    (interaction(request_id="r" * (MAX_ID_BYTES + 1)), "request_id", "found 257 bytes"),
    (interaction(surface="\x00"), "surface", "NUL"),
    (interaction(session_id="s" * 300), "session_id", "found 300 bytes"),
    (interaction(action=0), "action", "found 0, expected one of ACTION_VIEW"),
    (interaction(action=99), "action", "found 99"),
    (interaction(action=-1), "action", "found -1"),
    (interaction(play_ms=-1), "play_ms", "found -1 ms"),
    (interaction(play_ms=MAX_PLAY_MS + 1), "play_ms", "found 86400001 ms"),
    (interaction(duration_ms=-1), "duration_ms", "found -1 ms"),
    (interaction(duration_ms=2**63 - 1), "duration_ms", "found 9223372036854775807 ms"),
    (interaction(value_micros=-1), "value_micros", "found -1"),
    (interaction(value_micros=MAX_VALUE_MICROS + 1), "value_micros", "found 10000000000000001"),
    (interaction(currency=""), "currency", "found ''"),
    (interaction(currency="yuan"), "currency", "found 'yuan'"),
    (interaction(currency="cny"), "currency", "found 'cny'"),
    (interaction(currency="CNY\n"), "currency", "found 'CNY\\n'"),
    (at(NOW_MS + MAX_AHEAD_MS + 1), "occurred_at", "found 300001 ms ahead"),
    (at(NOW_MS // 1000), "occurred_at", "found 1650000000 ms since 1970"),
    (at(-1), "occurred_at", "found -1"),
    (located(latitude=90.0001), "location.latitude", "found 90.0001"),
    (located(latitude=-INF), "location.latitude", "found -inf"),
    (located(latitude=NAN), "location.latitude", "found nan"),
    (located(longitude=-180.5), "location.longitude", "found -180.5"),
    (located(longitude=NAN), "location.longitude", "found nan"),
    (located(accuracy_m=-1), "location.accuracy_m", "found -1.0"),
    (located(accuracy_m=NAN), "location.accuracy_m", "found nan"),
    (located(accuracy_m=INF), "location.accuracy_m", "found inf"),
]


@pytest.mark.parametrize(("event", "field", "reason"), FAULTS)
def test_bad_input_names_field_and_what_was_found(event: Interaction, field: str, reason: str) -> None:
    fault = interaction_fault(event, NOW_MS)
    assert fault is not None
    assert fault.field == field
    assert reason in fault.reason
    assert "expected" in fault.reason
    assert "; " in fault.reason, "the next step"


def test_a_reason_stays_short_whatever_was_sent() -> None:
    """It travels beside the payload, and the whole must fit into one record."""
    for text in ("店" * 100_000, "\x01" * 100_000):
        for event in (interaction(currency=text), interaction(user_id=text), interaction(surface=text)):
            fault = interaction_fault(event, NOW_MS)
            assert fault is not None
            assert len(fault.reason) < 400


def test_missing_time_is_said_as_missing() -> None:
    event = interaction()
    event.ClearField("occurred_at")
    fault = interaction_fault(event, NOW_MS)
    assert fault is not None
    assert fault == ("occurred_at", "found nothing, expected a time after 2000; set it")


@pytest.mark.parametrize(
    "event",
    [
        at(NOW_MS + MAX_AHEAD_MS),
        at(946_684_800_000),
        interaction(play_ms=0, duration_ms=0),
        interaction(play_ms=MAX_PLAY_MS, duration_ms=MAX_PLAY_MS),
        interaction(value_micros=0),
        interaction(value_micros=MAX_VALUE_MICROS),
        interaction(user_id="u" * MAX_ID_BYTES),
        interaction(item_id="店" * 85),
        located(90.0, 180.0),
        located(-90.0, -180.0),
    ],
)
def test_the_border_itself_is_good(event: Interaction) -> None:
    assert interaction_fault(event, NOW_MS) is None


def test_time_is_judged_against_the_record_and_not_the_reader() -> None:
    event = at(NOW_MS)
    assert interaction_fault(event, NOW_MS - MAX_AHEAD_MS) is None
    assert interaction_fault(event, NOW_MS - MAX_AHEAD_MS - 1) is not None
    assert interaction_fault(event, NOW_MS + 10**12) is None, "late events take their place; they are no fault"


@pytest.mark.parametrize(("seconds", "nanos"), [(2**60, 0), (-(2**63), 0), (NOW_MS // 1000, 10**9), (0, -1)])
def test_time_outside_protobufs_range_is_a_fault_and_not_an_exception(seconds: int, nanos: int) -> None:
    event, shown = interaction(), impression()
    for time in (event.occurred_at, shown.served_at):
        time.seconds, time.nanos = seconds, nanos
    fault = interaction_fault(event, NOW_MS)
    assert fault is not None
    assert fault.field == "occurred_at"
    fault = impression_fault(shown, NOW_MS)
    assert fault is not None
    assert fault.field == "served_at"


@pytest.mark.parametrize(
    ("shown", "field"),
    [
        (impression(request_id=""), "request_id"),
        (impression(user_id=""), "user_id"),
        (impression(user_id="\x00"), "user_id"),
        (impression(location=Location(latitude=NAN)), "location.latitude"),
        (impression(surface="s" * 1000), "surface"),
        (impression(slots=[Slot(candidate_index=-1)]), "slots.item_id"),
        (impression(slots=[Slot(item_id="i1", candidate_index=1)]), "slots.candidate_index"),
        (impression(slots=[Slot(item_id="i1", candidate_index=-2)]), "slots.candidate_index"),
        (impression(candidates=[]), "slots.candidate_index"),
        (impression(slots=[Slot(item_id="i1", candidate_index=-1)] * (MAX_SLOTS + 1)), "slots"),
    ],
)
def test_bad_impression_names_its_field(shown: Impression, field: str) -> None:
    fault = impression_fault(shown, NOW_MS)
    assert fault is not None
    assert fault.field == field
    assert "found" in fault.reason and "expected" in fault.reason and "; " in fault.reason


def forget(user_id: str = "u1", requested_ms: int | None = NOW_MS) -> Forget:
    wish = Forget(user_id=user_id)
    if requested_ms is not None:
        wish.requested_at.FromMilliseconds(requested_ms)
    return wish


@pytest.mark.parametrize("wish", [forget(), forget(requested_ms=NOW_MS + MAX_AHEAD_MS), forget("店" * 85)])
def test_a_good_wish_to_be_forgotten_is_kept(wish: Forget) -> None:
    assert forget_fault(wish, NOW_MS) is None


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        (forget(user_id=""), "user_id"),
        (forget(user_id="a\x00b"), "user_id"),
        (forget(user_id="u" * (MAX_ID_BYTES + 1)), "user_id"),
        (forget(requested_ms=None), "requested_at"),
        (forget(requested_ms=NOW_MS // 1000), "requested_at"),
        (forget(requested_ms=NOW_MS + MAX_AHEAD_MS + 1), "requested_at"),
    ],
)
def test_bad_wish_to_be_forgotten_names_its_field(wish: Forget, field: str) -> None:
    fault = forget_fault(wish, NOW_MS)
    assert fault is not None
    assert fault.field == field


@given(st.floats(), st.floats(), st.floats(width=32))
def test_location_is_kept_exactly_when_it_is_on_the_earth(latitude: float, longitude: float, accuracy: float) -> None:
    location = Location(latitude=latitude, longitude=longitude, accuracy_m=accuracy)
    on_earth = abs(latitude) <= 90 and abs(longitude) <= 180 and 0 <= accuracy < 1e7
    assert (location_fault(location) is None) == on_earth


int64 = st.integers(-(2**63), 2**63 - 1)
int32 = st.integers(-(2**31), 2**31 - 1)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
times = st.builds(Timestamp, seconds=int64, nanos=int32)
places = st.builds(Location, latitude=st.floats(), longitude=st.floats(), accuracy_m=st.floats(width=32))


@given(
    st.builds(
        Interaction,
        event_id=text,
        user_id=text,
        item_id=text,
        action=int32,
        occurred_at=times,
        play_ms=st.none() | int64,
        duration_ms=st.none() | int64,
        value_micros=st.none() | int64,
        currency=text,
        location=st.none() | places,
    )
    | st.builds(
        Impression,
        request_id=text,
        user_id=text,
        served_at=times,
        location=st.none() | places,
        slots=st.lists(st.builds(Slot, item_id=text, candidate_index=int32), max_size=2),
    )
    | st.builds(Forget, user_id=text, requested_at=times),
    int64,
)
def test_no_message_makes_the_rule_raise(message: Interaction | Impression | Forget, recorded_ms: int) -> None:
    """An exception here would end a worker at the same record again and again."""
    if isinstance(message, Interaction):
        fault, at = interaction_fault(message, recorded_ms), message.occurred_at
    elif isinstance(message, Impression):
        fault, at = impression_fault(message, recorded_ms), message.served_at
    else:
        fault, at = forget_fault(message, recorded_ms), message.requested_at
    if fault is None:
        assert at.ToMilliseconds() <= recorded_ms + MAX_AHEAD_MS
