"""What a chunk of the log does to the states of its users: the folds of all views, in log order. Pure."""

from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from feature_repo.folds import attribution, popularity
from feature_repo.folds.act import Act
from feature_repo.folds.attribution import AttributionState, Changes
from feature_repo.folds.context import FoldContext, Record
from feature_repo.folds.popularity import CellState
from feature_repo.folds.user import UserState, fold_record
from protos.events.v1.outcome_pb2 import Outcome
from streams.reading import Chunk


class Effects(NamedTuple):
    """States that changed, and what the folds gave besides."""

    states: dict[str, UserState]  # users whose view rows changed
    answers: dict[str, Changes]  # of open answers, by user
    acts: dict[str, list[list[Act]]]  # by cell: the acts that each record brings to it
    applied: int
    duplicates: int
    impressions: int
    outcomes: list[Outcome]
    let_go: list[str]  # attribution.REASONS, one per act that no outcome will hold


def fold_chunk(chunk: Chunk, before: Mapping[str, UserState], partition: int, context: FoldContext) -> Effects:
    """The effects of `chunk` on the states `before` it, which holds every user of the chunk."""
    states: dict[str, UserState] = {}
    cells: defaultdict[str, list[list[Act]]] = defaultdict(list)
    outcomes: list[Outcome] = []
    let_go: list[str] = []
    applied = duplicates = impressions = 0
    for admitted in chunk.admitted:
        record = Record(partition, admitted.offset, admitted.log_time_ms)
        of_record: defaultdict[str, list[Act]] = defaultdict(list)
        for user_id, activities in admitted.by_user.items():
            state = states.get(user_id) or before[user_id]
            states[user_id], result = fold_record(state, activities, record, context)
            applied += len(result.acts)
            duplicates += result.duplicates
            impressions += result.impressions
            outcomes += result.outcomes
            let_go += result.let_go
            for act in result.acts:
                for cell in popularity.cells_of(act, context.location_resolution):
                    of_record[cell].append(act)
        for cell, acts in of_record.items():
            cells[cell].append(acts)
    answers = {
        user_id: attribution.changes(before[user_id].attribution, state.attribution)
        for user_id, state in states.items()
        if state.attribution is not before[user_id].attribution
    }
    return Effects(states, answers, dict(cells), applied, duplicates, impressions, outcomes, let_go)


def close_due(before: Mapping[str, AttributionState], log_time_ms: int) -> tuple[dict[str, AttributionState], Effects]:
    """The open answers without what is due at `log_time_ms`, and the effects of closing it."""
    after: dict[str, AttributionState] = {}
    outcomes: list[Outcome] = []
    let_go: list[str] = []
    for user_id, answers in before.items():
        folded = attribution.close_due(answers, log_time_ms)
        after[user_id] = folded.state
        outcomes += folded.outcomes
        let_go += folded.let_go
    answers_changed = {user_id: attribution.changes(before[user_id], after[user_id]) for user_id in before}
    return after, Effects({}, answers_changed, {}, 0, 0, 0, outcomes, let_go)


def fold_cells(effects: Effects, before: Mapping[str, CellState]) -> dict[str, CellState]:
    """The partial sums after the effects' acts; `before` holds every cell of them."""
    after: dict[str, CellState] = {}
    for cell, acts_of_records in effects.acts.items():
        state = before[cell]
        for acts in acts_of_records:
            state = popularity.fold(state, acts)
        after[cell] = state
    return after
