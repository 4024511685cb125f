"""Is this event fit for the log? One rule, used at the door (IngestService) and again by the reader
of the topic, because any Kafka producer may write there."""

import re
from typing import Final, NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp

from protos.events.v1.activity_pb2 import Forget
from protos.events.v1.impression_pb2 import Impression
from protos.events.v1.interaction_pb2 import Action, Interaction, Location

MAX_AHEAD_MS: Final = 5 * 60 * 1000  # design §2: later than this against the record's time is refused
MAX_PLAY_MS: Final = 24 * 3600 * 1000  # one exposure; longer is a broken client clock
MAX_ID_BYTES: Final = 256  # ids are keys, not documents
MAX_VALUE_MICROS: Final = 10**16  # one order, 10**10 units of a currency; sums must stay below 2**63
MAX_SLOTS: Final = 500  # of one answer; each becomes an outcome, and this project's scorer shows at most a tenth
_OLDEST_MS: Final = 946_684_800_000  # 2000-01-01; before it a client sent seconds or nothing


class Fault(NamedTuple):
    """Why an event is not kept."""

    field: str
    reason: str  # found, expected; the next step


def interaction_fault(event: Interaction, recorded_ms: int) -> Fault | None:
    """The first fault of `event`, judged against its record's time; None when it is good."""
    ids = event_id, user_id, item_id = event.event_id, event.user_id, event.item_id
    labels = event.request_id, event.surface, event.session_id
    if not (event_id and user_id and item_id and _is_plain("".join(ids + labels))):
        fault = _id_fault("event_id", event_id) or _id_fault("user_id", user_id) or _id_fault("item_id", item_id)
        fault = fault or _label_fault(*labels)
        if fault is not None:
            return fault
    if event.action not in _ACTIONS:
        return Fault(
            "action", f"found {event.action}, expected one of {_ACTION_NAMES}; set it, or update the producer's .proto"
        )
    fault = _time_fault("occurred_at", event.HasField("occurred_at"), event.occurred_at, recorded_ms)
    if fault is not None:
        return fault
    if event.HasField("play_ms") and not 0 <= event.play_ms <= MAX_PLAY_MS:
        return _length_fault("play_ms", event.play_ms, "send the milliseconds played in one exposure")
    if event.HasField("duration_ms") and not 0 <= event.duration_ms <= MAX_PLAY_MS:
        return _length_fault("duration_ms", event.duration_ms, "send the item's length")
    if event.HasField("value_micros"):
        if not 0 <= event.value_micros <= MAX_VALUE_MICROS:
            return Fault(
                "value_micros",
                f"found {event.value_micros}, expected 0 .. {MAX_VALUE_MICROS}; send millionths of the currency unit",
            )
        if not _CURRENCY.fullmatch(event.currency):
            return Fault(
                "currency",
                f"found {_short(event.currency)}, expected an ISO 4217 code beside value_micros; set it, e.g. CNY",
            )
    return location_fault(event.location) if event.HasField("location") else None


def impression_fault(impression: Impression, recorded_ms: int) -> Fault | None:
    """The first fault of `impression`; None when it is good."""
    fault = _id_fault("request_id", impression.request_id) or _id_fault("user_id", impression.user_id)
    if fault is not None:
        return fault
    fault = _time_fault("served_at", impression.HasField("served_at"), impression.served_at, recorded_ms)
    if fault is None and impression.HasField("location"):
        fault = location_fault(impression.location)
    return fault or _slot_fault(impression) or _label_fault("", impression.surface, impression.session_id)


def forget_fault(forget: Forget, recorded_ms: int) -> Fault | None:
    """The first fault of `forget`; None when it is good."""
    fault = _id_fault("user_id", forget.user_id)
    return fault or _time_fault("requested_at", forget.HasField("requested_at"), forget.requested_at, recorded_ms)


