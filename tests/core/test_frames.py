"""Frames: what goes in comes out in order, and a record that is not a frame says why."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import FrameError
from core.frames import MAX_FRAME_ACTIVITIES, MAX_FRAME_BYTES, SCHEMA_VERSION, decode_frame, encode_frame
from protos.events.v1.activity_pb2 import Activity, ActivityFrame
from protos.events.v1.impression_pb2 import Impression
from protos.events.v1.interaction_pb2 import Interaction

interactions = st.builds(lambda text: Activity(interaction=Interaction(event_id=text)), st.text(max_size=8))
impressions = st.builds(lambda text: Activity(impression=Impression(request_id=text)), st.text(max_size=8))


@given(st.lists(interactions | impressions, max_size=20))
def test_round_trip_keeps_entries_and_their_order(activities: list[Activity]) -> None:
    assert list(decode_frame(encode_frame(activities))) == activities


def test_frame_without_entries_is_a_heartbeat_and_not_an_empty_record() -> None:
    heartbeat = encode_frame([])
    assert heartbeat != b""
    assert list(decode_frame(heartbeat)) == []


def test_full_frame_is_read_and_one_more_entry_is_refused() -> None:
    full = [Activity(interaction=Interaction(event_id=str(n))) for n in range(MAX_FRAME_ACTIVITIES)]
    assert len(decode_frame(encode_frame(full))) == MAX_FRAME_ACTIVITIES
    with pytest.raises(FrameError, match="found 501 activities, expected at most 500"):
        decode_frame(encode_frame([*full, Activity()]))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "found a record without a value"),
        (b"", f"found schema_version 0, expected {SCHEMA_VERSION}"),
        (b"\xff\xff", "found 2 bytes that are not an ActivityFrame"),
        (b'{"user": 1}', "found 11 bytes that are not an ActivityFrame"),
        (ActivityFrame(schema_version=SCHEMA_VERSION + 1).SerializeToString(), "found schema_version 2"),
        (b"\x00" * (MAX_FRAME_BYTES + 1), "found 1048577 bytes, expected at most 1048576"),
    ],
)
def test_what_is_not_a_frame_is_refused_with_what_was_found(value: bytes | None, reason: str) -> None:
    with pytest.raises(FrameError, match=f"^{reason}"):
        decode_frame(value)


def test_truncated_frame_never_loses_entries_unnoticed() -> None:
    """Cut anywhere inside its entries, a frame is refused or is a whole shorter frame; never half an entry."""
    activities = [Activity(interaction=Interaction(event_id=f"e{n}", user_id="u")) for n in range(3)]
    value = encode_frame(activities)
    whole = {len(encode_frame(activities[:n])): n for n in range(len(activities) + 1)}
    for length in range(1, len(value)):
        try:
            found = list(decode_frame(value[:length]))
        except FrameError:
            assert length not in whole
        else:
            assert found == activities[: whole[length]]
