"""Laws of attribution: what was shown, and what followed."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.geo import distance_m
from core.ids import outcome_id
from feature_repo.folds import attribution
from feature_repo.folds.attribution import (
    EARLY_ACT_MS,
    MAX_ANSWERS,
    MAX_EARLY_ACTS,
    NEVER_SHOWN,
    NOT_IN_SLATE,
    TOO_LATE,
    TOO_MANY,
)
from feature_repo.folds.entries import LATE_MS
from feature_repo.folds.user import FoldResult
from protos.events.v1.activity_pb2 import Activity
from protos.events.v1.interaction_pb2 import Action
from protos.events.v1.outcome_pb2 import Outcome
from tests.feature_repo.logs import (
    HORIZON_MS,
    PARIS,
    START_MS,
    Entry,
    impression,
    interaction,
    logs,
    outcomes_of,
    play,
    sweep,
)


def close(*activities: Activity) -> tuple[dict[str, Outcome], list[FoldResult]]:
    """Outcomes by item after one record per activity and the horizon's end."""
    log = [Entry(START_MS + n, (activity,)) for n, activity in enumerate(activities)]
    _, results = play([*log, Entry(START_MS + HORIZON_MS + EARLY_ACT_MS, ())])
    outcomes = outcomes_of(results)
    return {outcome.item_id: outcome for outcome in outcomes}, results


@given(logs())
def test_each_slot_gives_exactly_one_outcome(log: list[Entry]) -> None:
    state, results = play(log)
    _, last = sweep(state, log[-1].log_time_ms + 10**9)
    outcomes = outcomes_of([*results, last])
    shown: dict[str, list[str]] = {}
    for activity in itertools.chain.from_iterable(entry.activities for entry in log):
        if activity.HasField("impression"):
            request = activity.impression.request_id
            shown.setdefault(request, [slot.item_id for slot in activity.impression.slots])  # a repeat changes nothing
    expected = sorted(outcome_id(request, item) for request, items in shown.items() for item in items)
    assert sorted(outcome.outcome_id for outcome in outcomes) == expected


@given(logs())
def test_every_act_on_an_answer_ends_in_an_outcome_or_is_counted(log: list[Entry]) -> None:
    state, results = play(log)
    _, last = sweep(state, log[-1].log_time_ms + 10**9)
    results.append(last)
    named = [act for result in results for act in result.acts if act.request_id]
    joined = {
        (outcome.request_id, outcome.item_id, action) for outcome in outcomes_of(results) for action in outcome.actions
    }
    lost = sum(len(result.let_go) for result in results)
    distinct = {(act.request_id, act.item_id, act.action) for act in named}
    assert len(distinct - joined) <= lost
    assert joined <= distinct
    assert lost <= len(named)


def test_no_act_is_an_outcome_too() -> None:
    outcomes, _ = close(impression("r", ["1", "2"]))
    assert [list(outcome.actions) for outcome in outcomes.values()] == [[], []]
    assert not outcomes["1"].HasField("play_ms")


def test_an_outcome_holds_all_that_learning_needs() -> None:
    shown = impression("r", ["1", "0"], START_MS)
    shown.impression.feature_cursor.partition, shown.impression.feature_cursor.offset = 0, 17
    shown.impression.location.latitude, shown.impression.location.longitude = 48.9, 2.4
    shown.impression.exploration.slate_log_prob = -3.25
    outcomes, _ = close(
        shown,
        interaction("a", "0", Action.ACTION_PLAY, START_MS + 1000, play_ms=4_000, request="r"),
        interaction("b", "0", Action.ACTION_PLAY, START_MS + 2000, play_ms=3_000, request="r"),
        interaction("c", "0", Action.ACTION_ORDER, request="r", value_micros=7_000_000, currency="EUR"),
        interaction("d", "0", Action.ACTION_ORDER, request="r", value_micros=5_000_000, currency="EUR"),
        interaction("e", "0", Action.ACTION_DISLIKE, request="r"),
    )
    outcome = outcomes["0"]
    assert outcome.outcome_id == outcome_id("r", "0")
    assert (outcome.user_id, outcome.position, outcome.source) == ("ann", 1, "generator")
    assert list(outcome.actions) == [Action.ACTION_PLAY, Action.ACTION_ORDER, Action.ACTION_DISLIKE]
    assert outcome.disliked
    assert (outcome.play_ms, outcome.duration_ms) == (7_000, 20_000)
    assert (outcome.value_micros, outcome.currency) == (12_000_000, "EUR")
    assert outcome.distance_m == pytest.approx(distance_m(48.9, 2.4, *PARIS))
    assert not outcomes["1"].HasField("distance_m")
    assert outcome.closed_at.ToMilliseconds() == START_MS + HORIZON_MS
    assert (list(outcome.codes), list(outcome.masked_log_probs)) == ([1, 1, 2], [-1.0, -2.0, -0.5])
    assert (outcome.model_version, outcome.tokenizer_version, outcome.policy_version) == (3, 1, "beam@1")
    assert (outcome.partition, outcome.offset) == (0, 0)
    assert (outcome.features.partition, outcome.features.offset) == (0, 17)
    assert (outcome.explored, outcome.slate_log_prob) == (True, -3.25)


def test_orders_in_another_currency_are_not_added() -> None:
    outcomes, _ = close(
        impression("r", ["1"]),
        interaction("a", action=Action.ACTION_ORDER, request="r", value_micros=5, currency="EUR"),
        interaction("b", action=Action.ACTION_ORDER, request="r", value_micros=7, currency="USD"),
    )
    assert (outcomes["1"].value_micros, outcomes["1"].currency) == (5, "EUR")


