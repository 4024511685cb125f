"""Which entries of activity.v1 the folds apply: one rule for workers, learning and the offline store.

Whoever folds the log asks here, so that all of them fold the same entries.
"""

from collections.abc import Container, Sequence
from typing import Final

from core.errors import FrameError
from core.frames import decode_frame
from core.partition import partition_of
from core.validation import Fault, forget_fault, impression_fault, interaction_fault
from feature_repo.folds.entries import Message
from protos.events.v1.activity_pb2 import Activity
from protos.events.v1.impression_pb2 import Impression
from protos.events.v1.interaction_pb2 import Interaction

UNKNOWN_KIND: Final = Fault("kind", "found no kind of activity that is known here, expected one; update the reader")

TIMES_MS: Final = range(946_684_800_000, 4_102_444_800_000)  # 2000 .. 2100: the log's time never turns back, so a
# producer with a broken clock must not move it out of reach


def activities_of(value: bytes | None, recorded_ms: int) -> Sequence[Activity]:
    """The entries of a record stamped `recorded_ms`, in order, each still to be judged.

    Raises:
        FrameError: the record as a whole does not count, and does not move the log's time.
    """
    if recorded_ms not in TIMES_MS:
        raise FrameError(
            f"found record timestamp {recorded_ms}, expected milliseconds since 1970 between 2000 and 2100; "
            "set the producer's clock"
        )
    return decode_frame(value)


def fault_of(
    message: Message, recorded_ms: int, partition: int, partitions: int, known: Container[str] = ()
) -> Fault | None:
    """Why an entry of a record of this partition may not be applied; None: it may.

    `known` holds users who are sure to belong to the partition.
    """
    if isinstance(message, Interaction):
        fault = interaction_fault(message, recorded_ms)
    elif isinstance(message, Impression):
        fault = impression_fault(message, recorded_ms)
    else:
        fault = forget_fault(message, recorded_ms)
    user_id = message.user_id
    if fault is None and user_id not in known and partition_of(user_id, partitions) != partition:
        fault = Fault(
            "user_id",
            f"found in partition {partition}, expected in {partition_of(user_id, partitions)}; "
            "the producer must partition by murmur2 of user_id",
        )
    return fault
