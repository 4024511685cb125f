"""Everything that is kept about one user, and the one pass that advances it.

`fold_record` takes the activities that one Kafka record holds for one user. Closing of answers is
judged first, by the log time that the record brings; then the activities apply in order; then the
state is sealed: rounded to its stored form. So a state read back from its rows is the state itself,
and neither the size of micro-batches nor a cache leaves a trace in it.

A repeated event_id (or request_id of an impression) is recognised once, here, for all views, within
the last SEEN_EVENTS of the user.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from core.ids import event_hash
from feature_repo.folds import attribution, history, interests, places, watch
from feature_repo.folds.act import Act, act_of
from feature_repo.folds.attribution import AttributionState, served_ms
from feature_repo.folds.context import FoldContext, Record
from feature_repo.folds.history import HistoryState
from feature_repo.folds.interests import InterestsState
from feature_repo.folds.places import PlacesState
from feature_repo.folds.watch import WatchState
from feature_repo.layouts import HISTORY_ROW, INTERESTS, PLACES, WATCH, UserRows
from protos.events.v1.activity_pb2 import Activity
from protos.events.v1.impression_pb2 import Impression
from protos.events.v1.outcome_pb2 import Outcome


class UserState(NamedTuple):
    """The state of every view, and the open answers."""

    interests: InterestsState
    history: HistoryState
    watch: WatchState
    places: PlacesState
    attribution: AttributionState


class FoldResult(NamedTuple):
    """What one record brought to one user, besides the new state."""

    acts: tuple[Act, ...]  # applied, in order
    duplicates: int  # activities skipped because their id was seen
    impressions: int  # applied
    outcomes: tuple[Outcome, ...]
    let_go: tuple[str, ...]  # attribution.REASONS, one per act that no outcome will hold
    rows_changed: bool  # whether the four view rows differ (open answers aside)


EMPTY: Final = UserState(interests.EMPTY, history.EMPTY, watch.EMPTY, places.EMPTY, attribution.EMPTY)


def fold_record(
    state: UserState, activities: Sequence[Activity], record: Record, context: FoldContext
) -> tuple[UserState, FoldResult]:
    """The sealed state after one user's valid activities of one record, and what they brought."""
    interest, past, watched, place, answers = state
    closed = attribution.close_due(answers, record.log_time_ms)
    answers = closed.state
    outcomes, let_go = closed.outcomes, closed.let_go
    acts: list[Act] = []
    duplicates = impressions = 0
    for activity in activities:
        if activity.HasField("interaction"):
            act = act_of(activity.interaction, context.items)
            if act.event_hash in past.seen:
                duplicates += 1
                continue
            acts.append(act)
            past = history.fold(past, act)
            watched = watch.fold(watched, act)
            place = places.fold(place, act, context.location_resolution)
            vector = context.items.vector(act.item_key) if act.weight else None
            interest = interests.fold(interest, act, vector, context.tokenizer_version)
            step = attribution.act(answers, act, record)
        else:
            shown = impression_hash(activity.impression)
            if shown in past.seen:
                duplicates += 1
                continue
            impressions += 1
            past = history.remember(past, shown, served_ms(activity.impression))
            step = attribution.show(answers, activity.impression, watched.plays, record, context)
        answers = step.state
        outcomes += step.outcomes
        let_go += step.let_go
    if activities:
        past = history.stamp(past, duplicates, record)
    if interest is not state.interests:
        interest = interests.seal(interest)
    if place is not state.places:
        place = places.seal(place)
    result = FoldResult(tuple(acts), duplicates, impressions, outcomes, let_go, bool(activities))
    return UserState(interest, past, watched, place, answers), result


def close_due(state: UserState, log_time_ms: int) -> tuple[UserState, FoldResult]:
    """The state after a sweep at `log_time_ms`: what is due has become outcomes; the views stay as they are."""
    closed = attribution.close_due(state.attribution, log_time_ms)
    result = FoldResult((), 0, 0, closed.outcomes, closed.let_go, False)
    return state._replace(attribution=closed.state), result


def impression_hash(impression: Impression) -> int:
    """The hash by which a user's state recognises an impression it has seen; apart from event ids."""
    return event_hash(f"impression\x00{impression.request_id}")


def pack(states: Sequence[UserState]) -> UserRows:
    """The view rows of sealed states, (len(states),) each."""
    return UserRows(
        np.frombuffer(b"".join([interests.pack(state.interests) for state in states]), INTERESTS),
        np.frombuffer(b"".join([history.pack(state.history) for state in states]), HISTORY_ROW),
        np.frombuffer(b"".join([watch.pack(state.watch) for state in states]), WATCH),
        np.frombuffer(b"".join([places.pack(state.places) for state in states]), PLACES),
        np.ones(len(states), bool),
    )


def unpack(rows: UserRows, at: int, answers: AttributionState = attribution.EMPTY) -> UserState:
    """The state that row `at` holds; a user who was not found begins EMPTY."""
    return UserState(
        interests.unpack(rows.interests[at].tobytes()),
        history.unpack(rows.history[at].tobytes()),
        watch.unpack(rows.watch[at].tobytes()),
        places.unpack(rows.places[at].tobytes()),
        answers,
    )
