"""Outcomes and the log they came from -> what a policy update learns from.

Letters used in this file
    R requests   k shown items of a request   L code levels

A request's context is rebuilt by folding the user's own log up to the record that the scorer's features
reached (`Outcome.features`), by the folds that streaming runs: bit for bit the rows that were read, with
no look at a store that has moved on. Logged token probabilities are taken as logged, never recomputed.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from core.ids import event_hash
from feature_repo.folds.act import is_positive
from feature_repo.folds.context import FoldContext, Record
from feature_repo.folds.history import EXPOSURE_S
from feature_repo.folds.user import EMPTY, FoldResult, UserState, fold_record, rows_of
from feature_repo.layouts import UserRows
from models.batches import LEVELS, ContextBatch, Floats, Ints
from models.catalog import Catalog
from models.contexts import context_batch
from models.examples import Examples
from protos.events.v1.interaction_pb2 import ORIGIN_SIMULATED
from protos.events.v1.outcome_pb2 import Outcome
from rl.log import LogRecord, activities_by_user
from rl.rewards import GlobalTable, advantages, rewards, threshold

UNKNOWN_ITEM: Final = "unknown_item"  # the catalogue does not hold it
OTHER_TOKENIZER: Final = "other_tokenizer"  # its codes mean something else now
HELD_OUT: Final = 5  # every fifth user, by hash
NOT_IN_LOG: Final = "not_in_log"  # the log given does not reach the record that the features came from


class RolloutBatch(NamedTuple):
    """What was shown to R requests and what it was worth. Padded slots have item -1."""

    request_ids: list[str]  # (R,)
    viewers: UserRows  # (R,) what the scorer had read
    user_ids: list[str]  # (R,)
    at_ms: npt.NDArray[np.int64]  # (R,) served at
    locations: npt.NDArray[np.float64]  # (R, 2) NaN = unknown
    context: ContextBatch  # (R,) the same as model input
    explored: npt.NDArray[np.bool_]  # (R,) the slate was drawn
    items: Ints  # (R, k) catalogue index, -1 = padding
    log_probs: Floats  # (R, k, L) masked, as logged; NaN = unknown
    reward: Floats  # (R, k) NaN = padding
    advantage: Floats  # (R, k) +1, -1, 0; 0 = padding

    def take(self, rows: npt.NDArray[np.int64]) -> "RolloutBatch":
        """Some of the requests, in the order of `rows`."""
        return RolloutBatch(
            request_ids=[self.request_ids[row] for row in rows],
            viewers=UserRows._make(view[rows] for view in self.viewers),
            user_ids=[self.user_ids[row] for row in rows],
            at_ms=self.at_ms[rows],
            locations=self.locations[rows],
            context=ContextBatch._make(field[rows] for field in self.context),
            explored=self.explored[rows],
            items=self.items[rows],
            log_probs=self.log_probs[rows],
            reward=self.reward[rows],
            advantage=self.advantage[rows],
        )


class Rollouts(NamedTuple):
    """One range of the log, as learning sees it."""

    batch: RolloutBatch
    held_out: RolloutBatch  # requests of held-out users: for the gate, never for the update
    positives: Examples  # what the other users chose by themselves in the same log
    tau: float  # rewards above it have advantage +1
    outcomes: int  # distinct ones given
    repeats: int  # outcomes skipped because their id was seen
    dropped: dict[str, int]  # outcomes left out, by reason


class _Request(NamedTuple):
    """A request as its outcomes and the log tell of it."""

    outcomes: list[Outcome]
    before: UserState  # what the scorer had read


class _Positive(NamedTuple):
    """An exposure that turned out good without our doing."""

    before: UserState
    item: int
    at_ms: int
    location: tuple[float, float]


def rollouts(
    outcomes: Iterable[Outcome],
    log: Iterable[LogRecord],
    catalog: Catalog,
    context: FoldContext,
    table: GlobalTable,
    *,
    partitions: int,
    max_positives: int,
) -> Rollouts:
    """What `outcomes` and the log behind them teach. Pure: equal input, equal batch.

    Args:
        outcomes: in any order; repeats are recognised by id.
        log: activity.v1 from its beginning, each partition in order of offset, at least to the record that
            the features of every outcome reached.
        catalog: of the version that learns.
        context: as the workers folded with.
        partitions: of activity.v1.
        max_positives: the newest this many are kept.
    """
    distinct, repeats = _distinct(outcomes)
    kept, dropped = _usable(distinct, catalog)
    by_request: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in kept:
        by_request[outcome.request_id].append(outcome)
    replayed = _replay(by_request, log, context, partitions, max_positives)
    for request_id in [request_id for request_id in by_request if request_id not in replayed.states]:
        dropped[NOT_IN_LOG] += len(by_request.pop(request_id))
    requests = [
        _Request(sorted(group, key=lambda one: one.position), replayed.states[request_id])
        for request_id, group in by_request.items()
    ]
    requests.sort(key=lambda one: (one.outcomes[0].served_at.ToMilliseconds(), one.outcomes[0].request_id))
    batch, tau = _batch(requests, replayed.locations, catalog, table)
    apart = np.array([is_held_out(user_id) for user_id in batch.user_ids], np.bool_)
    examples = _examples(replayed.positives, catalog)
    learned, held_out = batch.take(np.flatnonzero(~apart)), batch.take(np.flatnonzero(apart))
    return Rollouts(learned, held_out, examples, tau, len(distinct), repeats, dict(dropped))


def is_held_out(user_id: str) -> bool:
    """Whether a user is kept from every update, so that the gate can ask for them."""
    return event_hash(f"held out\x00{user_id}") % HELD_OUT == 0


def _distinct(outcomes: Iterable[Outcome]) -> tuple[list[Outcome], int]:
    seen: dict[str, Outcome] = {}
    count = 0
    for outcome in outcomes:
        seen.setdefault(outcome.outcome_id, outcome)
        count += 1
    return list(seen.values()), count - len(seen)


def _usable(outcomes: Sequence[Outcome], catalog: Catalog) -> tuple[list[Outcome], Counter[str]]:
    kept: list[Outcome] = []
    dropped: Counter[str] = Counter()
    for outcome in outcomes:
        if catalog.index_of(outcome.item_id) is None:
            dropped[UNKNOWN_ITEM] += 1
        elif outcome.codes and outcome.tokenizer_version != catalog.tokenizer.version:
            dropped[OTHER_TOKENIZER] += 1
        else:
            kept.append(outcome)
    return kept, dropped


class _Replayed(NamedTuple):
    states: dict[str, UserState]  # by request
    locations: dict[str, tuple[float, float]]  # by request, where the impression names one
    positives: list[_Positive]


def _replay(
    requests: dict[str, list[Outcome]],
    log: Iterable[LogRecord],
    context: FoldContext,
    partitions: int,
    max_positives: int,
) -> _Replayed:
    """One pass over the log that folds the users of the requests and nobody else."""
    waiting: dict[tuple[str, int], list[str]] = defaultdict(list)  # (user, offset) -> requests answered from there
    found = _Replayed({}, {}, [])
    users: dict[str, UserState] = {}
    for request_id, group in requests.items():
        users[group[0].user_id] = EMPTY
        if group[0].HasField("features"):
            waiting[group[0].user_id, group[0].features.offset].append(request_id)
        else:
            found.states[request_id] = EMPTY
    positives: dict[str, _Positives] = defaultdict(_Positives)
    log_time_ms: dict[int, int] = defaultdict(int)
    for record in log:
        log_time_ms[record.partition] = max(log_time_ms[record.partition], record.timestamp_ms)
        for user_id, activities in activities_by_user(record, partitions).items():
            if user_id not in users:
                continue
            before, where = (
                users[user_id],
                Record(record.partition, record.offset, log_time_ms[record.partition], record.timestamp_ms),
            )
            users[user_id], result = fold_record(before, activities, where, context)
            if not is_held_out(user_id):
                positives[user_id].add(before, result)
            for activity in activities:
                shown = activity.impression
                if activity.HasField("impression") and shown.HasField("location") and shown.request_id in requests:
                    found.locations[shown.request_id] = (shown.location.latitude, shown.location.longitude)
            for request_id in waiting.pop((user_id, record.offset), ()):
                found.states[request_id] = users[user_id]
    good = sorted((one for mine in positives.values() for one in mine.good), key=lambda one: (one.at_ms, one.item))
    found.positives.extend(good[-max_positives:])
    return found


class _Positives:
    """One user's good exposures, each once, with what was known before its first act."""

    def __init__(self) -> None:
        self.good: list[_Positive] = []
        self._first: dict[int, tuple[int, UserState]] = {}
        self._given: set[tuple[int, int]] = set()

    def add(self, before: UserState, result: FoldResult) -> None:
        """Take in one record. Simulated acts answer a request: they teach by reward, not by example."""
        for act in result.acts:
            at_ms, known = self._first.get(act.item_key, (0, before))
            if act.at_ms - at_ms > EXPOSURE_S * 1000:
                at_ms, known = self._first[act.item_key] = act.at_ms, before
            if act.origin == ORIGIN_SIMULATED or not is_positive(act) or (act.item_key, at_ms) in self._given:
                continue
            self._given.add((act.item_key, at_ms))
            self.good.append(_Positive(known, act.item_key, at_ms, (act.latitude, act.longitude)))


