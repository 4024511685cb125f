"""Laws of a chunk: every applied entry counts once for each sum that it concerns, in the order of the log."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.folds import item_statistics, popularity
from feature_repo.folds.attribution import EMPTY, AttributionState
from feature_repo.folds.context import Record
from feature_repo.folds.entries import LATE_MS, LogEntry, message_of
from feature_repo.folds.user import APPLIED
from feature_repo.layouts import CELLS, GLOBAL_CELL, ITEMS, USER
from protos.events.v1.activity_pb2 import Activity, Forget
from protos.events.v1.impression_pb2 import Impression
from protos.events.v1.interaction_pb2 import Action
from streams.effects import Counts, Folded, close_due, fold_chunk, fold_sums, touched
from tests.feature_repo.logs import CONTEXT, PARIS
from tests.streams.log_maker import HORIZON_MS, START_MS, USERS, impression, interaction

SPOTS = (None, PARIS, (-33.87, 151.21), (31.23, 121.47))


def located(activity: Activity, spot: tuple[float, float] | None) -> Activity:
    activity.interaction.ClearField("location")
    if spot is not None:
        activity.interaction.location.latitude, activity.interaction.location.longitude = spot
    return activity


def forget(user_id: str) -> Activity:
    wish = Forget(user_id=user_id)
    wish.requested_at.FromMilliseconds(START_MS)
    return Activity(forget=wish)


def a_chunk(rng: random.Random, count: int, always_located: bool) -> list[Activity]:
    made: list[Activity] = []
    for number in range(count):
        user_id, at_ms = rng.choice(USERS[:3]), START_MS + rng.randrange(40_000_000)
        chance = rng.random()
        if chance < 0.05:
            made.append(forget(user_id))
        elif chance < 0.2:
            shown = tuple(str(rng.randrange(9)) for _ in range(rng.randrange(5)))  # an item may be in it twice
            made.append(impression(f"r{rng.randrange(6)}", user_id, at_ms, shown))
        elif chance < 0.3 and made:
            made.append(rng.choice(made))
        else:
            action = rng.choice((Action.ACTION_PLAY, Action.ACTION_LIKE, Action.ACTION_DISLIKE, Action.ACTION_VIEW))
            item = rng.choice(("a name", *map(str, range(9))))
            act = interaction(f"e{number}", user_id, at_ms, item=item, action=action)
            made.append(located(act, rng.choice(SPOTS[always_located:])))
    return made


def folded(activities: list[Activity], answers: dict[str, AttributionState] | None = None) -> Folded:
    """The chunk over users of whom only open answers are known, one record per activity, all recorded at once."""
    now_ms = START_MS + 40_000_000
    entries = []
    for offset, activity in enumerate(activities):
        message = message_of(activity)
        assert message is not None
        entries.append(LogEntry(Record(1, offset, now_ms, now_ms), message.user_id, message))
    slots = {user_id: 2 * place for place, user_id in enumerate(USERS)}
    known = [EMPTY] * 2 * len(USERS)
    for user_id, state in (answers or {}).items():
        known[slots[user_id]] = state
    return fold_chunk(entries, slots, np.zeros(len(known), USER), known, 1, CONTEXT)


@given(st.integers(0, 10_000), st.integers(0, 60), st.booleans())
def test_sums_of_a_chunk_are_those_of_its_entries_one_by_one(seed: int, count: int, always_located: bool) -> None:
    rng = random.Random(seed)
    chunk = folded(a_chunk(rng, count, always_located))
    cells: dict[str, np.ndarray] = {GLOBAL_CELL: np.zeros(1, CELLS)}
    items: dict[str, np.ndarray] = {}
    for place, entry in enumerate(chunk.entries):
        numbers, act = chunk.decoded.numbers[place], chunk.decoded.acts[place]
        if chunk.fates.applied[place] != APPLIED:
            continue
        if act is not None:
            around = [GLOBAL_CELL]
            if act.latitude == act.latitude:
                around.append(popularity.cell_key(act.latitude, act.longitude, CONTEXT.location_resolution))
            for name in around:
                cell = cells.setdefault(name, np.zeros(1, CELLS))
                popularity.fold(cell[0], numbers, CONTEXT.items.table.vectors)
            item_statistics.fold(items.setdefault(act.item_id, np.zeros(1, ITEMS))[0], numbers)
        elif isinstance(entry.message, Impression):
            for item_id in {slot.item_id for slot in entry.message.slots}:
                item_statistics.show(items.setdefault(item_id, np.zeros(1, ITEMS))[0], numbers["at_ms"])

    keys = touched(chunk)
    assert keys.cells[0] == GLOBAL_CELL
    assert sorted(keys.cells) == sorted(cells) and sorted(keys.items) == sorted(items)
    cell_slots = np.array(rng.sample(range(90), len(keys.cells)), np.int64)  # wherever a cache may keep them
    item_slots = np.array(rng.sample(range(90), len(keys.items)), np.int64)
    cell_rows, item_rows = np.zeros(90, CELLS), np.zeros(90, ITEMS)
    fold_sums(chunk, keys, cell_rows, cell_slots, item_rows, item_slots, CONTEXT)
    for name, slot in zip(keys.cells, cell_slots, strict=True):
        assert cell_rows[slot].tobytes() == cells[name].tobytes()
    for name, slot in zip(keys.items, item_slots, strict=True):
        assert item_rows[slot].tobytes() == items[name].tobytes()
    assert (cell_rows["updated_ms"] > 0).sum() <= len(cells) and (item_rows["updated_ms"] > 0).sum() == len(items)


def test_counts_name_what_became_of_every_entry() -> None:
    ann, bob = USERS[:2]
    now_ms = START_MS + 40_000_000
    like = interaction("e1", ann, now_ms)
    counts = folded(
        [
            like,
            like,
            impression("r1", ann, now_ms),
            impression("r1", ann, now_ms),
            interaction("e2", bob, now_ms - LATE_MS - 1),
            forget(bob),
            interaction("e3", bob, now_ms - LATE_MS),
        ]
    ).effects.counts
    assert counts == Counts(applied=3, duplicates=2, impressions=1, late=1, forgotten=1)


def test_a_wish_to_be_forgotten_removes_open_answers_and_says_nothing_of_them() -> None:
    ann, bob = USERS[:2]
    at_ms = START_MS + 40_000_000
    before = folded([impression("r1", ann, at_ms), impression("r2", bob, at_ms)])
    open_answers = {
        user_id: AttributionState({answer.request_id: answer for answer in changes.put})
        for user_id, changes in before.effects.answers.items()
    }
    waits = interaction("e1", ann, at_ms, request="elsewhere")
    effects = folded([waits, forget(ann)], open_answers).effects
    assert set(effects.answers) == {ann}
    assert (effects.answers[ann].put, effects.answers[ann].removed) == ([], ["r1"])
    assert (effects.outcomes, effects.let_go) == ([], [])


@pytest.mark.parametrize("passed_ms", [HORIZON_MS - 1, HORIZON_MS])
def test_closing_what_is_due_changes_the_answers_that_were(passed_ms: int) -> None:
    at_ms = START_MS + 40_000_000
    chunk = folded([impression("r1", USERS[0], at_ms), interaction("e1", USERS[0], at_ms, item="8", request="r1")])
    before = {USERS[0]: AttributionState({"r1": chunk.effects.answers[USERS[0]].put[0]})}
    after, effects = close_due(before, at_ms + passed_ms)
    if passed_ms < HORIZON_MS:
        assert after == before and effects.outcomes == []
        return
    assert after == {USERS[0]: EMPTY}
    assert {outcome.item_id: list(outcome.actions) for outcome in effects.outcomes} == {
        "7": [],
        "8": [Action.ACTION_LIKE],
    }
    assert effects.answers[USERS[0]].removed == ["r1"]
