"""Everything that is kept about one user, and the one loop that advances it.

`fold_entries` applies entries of the log in order, each to the row of its user, in place: every view, and
the memory that recognises a repeated event_id (or request_id of an impression) among the user's last
SEEN_EVENTS. Every entry leaves a row as it is stored, so neither the size of batches nor a cache leaves
a trace in it. `attribute` then joins impressions and acts, which needs text and stays plain Python.

Late acts. An act takes its place in event time in histories, vectors and sums, whatever its age. What
describes habits in the order of the log (watch, places) takes it unless it is LATE_MS older than its record.

`fold_record` is the same for one user and one record, as a pure function: what learning folds with.
"""

from collections.abc import MutableSequence, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from feature_repo.folds import attribution, history, interests, places, watch
from feature_repo.folds.act import Act
from feature_repo.folds.attribution import AttributionState
from feature_repo.folds.compiled import compiled, signed
from feature_repo.folds.context import FoldContext, Record
from feature_repo.folds.entries import FORGET, IMPRESSION, Columns, LogEntry, columns, message_of
from feature_repo.folds.halves import as_bits
from feature_repo.layouts import NO_CODE, USER, WATCH, UserRows, user_rows
from protos.events.v1.activity_pb2 import Activity
from protos.events.v1.impression_pb2 import Impression
from protos.events.v1.outcome_pb2 import Outcome

APPLIED, DUPLICATE = 1, 0  # fates of an entry

_USER_BITS: Final = as_bits(USER)


class Fates(NamedTuple):
    """What became of n entries."""

    applied: NDArray[np.uint8]  # (n,) APPLIED or DUPLICATE
    plays: NDArray[np.void]  # (m,) WATCH of the user at each of the m applied impressions, in order


class UserState(NamedTuple):
    """One user: the row of every view, and the open answers."""

    row: NDArray[np.void]  # (1,) USER; never written in place
    attribution: AttributionState


class FoldResult(NamedTuple):
    """What one record brought to one user, besides the new state."""

    acts: tuple[Act, ...]  # applied, in order
    duplicates: int  # activities skipped because their id was seen
    impressions: int  # applied
    outcomes: tuple[Outcome, ...]
    let_go: tuple[str, ...]  # attribution.REASONS, one per act that no outcome will hold


EMPTY: Final = UserState(np.zeros(1, USER), attribution.EMPTY)


def fold_rows(rows: NDArray[np.void], entries: NDArray[np.void], partition: int, context: FoldContext) -> Fates:
    """Afterwards `rows` (R,) USER, contiguous, hold the `entries` (n,) ENTRY of one partition too."""
    applied = np.zeros(len(entries), np.uint8)
    plays = np.zeros(int((entries["kind"] == IMPRESSION).sum()), WATCH)
    raw = rows.view(np.uint8).reshape(len(rows), USER.itemsize)
    table = context.items.table
    shown = fold_entries(
        rows.view(_USER_BITS),
        raw,
        entries,
        partition,
        table.vectors,
        table.first_codes,
        table.tiers,
        context.tokenizer_version,
        applied,
        plays,
    )
    return Fates(applied, plays[:shown])


@compiled
def fold_entries(
    rows: Any,
    raw: Any,
    entries: Any,
    partition: int,
    vectors: Any,
    first_codes: Any,
    tiers: Any,
    tokenizer: int,
    applied: Any,
    plays: Any,
) -> int:
    """Fills `applied` and `plays`, see Fates; how many of `plays` are used. `raw` are the bytes of `rows`."""
    shown = 0
    for number in range(len(entries)):
        entry = entries[number]
        row = rows[entry.slot]
        if entry.kind == FORGET:
            raw[entry.slot, :] = 0
            applied[number] = APPLIED
            continue
        past = row.history
        past.log_partition = partition
        past.log_offset = entry.offset
        if history.was_seen(past, entry.id_hash):
            past.duplicates += 1
            continue
        applied[number] = APPLIED
        history.remember(past, entry.id_hash, entry.at_ms)
        if entry.kind == IMPRESSION:
            plays[shown] = row.watch
            shown += 1
            continue
        known = entry.place >= 0
        if known and row.interests.tokenizer != tokenizer:
            interests.begin(row.interests, tokenizer)
            history.forget_codes(past)
        new_positive = history.fold(past, entry, signed(first_codes[entry.place]) if known else NO_CODE)
        if not entry.late:
            watch.fold(row.watch, entry)
            places.fold(row.places, entry)
        if known and entry.weight != 0.0:
            interests.fold(row.interests, vectors[entry.place], entry.weight, entry.at_ms)
        if known and new_positive:
            interests.count_tiers(row.interests, tiers[entry.place])
    return shown


def attribute(
    entries: Sequence[LogEntry],
    decoded: Columns,
    slots: Sequence[int],
    fates: Fates,
    answers: MutableSequence[AttributionState],
    context: FoldContext,
) -> tuple[list[Outcome], list[str]]:
    """Outcomes closed and acts let go (attribution.REASONS); `answers`, by slot, are those after the entries.

    What is due at a record's log time closes before its entries apply, so an outcome does not depend on when
    or how often a worker sweeps.
    """
    outcomes: list[Outcome] = []
    let_go: list[str] = []
    shown = 0
    for place in decoded.answering:
        record, _, message = entries[place]
        slot, act = slots[place], decoded.acts[place]
        closed = attribution.close_due(answers[slot], record.log_time_ms)
        outcomes += closed.outcomes
        let_go += closed.let_go
        state = closed.state
        if fates.applied[place] == APPLIED:
            if act is not None:
                step = attribution.act(state, act, record)
            elif isinstance(message, Impression):
                plays = watch.plays_of(fates.plays[shown])
                shown += 1
                step = attribution.show(state, message, plays, record, context)
            else:
                step = attribution.Folded(attribution.EMPTY)
            outcomes += step.outcomes
            let_go += step.let_go
            state = step.state
        answers[slot] = state
    return outcomes, let_go


def fold_record(
    state: UserState, activities: Sequence[Activity], record: Record, context: FoldContext
) -> tuple[UserState, FoldResult]:
    """The state after one user's valid activities of one record, and what they brought. Without any, time passes."""
    messages = [message_of(activity) for activity in activities]
    entries = [LogEntry(record, "", message) for message in messages if message is not None]
    slots = [0] * len(entries)
    decoded = columns(entries, slots, context)
    closed = attribution.close_due(state.attribution, record.log_time_ms)
    row, answers = state.row.copy(), [closed.state]
    fates = fold_rows(row, decoded.numbers, record.partition, context)
    outcomes, let_go = attribute(entries, decoded, slots, fates, answers, context)
    applied = fates.applied.tolist()
    acts = tuple(act for act, fate in zip(decoded.acts, applied, strict=True) if act is not None and fate == APPLIED)
    result = FoldResult(
        acts, applied.count(DUPLICATE), len(fates.plays), (*closed.outcomes, *outcomes), (*closed.let_go, *let_go)
    )
    return UserState(row, answers[0]), result


def rows_of(states: Sequence[UserState]) -> UserRows:
    """The view rows of states, (len(states),) each."""
    return user_rows(np.concatenate([state.row for state in states]) if states else np.zeros(0, USER))