def location_fault(location: Location) -> Fault | None:
    """The first fault of a location; NaN is out of every range."""
    if not -90.0 <= location.latitude <= 90.0:
        return _place_fault("latitude", location.latitude, "-90 .. 90 degrees")
    if not -180.0 <= location.longitude <= 180.0:
        return _place_fault("longitude", location.longitude, "-180 .. 180 degrees")
    if not 0.0 <= location.accuracy_m < 1e7:
        return _place_fault("accuracy_m", location.accuracy_m, "0 .. 1e7 metres, 0 = unknown")
    return None


_ACTIONS: Final = frozenset(value for value in Action.values() if value)
_ACTION_NAMES: Final = ", ".join(name for name, _ in Action.items() if not name.endswith("UNSPECIFIED"))
_CURRENCY: Final = re.compile("[A-Z]{3}")


def _length_fault(field: str, found: int, step: str) -> Fault:
    return Fault(field, f"found {found} ms, expected 0 .. {MAX_PLAY_MS}; {step}, or leave it out when it is not known")


def _place_fault(field: str, found: float, expected: str) -> Fault:
    return Fault(
        f"location.{field}", f"found {found}, expected {expected}; leave the location out when it is not known"
    )


def _is_plain(texts: str) -> bool:
    """Whether joined texts need no look at each: the way of nearly all of them, and much the quickest."""
    return texts.isascii() and len(texts) <= MAX_ID_BYTES and "\x00" not in texts


def _id_fault(field: str, value: str) -> Fault | None:
    return _text_fault(field, value) if value else Fault(field, "found nothing, expected a non-empty id; set it")


def _label_fault(request_id: str, surface: str, session_id: str) -> Fault | None:
    fault = _text_fault("request_id", request_id) or _text_fault("surface", surface)
    return fault or _text_fault("session_id", session_id)


def _text_fault(field: str, value: str) -> Fault | None:
    if len(value) > MAX_ID_BYTES // 4 and len(value.encode()) > MAX_ID_BYTES:
        return Fault(
            field,
            f"found {len(value.encode())} bytes, expected at most {MAX_ID_BYTES}; send a shorter name, or its hash",
        )
    if "\x00" in value:
        return Fault(field, "found a NUL character, expected text that PostgreSQL can hold; send it without")
    return None


def _slot_fault(impression: Impression) -> Fault | None:
    if len(impression.slots) > MAX_SLOTS:
        return Fault("slots", f"found {len(impression.slots)}, expected at most {MAX_SLOTS}; log what was shown only")
    candidates = len(impression.candidates)
    for slot in impression.slots:
        fault = _id_fault("slots.item_id", slot.item_id)
        if fault is not None:
            return fault
        if not -1 <= slot.candidate_index < candidates:
            return Fault(
                "slots.candidate_index",
                f"found {slot.candidate_index}, expected -1 .. {candidates - 1}; "
                "name a place in candidates, or -1 for an item that was not generated",
            )
    return None


def _time_fault(field: str, present: bool, at: Timestamp, recorded_ms: int) -> Fault | None:
    if not 0 <= at.nanos < 10**9:  # protobuf's own conversions raise on it
        return Fault(
            field, f"found {at.nanos} nanos, expected 0 .. 999999999; set the time with protobuf's own methods"
        )
    at_ms = at.seconds * 1000 + at.nanos // 10**6
    if not present:
        return Fault(field, "found nothing, expected a time after 2000; set it")
    if at_ms < _OLDEST_MS:
        step = "seconds sent as milliseconds look like this"
        return Fault(field, f"found {at_ms} ms since 1970, expected a time after 2000; {step}")
    if at_ms - recorded_ms > MAX_AHEAD_MS:
        return Fault(
            field,
            f"found {at_ms - recorded_ms} ms ahead of the platform, expected at most {MAX_AHEAD_MS}; "
            "set the clock, or send the time of arrival",
        )
    return None


def _short(text: str) -> str:
    """Text as a reason may quote it: a reason must fit beside the payload, whatever a client sent."""
    return repr(text) if len(text) <= _QUOTED else f"{text[:_QUOTED]!r} and {len(text) - _QUOTED} characters more"


_QUOTED: Final = 40
