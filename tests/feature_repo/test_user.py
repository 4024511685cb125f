"""Laws of the one pass over a user's log."""

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.folds import attribution, user
from feature_repo.folds.attribution import NEVER_SHOWN
from feature_repo.folds.context import Record
from feature_repo.folds.entries import LATE_MS, LogEntry, columns, message_of
from feature_repo.folds.user import fold_rows, rows_of
from feature_repo.layouts import SEEN_EVENTS
from feature_repo.layouts import USER as USER_ROW
from protos.events.v1.interaction_pb2 import Action
from tests.feature_repo.logs import (
    CONTEXT,
    HORIZON_MS,
    PARIS,
    START_MS,
    USER,
    Entry,
    after,
    exposures,
    forget,
    impression,
    interaction,
    logs,
    outcomes_of,
    part,
    play,
    positives,
    stored,
    sweep,
)


def through_store(state: user.UserState) -> user.UserState:
    """The state as a worker without a cache finds it."""
    answers = [attribution.pack(answer) for answer in state.attribution.answers.values()]
    return user.UserState(np.frombuffer(state.row.tobytes(), USER_ROW), attribution.unpack(answers))


def entries_of(log: Sequence[Entry]) -> list[LogEntry]:
    found = []
    for offset, entry in enumerate(log):
        for activity in entry.activities:
            message = message_of(activity)
            assert message is not None
            found.append(LogEntry(Record(0, offset, entry.log_time_ms, entry.log_time_ms), USER, message))
    return found


@given(logs())
def test_replay_changes_nothing(log: list[Entry]) -> None:
    first, once = play(log)
    second, again = play(log)
    assert stored(first) == stored(second)
    assert outcomes_of(once) == outcomes_of(again)


@given(logs(), st.sets(st.integers(0, 11)))
def test_batch_borders_leave_no_trace(log: list[Entry], borders: set[int]) -> None:
    kept, expected = play(log)
    state, results = user.EMPTY, []
    for offset, entry in enumerate(log):
        if offset in borders:
            state = through_store(state)
        state, more = play([entry], state, offset)
        results += more
    assert stored(state) == stored(kept)
    assert outcomes_of(results) == outcomes_of(expected)


@given(st.lists(logs(), min_size=1, max_size=3), st.randoms(use_true_random=False), st.integers(1, 9))
def test_users_folded_together_are_users_folded_alone(drawn: list[list[Entry]], rng: object, size: int) -> None:
    alone = [play(log)[0].row for log in drawn]
    queues = [[(slot, entry) for entry in entries_of(log)] for slot, log in enumerate(drawn)]
    merged: list[tuple[int, LogEntry]] = []
    while any(queues):
        merged.append(rng.choice([queue for queue in queues if queue]).pop(0))  # type: ignore[attr-defined]
    rows = np.zeros(len(drawn), USER_ROW)
    for start in range(0, len(merged), size):
        batch = merged[start : start + size]
        slots = [slot for slot, _ in batch]
        fold_rows(rows, columns([entry for _, entry in batch], slots, CONTEXT).numbers, 0, CONTEXT)
    assert rows.tobytes() == np.concatenate(alone).tobytes()


@given(logs(), st.lists(st.integers(0, 12), max_size=4))
def test_outcomes_do_not_depend_on_when_a_worker_sweeps(log: list[Entry], sweeps: list[int]) -> None:
    plain_state, plain = play(log)
    state, swept = user.EMPTY, []
    for offset, entry in enumerate(log):
        state, more = play([entry], state, offset)
        swept += more
        for _ in range(sweeps.count(offset)):
            state, closed = sweep(state, entry.log_time_ms)
            swept.append(closed)
    end_ms = log[-1].log_time_ms + 10**9
    state, last = sweep(state, end_ms)
    plain_state, plain_last = sweep(plain_state, end_ms)
    by_id = {outcome.outcome_id: outcome for outcome in outcomes_of([*swept, last])}
    assert by_id == {outcome.outcome_id: outcome for outcome in outcomes_of([*plain, plain_last])}
    assert stored(state) == stored(plain_state)


@given(logs())
def test_a_record_sent_again_changes_only_the_duplicate_count(log: list[Entry]) -> None:
    once, _ = play(log)
    count = sum(len(entry.activities) for entry in log)
    twice, repeated = play([Entry(log[-1].log_time_ms, entry.activities) for entry in log], once, len(log))
    assert sum(result.duplicates for result in repeated) == count
    assert not any(result.acts or result.impressions for result in repeated)
    assert part(twice, "history")["duplicates"] == part(once, "history")["duplicates"] + count
    expected = once.row.copy()
    for name in ("duplicates", "log_partition", "log_offset"):
        expected["history"][name] = twice.row["history"][name]
    assert twice.row.tobytes() == expected.tobytes()


def test_a_repeat_is_recognised_within_the_stated_window() -> None:
    events = [interaction(f"e{number}", str(number)) for number in range(SEEN_EVENTS)]
    state, _ = play([Entry(START_MS, tuple(events))])
    _, (within,) = play([Entry(START_MS, (events[0],))], state)
    assert within.duplicates == 1
    state, _ = play([Entry(START_MS, (interaction("one more"),))], state)
    _, (beyond,) = play([Entry(START_MS, (events[0],))], state)
    assert beyond.duplicates == 0


