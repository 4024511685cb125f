"""Frames: many activities of one partition in one Kafka record.

Faust's cost is per record, so a record carries many events (docs/adr/0001). A frame holds users of
one partition only, in the order of acceptance; a single event is a frame of one; a frame without
entries is a heartbeat.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from google.protobuf.message import DecodeError

from core.errors import FrameError
from protos.events.v1.activity_pb2 import Activity, ActivityFrame

SCHEMA_VERSION: Final = 1
MAX_FRAME_ACTIVITIES: Final = 500
MAX_FRAME_BYTES: Final = 1 << 20


def encode_frame(activities: Iterable[Activity]) -> bytes:
    """The bytes of one frame holding `activities` in order."""
    return ActivityFrame(schema_version=SCHEMA_VERSION, activities=activities).SerializeToString()


def decode_frame(value: bytes | None) -> Sequence[Activity]:
    """The activities of one record, in order; empty for a heartbeat.

    Raises:
        FrameError: the record is empty, too large, not protobuf, or of an unknown schema version.
    """
    if value is None:
        raise FrameError(
            "found a record without a value, expected an ActivityFrame; to remove a user send a Forget entry"
        )
    if len(value) > MAX_FRAME_BYTES:
        raise FrameError(f"found {len(value)} bytes, expected at most {MAX_FRAME_BYTES}; send smaller frames")
    try:
        frame = ActivityFrame.FromString(value)
    except DecodeError as error:
        raise FrameError(
            f"found {len(value)} bytes that are not an ActivityFrame ({error}), expected one; "
            "encode it with protos/events/v1/activity.proto, strings in UTF-8"
        ) from None
    if frame.schema_version != SCHEMA_VERSION:
        step = (
            "update the reader, then `nearfeed rejects replay`"
            if frame.schema_version > SCHEMA_VERSION
            else "set it: these bytes are no frame, or one that was made by hand"
        )
        raise FrameError(f"found schema_version {frame.schema_version}, expected {SCHEMA_VERSION}; {step}")
    if len(frame.activities) > MAX_FRAME_ACTIVITIES:
        raise FrameError(
            f"found {len(frame.activities)} activities, expected at most {MAX_FRAME_ACTIVITIES}; send smaller frames"
        )
    return frame.activities
