"""Is this event fit for the log? One rule, used at the door (IngestService) and again by the reader
of the topic, because any Kafka producer may write there."""

import re
from typing import Final, NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp

from protos.events.v1.impression_pb2 import Impression
from protos.events.v1.interaction_pb2 import Action, Interaction, Location

MAX_AHEAD_MS: Final = 5 * 60 * 1000  # design §2: later than this against the record's time is refused
MAX_PLAY_MS: Final = 24 * 3600 * 1000  # one exposure; longer is a broken client clock
MAX_ID_BYTES: Final = 256  # ids are keys, not documents
MAX_VALUE_MICROS: Final = 10**16  # one order, 10**10 units of a currency; sums must stay below 2**63
_OLDEST_MS: Final = 946_684_800_000  # 2000-01-01; before it a client sent seconds or nothing


class Fault(NamedTuple):
    """Why an event is not kept."""

    field: str
    reason: str  # found, expected


def interaction_fault(event: Interaction, recorded_ms: int) -> Fault | None:
    """The first fault of `event`, judged against its record's time; None when it is good."""
    fault = _id_fault("event_id", event.event_id) or _id_fault("user_id", event.user_id)
    fault = fault or _id_fault("item_id", event.item_id)
    if fault is not None:
        return fault
    if event.action not in _ACTIONS:
        return Fault("action", f"found {event.action}, expected one of {_ACTION_NAMES}")
    fault = _time_fault("occurred_at", event.HasField("occurred_at"), event.occurred_at, recorded_ms)
    if fault is not None:
        return fault
    if event.HasField("play_ms") and not 0 <= event.play_ms <= MAX_PLAY_MS:
        return Fault("play_ms", f"found {event.play_ms} ms, expected 0 .. {MAX_PLAY_MS}")
    if event.HasField("duration_ms") and not 0 <= event.duration_ms <= MAX_PLAY_MS:
        return Fault("duration_ms", f"found {event.duration_ms} ms, expected 0 .. {MAX_PLAY_MS}")
    if event.HasField("value_micros"):
        if not 0 <= event.value_micros <= MAX_VALUE_MICROS:
            return Fault("value_micros", f"found {event.value_micros}, expected 0 .. {MAX_VALUE_MICROS}")
        if not _CURRENCY.fullmatch(event.currency):
            return Fault("currency", f"found {event.currency!r}, expected an ISO 4217 code beside value_micros")
    if event.HasField("location"):
        fault = location_fault(event.location)
    return fault or _label_fault(event.request_id, event.surface, event.session_id)


def impression_fault(impression: Impression, recorded_ms: int) -> Fault | None:
    """The first fault of `impression`; None when it is good."""
    fault = _id_fault("request_id", impression.request_id) or _id_fault("user_id", impression.user_id)
    if fault is not None:
        return fault
    fault = _time_fault("served_at", impression.HasField("served_at"), impression.served_at, recorded_ms)
    if fault is None and impression.HasField("location"):
        fault = location_fault(impression.location)
    return fault or _slot_fault(impression) or _label_fault("", impression.surface, impression.session_id)


def location_fault(location: Location) -> Fault | None:
    """The first fault of a location; NaN is out of every range."""
    if not -90.0 <= location.latitude <= 90.0:
        return Fault("location.latitude", f"found {location.latitude}, expected -90 .. 90 degrees")
    if not -180.0 <= location.longitude <= 180.0:
        return Fault("location.longitude", f"found {location.longitude}, expected -180 .. 180 degrees")
    if not 0.0 <= location.accuracy_m < 1e7:
        return Fault("location.accuracy_m", f"found {location.accuracy_m}, expected 0 .. 1e7 metres")
    return None


_ACTIONS: Final = frozenset(value for value in Action.values() if value)
_ACTION_NAMES: Final = ", ".join(name for name, _ in Action.items() if not name.endswith("UNSPECIFIED"))
_CURRENCY: Final = re.compile("[A-Z]{3}")


def _id_fault(field: str, value: str) -> Fault | None:
    return _text_fault(field, value) if value else Fault(field, "found nothing, expected a non-empty id")


def _label_fault(request_id: str, surface: str, session_id: str) -> Fault | None:
    fault = _text_fault("request_id", request_id) or _text_fault("surface", surface)
    return fault or _text_fault("session_id", session_id)


def _text_fault(field: str, value: str) -> Fault | None:
    if len(value) > MAX_ID_BYTES // 4 and len(value.encode()) > MAX_ID_BYTES:
        return Fault(field, f"found {len(value.encode())} bytes, expected at most {MAX_ID_BYTES}")
    if "\x00" in value:
        return Fault(field, "found a NUL character, expected text that PostgreSQL can hold")
    return None


def _slot_fault(impression: Impression) -> Fault | None:
    candidates = len(impression.candidates)
    for slot in impression.slots:
        fault = _id_fault("slots.item_id", slot.item_id)
        if fault is not None:
            return fault
        if not -1 <= slot.candidate_index < candidates:
            return Fault("slots.candidate_index", f"found {slot.candidate_index}, expected -1 .. {candidates - 1}")
    return None


def _time_fault(field: str, present: bool, at: Timestamp, recorded_ms: int) -> Fault | None:
    if not 0 <= at.nanos < 10**9:  # protobuf's own conversions raise on it
        return Fault(field, f"found {at.nanos} nanos, expected 0 .. 999999999")
    at_ms = at.seconds * 1000 + at.nanos // 10**6
    if not present or at_ms < _OLDEST_MS:
        return Fault(field, f"found {at_ms if present else 'nothing'}, expected milliseconds since 1970 after 2000")
    if at_ms - recorded_ms > MAX_AHEAD_MS:
        return Fault(field, f"found {at_ms - recorded_ms} ms ahead of the platform, expected at most {MAX_AHEAD_MS}")
    return None