def test_an_item_that_was_not_generated_has_no_codes() -> None:
    shown = impression("r", ["1"])
    shown.impression.slots[0].candidate_index = -1
    outcomes, _ = close(shown)
    assert not outcomes["1"].codes


def test_an_act_before_its_impression_joins_like_one_after() -> None:
    acts = [
        interaction("a", "1", Action.ACTION_PLAY, START_MS + 500, play_ms=4_000, request="r"),
        interaction("b", "1", Action.ACTION_LIKE, START_MS + 900, request="r"),
    ]
    (after, _), (before, _) = close(impression("r", ["1"]), *acts), close(*acts, impression("r", ["1"]))
    for outcome in (after["1"], before["1"]):
        outcome.ClearField("offset")
        outcome.ClearField("peers")  # the early play stood in the log before the impression, so it is a peer
        outcome.ClearField("rank")
        outcome.ClearField("ties")
    assert after["1"] == before["1"]


def test_the_rank_is_that_of_the_impressions_place_in_the_log() -> None:
    def plays(name: str, count: int, play_ms: int) -> list[Activity]:
        return [
            interaction(f"{name}{n}", "2", Action.ACTION_PLAY, play_ms=play_ms, duration_ms=20_000)
            for n in range(count)
        ]

    outcomes, _ = close(
        *plays("earlier", 3, 2_000),
        impression("r", ["1"]),
        *plays("later", 5, 9_000),
        interaction("mine", "1", Action.ACTION_PLAY, play_ms=2_000, duration_ms=20_000, request="r"),
    )
    outcome = outcomes["1"]
    assert (outcome.duration_bucket, outcome.rank, outcome.peers, outcome.ties) == (4, 3, 3, 3)


def test_a_late_play_is_no_peer() -> None:
    late = interaction("a", "2", Action.ACTION_PLAY, START_MS - LATE_MS - 1, play_ms=2_000)
    mine = interaction("b", "1", Action.ACTION_PLAY, play_ms=2_000, request="r")
    outcomes, _ = close(late, impression("r", ["1"]), mine)
    assert (outcomes["1"].rank, outcomes["1"].peers) == (0, 0)


def test_values_beyond_what_an_outcome_holds_stay_at_its_end() -> None:
    most = 2**63 - 1
    orders = [
        interaction(f"e{n}", action=Action.ACTION_ORDER, request="r", value_micros=most, currency="EUR")
        for n in range(2)
    ]
    outcomes, _ = close(impression("r", ["1"]), *orders)
    assert outcomes["1"].value_micros == most


def test_an_unknown_duration_has_no_bucket() -> None:
    outcomes, _ = close(impression("r", ["77"]), interaction("a", "77", Action.ACTION_PLAY, play_ms=2_000, request="r"))
    assert (outcomes["77"].duration_bucket, outcomes["77"].peers) == (-1, 0)


def test_what_cannot_join_is_let_go_with_its_reason() -> None:
    def reasons(*activities: Activity) -> list[str]:
        return [reason for result in close(*activities)[1] for reason in result.let_go]

    shown = impression("r", ["1"])
    assert reasons(shown, interaction("a", "2", request="r")) == [NOT_IN_SLATE]
    assert reasons(shown, interaction("a", "1", at_ms=START_MS + HORIZON_MS + 1, request="r")) == [TOO_LATE]
    assert reasons(interaction("a", "1", request="elsewhere")) == [NEVER_SHOWN]
    early = [interaction(f"e{n}", "1", request="r") for n in range(MAX_EARLY_ACTS + 2)]
    assert reasons(*early) == [TOO_MANY] * 2 + [NEVER_SHOWN] * MAX_EARLY_ACTS


def test_beyond_the_bound_the_answer_due_next_closes_early() -> None:
    answers = [impression(f"r{n:03d}", ["1"], START_MS + n) for n in range(MAX_ANSWERS + 1)]
    state, results = play([Entry(START_MS, tuple(answers))])
    assert [outcome.request_id for outcome in outcomes_of(results)] == ["r000"]
    assert len(state.attribution.answers) == MAX_ANSWERS


def test_an_item_shown_twice_gives_one_outcome() -> None:
    _, results = close(impression("r", ["1", "1"]))
    assert [outcome.position for outcome in outcomes_of(results)] == [0]


def test_an_impression_without_slots_leaves_nothing_open() -> None:
    state, _ = play([Entry(START_MS, (impression("r", []),))])
    assert not state.attribution.answers


def test_closing_waits_for_the_horizon_in_log_time() -> None:
    state, _ = play([Entry(START_MS, (impression("r", ["1"]),))])
    assert [answer.due_ms for answer in state.attribution.answers.values()] == [START_MS + HORIZON_MS]
    assert not sweep(state, START_MS + HORIZON_MS - 1)[1].outcomes
    assert sweep(state, START_MS + HORIZON_MS)[1].outcomes


@given(logs(), st.integers(0, 12))
def test_changes_lead_from_one_state_to_the_other(log: list[Entry], border: int) -> None:
    before, _ = play(log[:border])
    after, _ = play(log[border:], before, border)
    changes = attribution.changes(before.attribution, after.attribution)
    rows = {request: attribution.pack(answer) for request, answer in before.attribution.answers.items()}
    rows |= {answer.request_id: attribution.pack(answer) for answer in changes.put}
    for request in changes.removed:
        del rows[request]
    assert attribution.unpack(list(rows.values())) == attribution.AttributionState(dict(after.attribution.answers))
