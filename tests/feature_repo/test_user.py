"""Laws of the one pass over a user's log."""

from hypothesis import given
from hypothesis import strategies as st

from feature_repo.folds import user
from feature_repo.folds.attribution import NEVER_SHOWN
from feature_repo.folds.context import Record
from feature_repo.layouts import SEEN_EVENTS
from protos.events.v1.interaction_pb2 import Action
from tests.feature_repo.logs import (
    CONTEXT,
    HORIZON_MS,
    START_MS,
    Entry,
    impression,
    interaction,
    logs,
    outcomes_of,
    play,
    stored,
)


def through_store(state: user.UserState) -> user.UserState:
    """The state as a worker without a cache finds it."""
    answers = user.attribution.unpack([user.attribution.pack(one) for one in state.attribution.answers.values()])
    return user.unpack(user.pack([state]), 0, answers)


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


@given(logs(), st.lists(st.integers(0, 12), max_size=4))
def test_outcomes_do_not_depend_on_when_a_worker_sweeps(log: list[Entry], sweeps: list[int]) -> None:
    _, plain = play(log)
    state, swept = user.EMPTY, []
    for offset, entry in enumerate(log):
        state, more = play([entry], state, offset)
        swept += more
        for _ in range(sweeps.count(offset)):
            state, closed = user.close_due(state, entry.log_time_ms)
            swept.append(closed)
    end_ms = log[-1].log_time_ms + 10**9
    state, last = user.close_due(state, end_ms)
    plain_state, plain_last = user.close_due(play(log)[0], end_ms)
    by_id = {outcome.outcome_id: outcome for outcome in outcomes_of([*swept, last])}
    assert by_id == {outcome.outcome_id: outcome for outcome in outcomes_of([*plain, plain_last])}
    assert state.attribution == plain_state.attribution


@given(logs())
def test_a_record_sent_again_changes_only_the_duplicate_count(log: list[Entry]) -> None:
    once, _ = play(log)
    count = sum(len(entry.activities) for entry in log)
    twice, repeated = play([Entry(log[-1].log_time_ms, entry.activities) for entry in log], once, len(log))
    assert sum(result.duplicates for result in repeated) == count
    assert not any(result.acts or result.impressions for result in repeated)
    assert twice.interests is once.interests
    assert twice.watch == once.watch
    assert twice.places == once.places
    assert twice.history.entries == once.history.entries
    assert twice.history.duplicates == once.history.duplicates + count


def test_a_repeat_is_recognised_within_the_stated_window() -> None:
    events = [interaction(f"e{number}", str(number)) for number in range(SEEN_EVENTS)]
    state, _ = play([Entry(START_MS, tuple(events))])
    _, (within,) = play([Entry(START_MS, (events[0],))], state)
    assert within.duplicates == 1
    state, _ = play([Entry(START_MS, (interaction("one more"),))], state)
    _, (beyond,) = play([Entry(START_MS, (events[0],))], state)
    assert beyond.duplicates == 0


def test_the_row_names_the_record_it_reflects() -> None:
    state, _ = user.fold_record(user.EMPTY, [interaction("e")], Record(3, 41, START_MS), CONTEXT)
    assert (state.history.log_partition, state.history.log_offset) == (3, 41)


def test_a_record_of_other_users_leaves_the_rows_alone_but_closes_what_is_due() -> None:
    state, _ = play([Entry(START_MS, (impression("r", ["1"]),))])
    later, result = user.fold_record(state, [], Record(0, 9, START_MS + HORIZON_MS), CONTEXT)
    assert not result.rows_changed
    assert later.history == state.history
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


@given(st.lists(logs(), min_size=1, max_size=3))
def test_packed_rows_give_the_states_back(drawn: list[list[Entry]]) -> None:
    states = [play(log)[0] for log in drawn]
    rows = user.pack(states)
    for at, state in enumerate(states):
        assert stored(user.unpack(rows, at, state.attribution)) == stored(state)
        back = user.unpack(rows, at)
        assert back.history == state.history
        assert back.watch == state.watch
        assert back.places == state.places
