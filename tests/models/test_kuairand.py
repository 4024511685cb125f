"""Laws of the excerpt: what a row says is said, and nothing more."""

from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

from core.errors import InputError
from core.validation import interaction_fault
from models import kuairand
from models.items import item_fault
from models.kuairand import Excerpt
from protos.events.v1.interaction_pb2 import Action, Interaction, Origin


@pytest.fixture(scope="module")
def excerpt() -> Excerpt:
    return kuairand.read_excerpt()


@pytest.fixture(scope="module")
def day(excerpt: Excerpt) -> list[Interaction]:
    """One day's acts."""
    since = kuairand.day_start_ms("2022-04-27")
    return list(kuairand.interactions(excerpt, since, since + kuairand.DAY_MS))


def test_the_excerpt_is_the_one_described(excerpt: Excerpt) -> None:
    assert [len(table) for table in excerpt] == [180_495, 7_583, 26_469]
    times = excerpt.interactions["time_ms"].to_numpy()
    assert (np.diff(times) >= 0).all()
    assert times[0] >= kuairand.day_start_ms("2022-04-24")
    assert times[-1] < kuairand.day_start_ms("2022-05-06")
    leaks = {"play_cnt", "show_cnt", "like_cnt", "counts"}
    assert leaks.isdisjoint(excerpt.videos.column_names)


def test_every_act_and_every_item_is_valid(excerpt: Excerpt, day: list[Interaction]) -> None:
    faults = [interaction_fault(act, act.occurred_at.ToMilliseconds()) for act in day]
    assert faults == [None] * len(day)
    assert [item_fault(item) for item in kuairand.items(excerpt)] == [None] * 7_583


def test_a_day_is_every_row_of_the_day_in_order_with_ids_of_its_own(excerpt: Excerpt, day: list[Interaction]) -> None:
    times = excerpt.interactions["time_ms"].to_numpy()
    since = kuairand.day_start_ms("2022-04-27")
    rows = ((times >= since) & (times < since + kuairand.DAY_MS)).sum()
    first_acts = [act for act in day if act.action in (Action.ACTION_PLAY, Action.ACTION_VIEW)]
    assert len(first_acts) == rows == 13_818
    assert len({act.event_id for act in day}) == len(day)
    stamps = [act.occurred_at.ToMilliseconds() for act in day]
    assert stamps == sorted(stamps)


def test_reading_again_repeats_the_same_acts(excerpt: Excerpt, day: list[Interaction]) -> None:
    since = kuairand.day_start_ms("2022-04-27")
    assert list(kuairand.interactions(excerpt, since, since + kuairand.DAY_MS)) == day


def test_what_was_not_played_is_a_view_and_has_no_play_time(excerpt: Excerpt, day: list[Interaction]) -> None:
    for act in day:
        assert act.HasField("play_ms") == (act.action == Action.ACTION_PLAY)
        assert not act.HasField("play_ms") or act.play_ms > 0
        assert not act.HasField("duration_ms") or act.duration_ms > 0
    table = excerpt.interactions.slice(0, 5000)
    acts = list(kuairand.interactions(excerpt, until_ms=table["time_ms"][-1].as_py() + 1))
    counted = {kind: sum(act.action == kind for act in acts) for kind in (Action.ACTION_LIKE, Action.ACTION_DISLIKE)}
    feedback = table["feedback"].to_numpy()
    assert counted[Action.ACTION_LIKE] == (feedback >> 1 & 1).sum()
    assert counted[Action.ACTION_DISLIKE] == (feedback >> 5 & 1).sum()


def test_a_local_day_begins_at_midnight_in_china() -> None:
    assert kuairand.day_start_ms("2022-04-25") == 1_650_816_000_000  # 2022-04-24 16:00 UTC


def test_imported_acts_claim_no_play_time_and_end_at_the_last_known_time(excerpt: Excerpt) -> None:
    acts = list(kuairand.imported_acts(excerpt, last=3, users=["0", "1", "2"]))
    history = {str(row["user_id"]): row for row in excerpt.history.slice(0, 3).to_pylist()}
    for user, mine in groupby(acts, lambda act: act.user_id):
        row = history.pop(user)
        told = list(mine)
        views = [act for act in told if act.action == Action.ACTION_VIEW]
        assert [act.item_id for act in views] == [str(video) for video in row["watch_seq"][-3:]]
        assert views[-1].occurred_at.ToMilliseconds() == row["last_time_ms"]
        assert {act.item_id for act in told if act.action == Action.ACTION_CLICK} <= set(
            map(str, row["long_watch_seq"])
        )
        assert {act.item_id for act in told if act.action == Action.ACTION_LIKE} <= set(map(str, row["like_seq"]))
        assert all(act.origin == Origin.ORIGIN_IMPORTED and not act.HasField("play_ms") for act in told)
        assert len({act.event_id for act in told}) == len(told)
    assert history == {}


def test_sequences_know_nothing_from_after_their_end(excerpt: Excerpt) -> None:
    """The later the end, the longer a sequence, and what was there before stays first."""
    early = kuairand.sequences(excerpt, 0)
    late = kuairand.sequences(excerpt, kuairand.day_start_ms("2022-05-03"))
    assert sum(map(len, early)) == sum(map(len, excerpt.history["long_watch_seq"].to_pylist()))
    table = excerpt.interactions
    kept = (table["time_ms"].to_numpy() < kuairand.day_start_ms("2022-05-03")) & (table["feedback"].to_numpy() >> 6 & 1)
    assert sum(map(len, late)) - sum(map(len, early)) == kept.sum()
    np.testing.assert_array_equal(late[2][: len(early[2])], early[2])


def test_a_missing_excerpt_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"see data/README\.md"):
        kuairand.read_excerpt(tmp_path)