def test_the_row_names_the_record_it_reflects() -> None:
    state, _ = user.fold_record(user.EMPTY, [interaction("e")], Record(3, 41, START_MS, START_MS), CONTEXT)
    row = part(state, "history")
    assert (row["log_partition"], row["log_offset"], row["updated_ms"]) == (3, 41, START_MS)
    state, _ = user.fold_record(state, [interaction("e")], Record(3, 44, START_MS, START_MS), CONTEXT)
    assert part(state, "history")["log_offset"] == 44  # a repeat has been read, too


def test_an_impression_moves_the_time_of_the_row_and_no_more() -> None:
    state, (result,) = play([Entry(START_MS, (impression("r", ["1"], START_MS - 5),))])
    assert result.impressions == 1
    row = part(state, "history")
    assert (row["updated_ms"], row["applied"], row["length"], row["seen_count"]) == (START_MS - 5, 0, 0, 1)
    assert not any(any(part(state, view).tobytes()) for view in ("interests", "watch", "places"))


def test_a_late_act_counts_in_histories_and_vectors_and_is_no_habit() -> None:
    def folded(recorded_ms: int) -> user.UserState:
        act = interaction("e", "1", Action.ACTION_PLAY, START_MS, play_ms=20_000, location=PARIS)
        return play([Entry(recorded_ms, (act,))])[0]

    in_time, late = folded(START_MS + LATE_MS), folded(START_MS + LATE_MS + 1)
    for view in ("history", "interests"):
        assert part(late, view).tobytes() == part(in_time, view).tobytes()
    for view in ("watch", "places"):
        assert any(part(in_time, view).tobytes()) and not any(part(late, view).tobytes())


@given(st.permutations(range(24)))
def test_acts_within_the_late_bound_take_their_place_in_any_order(order: list[int]) -> None:
    hour_ms = LATE_MS // 24
    acts = [interaction(f"e{n}", str(n % 7), at_ms=START_MS + n * hour_ms) for n in range(24)]
    now_ms = START_MS + LATE_MS - hour_ms
    expected, _ = play([Entry(now_ms, (one,)) for one in acts])
    state, _ = play([Entry(now_ms, (acts[n],)) for n in order])
    assert exposures(state) == exposures(expected)
    assert positives(state) == positives(expected)
    for name in ("long_term", "short_term"):
        np.testing.assert_allclose(part(state, "interests")[name], part(expected, "interests")[name], atol=5e-3)


def test_a_forgotten_user_is_all_zeros_and_begins_anew() -> None:
    known = after(*(interaction(f"e{n}", str(n), location=PARIS) for n in range(9)))
    known, _ = play([Entry(START_MS, (impression("r", ["1"]), interaction("waits", "1", request="elsewhere")))], known)
    assert len(known.attribution.answers) == 2
    gone, (result,) = play([Entry(START_MS, (forget(),))], known)
    assert not any(gone.row.tobytes())
    assert gone.attribution == attribution.EMPTY
    assert result == user.FoldResult((), 0, 0, (), ())
    again = interaction("e0", "1", at_ms=START_MS + 1)  # known once, and forgotten like all else
    assert stored(after(again, state=gone)) == stored(after(again))


def test_what_was_due_before_a_wish_to_be_forgotten_still_becomes_an_outcome() -> None:
    state, _ = play([Entry(START_MS, (impression("r", ["1"]),))])
    _, (result,) = play([Entry(START_MS + HORIZON_MS, (forget(),))], state)
    assert [outcome.request_id for outcome in result.outcomes] == ["r"]


def test_a_forget_between_acts_of_one_record_divides_them() -> None:
    log = [Entry(START_MS, (interaction("a", "1"), forget(), interaction("a", "2"), interaction("a", "3")))]
    state, (result,) = play(log)
    assert [item for _, item, _, _ in exposures(state)] == [2]
    assert (len(result.acts), result.duplicates) == (2, 1)


def test_a_record_of_other_users_leaves_the_row_alone_but_closes_what_is_due() -> None:
    state, _ = play([Entry(START_MS, (impression("r", ["1"]),))])
    later, result = sweep(state, START_MS + HORIZON_MS)
    assert later.row.tobytes() == state.row.tobytes()
    assert [outcome.item_id for outcome in result.outcomes] == ["1"]


def test_what_no_outcome_will_hold_is_counted() -> None:
    log = [
        Entry(START_MS, (interaction("e", "1", Action.ACTION_LIKE, request="unheard of"),)),
        Entry(START_MS + 10 * HORIZON_MS, ()),
    ]
    state, results = play(log)
    assert [reason for result in results for reason in result.let_go] == [NEVER_SHOWN]
    assert not state.attribution.answers


def test_simulated_acts_fold_like_real_ones_and_keep_their_origin() -> None:
    real, simulated = interaction("e"), interaction("e")
    simulated.interaction.origin = 2  # ORIGIN_SIMULATED
    (first, _), (second, (result,)) = play([Entry(START_MS, (real,))]), play([Entry(START_MS, (simulated,))])
    assert stored(first) == stored(second)
    assert result.acts[0].origin == 2


def test_a_state_is_never_written_in_place() -> None:
    before = after(interaction("a"))
    kept = stored(before)
    after(interaction("b", "2"), state=before)
    play([Entry(START_MS, (forget(),))], before)
    assert stored(before) == kept
    assert not any(user.EMPTY.row.tobytes())


def test_rows_of_states_are_their_parts_in_order() -> None:
    states = [after(interaction("a", "1")), user.EMPTY, after(interaction("b", "2"))]
    rows = rows_of(states)
    assert rows.history["item"][:, 0].tolist() == [1, 0, 2]
    assert rows.interests["long_term"].argmax(1).tolist() == [1, 0, 2]
    assert len(rows_of([]).history) == 0
