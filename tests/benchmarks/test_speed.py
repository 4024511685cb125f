"""The work that systems are compared by is the same for all, and what was measured is written as agreed."""

import json
from collections import Counter
from pathlib import Path

from benchmarks.speed.catalogue import publish_catalogue
from benchmarks.speed.load import ITEMS, Backlog, item_name, zipf_backlog
from benchmarks.speed.rows import Row, table_of, write_rows
from core.frames import decode_frame
from core.ids import item_key
from core.partition import partition_of
from core.validation import interaction_fault
from feature_repo.folds.act import NoItems
from feature_repo.folds.context import FoldContext
from protos.events.v1.interaction_pb2 import Interaction
from streams.published import PublishedItems

NOW_MS = 1_800_000_000_000
AGREED = {
    "case",
    "system",
    "workers",
    "events_per_s",
    "cpu_us_per_event",
    "freshness_p50_ms",
    "freshness_p99_ms",
    "command",
}


def backlog(seed: int = 1, frame_events: int = 100) -> Backlog:
    return zipf_backlog(
        seed, events=3_000, users=500, partitions=4, end_ms=NOW_MS, frame_events=frame_events, span_ms=3_600_000
    )


def acts_of(made: Backlog) -> list[Interaction]:
    return [activity.interaction for frame in made.frames for activity in decode_frame(frame.value)]


def test_a_row_holds_what_was_agreed_and_null_where_nothing_was_measured(tmp_path: Path) -> None:
    row = Row("frames", "plain", 1, 1234.56789, None, None, None, "make bench", events_per_s_spread=(1.0, 2.0))
    write_rows([row, row._replace(system="nearfeed")], tmp_path / "results" / "streams.json")
    read = json.loads((tmp_path / "results" / "streams.json").read_text("utf-8"))
    assert [one["system"] for one in read] == ["plain", "nearfeed"]
    assert read[0].keys() >= AGREED
    assert (read[0]["events_per_s"], read[0]["cpu_us_per_event"]) == (1234.568, None)


def test_the_table_has_every_row() -> None:
    rows = [Row(case, "plain", 1, 1.0, 2.0, None, None, "") for case in ("frames", "frames", "single")]
    assert table_of(rows).row_count == 3


def test_frames_are_full_of_fit_acts_of_their_partition() -> None:
    made = backlog()
    assert sum(frame.events for frame in made.frames) == made.events == 3_000
    for frame in made.frames:
        acts = [activity.interaction for activity in decode_frame(frame.value)]
        assert len(acts) == frame.events <= 100
        assert {partition_of(act.user_id, 4) for act in acts} == {frame.partition}
        assert {interaction_fault(act, frame.timestamp_ms) for act in acts} == {None}
        assert max(act.occurred_at.ToMilliseconds() for act in acts) == frame.timestamp_ms
    assert sum(frame.events < 100 for frame in made.frames) <= 4
    assert len({act.event_id for act in acts_of(made)}) == 3_000


def test_the_same_seed_is_the_same_work_and_smaller_frames_hold_the_same_acts() -> None:
    assert backlog() == backlog()
    assert backlog(seed=2) != backlog()

    def by_user(made: Backlog) -> dict[str, list[bytes]]:
        found: dict[str, list[bytes]] = {}
        for act in acts_of(made):
            found.setdefault(act.user_id, []).append(act.SerializeToString(deterministic=True))
        return found

    assert by_user(backlog(frame_events=1)) == by_user(backlog())


def test_users_are_drawn_by_zipf() -> None:
    counts = Counter(act.user_id for act in acts_of(backlog()))
    share = counts.most_common(1)[0][1] / 3_000
    assert 0.11 < share < 0.18  # 1 / H(500) = 0.147
    assert counts.most_common(1)[0][0] == "user-0000000"


def test_stream_workers_take_up_the_catalogue(tmp_path: Path) -> None:
    publish_catalogue(tmp_path)
    context = PublishedItems(tmp_path, FoldContext(NoItems(), 0, 1, 9)).context
    assert context.tokenizer_version == 1
    assert all(context.items.place(item_key(item_name(number))) == number for number in (0, ITEMS - 1))
