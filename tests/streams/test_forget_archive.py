"""Laws of forgetting in the archive: the user is gone, everybody else and the log's time are untouched."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.archive import ArchivedRecord, read_archive, segments, was_scrubbed, write_segment
from core.frames import decode_frame, encode_frame
from core.partition import partition_of
from protos.events.v1.activity_pb2 import Activity, Forget
from streams.cursor import Record
from streams.forget_archive import EVERYWHERE, entries_of, forgotten_in, scrub, without
from tests.streams.log_maker import (
    PARTITION,
    PARTITIONS,
    START_MS,
    STRANGER,
    USERS,
    frame,
    impression,
    interaction,
    make_log,
)

ALICE, BOB = USERS[:2]
TOPIC = PARTITION.topic_id


def forget(user_id: str) -> Activity:
    wish = Forget(user_id=user_id)
    wish.requested_at.FromMilliseconds(START_MS)
    return Activity(forget=wish)


def act(number: int, user_id: str) -> Activity:
    return interaction(f"e{number}", user_id, START_MS + number)


ENTRIES = st.lists(
    st.builds(
        lambda number, user_id, kind: {
            "act": act(number, user_id),
            "shown": impression(f"r{number}", user_id, START_MS),
            "forget": forget(user_id),
        }[kind],
        st.integers(0, 99),
        st.sampled_from(USERS),
        st.sampled_from(("act", "shown", "forget")),
    ),
    max_size=12,
)


def user_of(activity: Activity) -> str:
    return str(getattr(activity, str(activity.WhichOneof("kind"))).user_id)


@given(entries=ENTRIES, place=st.integers(0, 12) | st.just(EVERYWHERE))
def test_only_the_users_earlier_acts_and_answers_go(entries: list[Activity], place: int) -> None:
    before = encode_frame(entries)
    value, removed = without(before, {ALICE: place})
    kept = [
        activity
        for at, activity in enumerate(entries)
        if user_of(activity) != ALICE or at >= place or activity.HasField("forget")
    ]
    assert list(decode_frame(value)) == kept
    assert removed == len(entries) - len(kept)
    assert removed or value is before, "what holds nothing of the user is not encoded again"
    everything = {ALICE: EVERYWHERE}
    assert without(without(before, everything).value, everything).removed == 0


def test_a_users_name_inside_anothers_is_another() -> None:
    longer = ALICE + "0"
    frame = encode_frame([act(1, longer), act(2, ALICE)])
    assert list(decode_frame(without(frame, {ALICE: EVERYWHERE}).value)) == [act(1, longer)]


def test_what_cannot_be_read_and_names_the_user_loses_its_value() -> None:
    assert without(b"\xff" + ALICE.encode(), {ALICE: EVERYWHERE}) == (None, 1)
    assert without(b"\xff poison", {ALICE: EVERYWHERE}) == (b"\xff poison", 0)
    assert without(None, {ALICE: EVERYWHERE}) == (None, 0)


def test_a_wish_in_the_wrong_partition_forgets_nobody() -> None:
    nobody = Activity(forget=Forget(user_id=BOB))  # without its time: refused by the folds
    wishes = frame(0, START_MS, act(1, BOB), forget(ALICE), forget(STRANGER), forget(ALICE), nobody)
    assert forgotten_in(wishes, PARTITION.number, PARTITIONS) == {ALICE: 3}
    assert forgotten_in(wishes, partition_of(STRANGER, PARTITIONS), PARTITIONS) == {STRANGER: 2}
    assert forgotten_in(Record(0, START_MS, b"\xff"), PARTITION.number, PARTITIONS) == {}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A log in three segments, its beginning also as another topic's, in another partition."""
    log = [ArchivedRecord(PARTITION.number, *record) for record in make_log(4, 30)]
    for start in (0, 10, 20):
        write_segment(tmp_path, TOPIC, log[start : start + 10])
    write_segment(tmp_path, "earlier", [record._replace(partition=0) for record in log[:10]])
    clean = [record._replace(offset=30, value=encode_frame([act(1, BOB)])) for record in log[:1]]
    write_segment(tmp_path, TOPIC, clean)
    return tmp_path


def test_a_scrubbed_archive_holds_nothing_of_the_user_and_all_of_the_others(home: Path) -> None:
    before = list(read_archive(home, TOPIC, partition=PARTITION.number))
    count = entries_of(home, TOPIC, PARTITION.number, ALICE)
    assert count > 10
    others = {user_id: entries_of(home, TOPIC, PARTITION.number, user_id) for user_id in USERS if user_id != ALICE}
    scrubbed = scrub(home, TOPIC, PARTITION.number, [ALICE])
    assert scrubbed == (4, count)
    assert entries_of(home, TOPIC, PARTITION.number, ALICE) == 0
    assert {user_id: entries_of(home, TOPIC, PARTITION.number, user_id) for user_id in others} == others
    after = list(read_archive(home, TOPIC, partition=PARTITION.number))
    assert [record[:3] for record in after] == [record[:3] for record in before], "offsets and times stay"
    assert ALICE.encode() not in b"".join(record.value or b"" for record in after)
    assert [was_scrubbed(segment) for segment in segments(home, TOPIC)] == [True, True, True, False]
    assert scrub(home, TOPIC, PARTITION.number, [ALICE]) == (0, 0)
