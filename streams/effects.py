"""What a chunk of the log does to the rows of its users, and to the sums of its partition, in log order.

The folds change rows that a RowCache holds; what is handed on to the commit are copies of them.
"""

from collections.abc import Mapping, MutableSequence, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.geo import cell_name
from core.ids import item_key
from feature_repo.folds import attribution, item_statistics, popularity
from feature_repo.folds.attribution import AttributionState, Changes
from feature_repo.folds.compiled import compiled
from feature_repo.folds.context import FoldContext
from feature_repo.folds.entries import ACT, FORGET, IMPRESSION, Columns, LogEntry, columns
from feature_repo.folds.user import APPLIED, DUPLICATE, Fates, attribute, fold_rows
from feature_repo.layouts import GLOBAL_CELL
from protos.events.v1.impression_pb2 import Impression
from protos.events.v1.outcome_pb2 import Outcome


class Counts(NamedTuple):
    """What became of the entries of a chunk."""

    applied: int = 0  # interactions
    duplicates: int = 0
    impressions: int = 0  # applied
    late: int = 0  # of the interactions applied
    forgotten: int = 0


class Effects(NamedTuple):
    """What the folds gave besides the rows."""

    counts: Counts
    answers: dict[str, Changes]  # of open answers, by user
    outcomes: list[Outcome]
    let_go: list[str]  # attribution.REASONS, one per act that no outcome will hold


class Folded(NamedTuple):
    """A chunk whose entries are in the users' rows."""

    entries: Sequence[LogEntry]
    decoded: Columns
    fates: Fates
    effects: Effects


class Touched(NamedTuple):
    """Which sums n entries of the log count for. Slots of shown items: those of entry k are from[k] to from[k + 1]."""

    cells: list[str]  # distinct, the cell that is everywhere first
    cell_of: NDArray[np.int64]  # (n,) place in `cells`; 0 = no cell besides everywhere
    items: list[str]  # distinct
    item_of: NDArray[np.int64]  # (n,) place in `items` of an act's item
    shown: NDArray[np.int64]  # (m,) places in `items`
    shown_from: NDArray[np.int64]  # (n + 1,)


def fold_chunk(
    entries: Sequence[LogEntry],
    slot_of: Mapping[str, int],
    rows: NDArray[np.void],
    answers: MutableSequence[AttributionState],
    partition: int,
    context: FoldContext,
) -> Folded:
    """Afterwards `rows` and `answers`, by slot, hold the entries."""
    slots = [slot_of[entry.user_id] for entry in entries]
    decoded = columns(entries, slots, context)
    answering = {entries[place].user_id: slots[place] for place in decoded.answering}
    before = {user_id: answers[slot] for user_id, slot in answering.items()}
    fates = fold_rows(rows, decoded.numbers, partition, context)
    outcomes, let_go = attribute(entries, decoded, slots, fates, answers, context)
    changed = {
        user_id: attribution.changes(before[user_id], answers[slot])
        for user_id, slot in answering.items()
        if answers[slot] is not before[user_id]
    }
    return Folded(entries, decoded, fates, Effects(_counts(decoded, fates), changed, outcomes, let_go))


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
    changed = {user_id: attribution.changes(before[user_id], after[user_id]) for user_id in before}
    return after, Effects(Counts(), changed, outcomes, let_go)


def touched(folded: Folded) -> Touched:
    """The sums that the applied entries count for."""
    numbers, applied = folded.decoded.numbers, folded.fates.applied == APPLIED
    cells, cell_of = np.unique(numbers["popular_cell"] * applied, return_inverse=True)
    if not len(cells) or cells[0]:  # everywhere stands first
        cells, cell_of = np.concatenate([[np.uint64(0)], cells]), cell_of + 1
    acts = np.flatnonzero(applied & (numbers["kind"] == ACT))
    shown, shown_from = _shown(folded, applied)
    shown_keys = np.array([item_key(item_id) for item_id in shown], np.int64)
    keys = np.concatenate([numbers["item"][acts], shown_keys])
    _, first, item_at = np.unique(keys, return_index=True, return_inverse=True)
    names = [_item_id(folded, acts, shown, place) for place in first.tolist()]
    item_of = np.zeros(len(numbers), np.int64)
    item_of[acts] = item_at[: len(acts)]
    cell_names = [GLOBAL_CELL, *map(cell_name, cells[1:].tolist())]
    return Touched(cell_names, cell_of, names, item_of, item_at[len(acts) :], shown_from)


def _shown(folded: Folded, applied: NDArray[np.bool_]) -> tuple[list[str], NDArray[np.int64]]:
    """Items that applied impressions showed, each once in an answer; those of entry k are from[k] to from[k + 1]."""
    shown: list[str] = []
    counts = np.zeros(len(folded.entries) + 1, np.int64)
    for place in folded.decoded.answering:
        message = folded.entries[place].message
        if applied[place] and isinstance(message, Impression):
            distinct = dict.fromkeys(slot.item_id for slot in message.slots)
            shown += distinct
            counts[place + 1] = len(distinct)
    return shown, np.cumsum(counts)


def _item_id(folded: Folded, acts: NDArray[np.intp], shown: Sequence[str], place: int) -> str:
    """The name behind the key at `place` of those of acts and shown items."""
    if place >= len(acts):
        return shown[place - len(acts)]
    act = folded.decoded.acts[int(acts[place])]
    assert act is not None
    return act.item_id


def fold_sums(
    folded: Folded,
    keys: Touched,
    cells: NDArray[np.void],
    cell_slots: NDArray[np.int64],
    items: NDArray[np.void],
    item_slots: NDArray[np.int64],
    context: FoldContext,
) -> None:
    """Afterwards the rows of `cells` and `items` hold the entries too; slots are those of the keys, in order."""
    _fold_sums(
        folded.decoded.numbers,
        folded.fates.applied,
        context.items.table.vectors,
        cells,
        cell_slots,
        keys.cell_of,
        items,
        item_slots,
        keys.item_of,
        keys.shown,
        keys.shown_from,
    )


@compiled
def _fold_sums(
    entries: Any,
    applied: Any,
    vectors: Any,
    cells: Any,
    cell_slots: Any,
    cell_of: Any,
    items: Any,
    item_slots: Any,
    item_of: Any,
    shown: Any,
    shown_from: Any,
) -> None:
    for number in range(len(entries)):
        entry = entries[number]
        if applied[number] != APPLIED or entry.kind == FORGET:
            continue
        if entry.kind == ACT:
            popularity.fold(cells[cell_slots[0]], entry, vectors)
            if cell_of[number] > 0:
                popularity.fold(cells[cell_slots[cell_of[number]]], entry, vectors)
            item_statistics.fold(items[item_slots[item_of[number]]], entry)
        else:
            for place in range(shown_from[number], shown_from[number + 1]):
                item_statistics.show(items[item_slots[shown[place]]], entry.at_ms)


def _counts(decoded: Columns, fates: Fates) -> Counts:
    kind, applied = decoded.numbers["kind"], fates.applied == APPLIED
    acts = applied & (kind == ACT)
    return Counts(
        int(acts.sum()),
        int((fates.applied == DUPLICATE).sum()),
        int((applied & (kind == IMPRESSION)).sum()),
        int((acts & decoded.numbers["late"]).sum()),
        int((applied & (kind == FORGET)).sum()),
    )