def _batch(
    requests: Sequence[_Request], locations: dict[str, tuple[float, float]], catalog: Catalog, table: GlobalTable
) -> tuple[RolloutBatch, float]:
    count, width = len(requests), max((len(one.outcomes) for one in requests), default=1)
    items = np.full((count, width), -1, np.int32)
    log_probs = np.full((count, width, LEVELS), np.nan, np.float32)
    for row, request in enumerate(requests):
        for slot, outcome in enumerate(request.outcomes):
            index = catalog.index_of(outcome.item_id)
            assert index is not None  # _usable has left the others out
            items[row, slot] = index
            if len(outcome.masked_log_probs) == LEVELS:
                log_probs[row, slot] = outcome.masked_log_probs
    valued = rewards([outcome for request in requests for outcome in request.outcomes], table)
    tau = threshold(valued.reward)
    reward, advantage = np.full((count, width), np.nan, np.float32), np.zeros((count, width), np.float32)
    reward[items >= 0] = valued.reward
    advantage[items >= 0] = advantages(valued.reward, valued.disliked, tau)

    first = [request.outcomes[0] for request in requests]
    nowhere = (float("nan"), float("nan"))
    where = np.array([locations.get(one.request_id, nowhere) for one in first], np.float64).reshape(count, 2)
    at_ms = np.array([one.served_at.ToMilliseconds() for one in first], np.int64)
    rows = rows_of([request.before for request in requests])
    batch = RolloutBatch(
        request_ids=[one.request_id for one in first],
        viewers=rows,
        user_ids=[one.user_id for one in first],
        at_ms=at_ms,
        locations=where,
        context=context_batch(rows, catalog, at_ms, where),
        explored=np.array([one.explored for one in first], np.bool_),
        items=items,
        log_probs=log_probs,
        reward=reward,
        advantage=advantage,
    )
    return batch, tau


def _examples(positives: Sequence[_Positive], catalog: Catalog) -> Examples:
    items = catalog.indices_of(np.array([one.item for one in positives], np.int64))
    known = [one for one, item in zip(positives, items, strict=True) if item >= 0]
    at_ms = np.array([one.at_ms for one in known], np.int64)
    where = np.array([one.location for one in known], np.float64).reshape(len(known), 2)
    batch = context_batch(rows_of([one.before for one in known]), catalog, at_ms, where)
    return Examples(batch, items[items >= 0, None])
