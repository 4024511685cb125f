"""attribution: shown items and what followed, as outcomes.

An answer waits from its impression until the partition's log time reaches served_at + horizon. Acts
that name its request join the slot of their item; then every slot becomes one outcome, acted on or
not. An act may also stand in the log before its impression: it waits for EARLY_ACT_MS of log time.

The user's plays as they stood at the impression's place in the log are kept with the answer, so the
play-time rank in an outcome looks neither forward nor anything up.

Closing is judged by log time before a record is applied, so an outcome does not depend on when or how
often a worker sweeps. What does not become part of an outcome is named in `let_go`, one reason each.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from core.geo import distance_m
from core.ids import item_key, outcome_id
from feature_repo.folds.act import ABSENT, Act, ItemLookup
from feature_repo.folds.context import FoldContext, Record
from feature_repo.folds.entries import served_ms
from feature_repo.folds.watch import NO_PLAYS, Plays, bucket_of, rank
from protos.events.v1.impression_pb2 import Impression
from protos.events.v1.interaction_pb2 import Action
from protos.events.v1.outcome_pb2 import Outcome
from protos.state.v1.attribution_pb2 import OpenAnswer, Peers, ShownItem
from protos.state.v1.attribution_pb2 import WaitingAct as WaitingActMessage

EARLY_ACT_MS: Final = 5 * 60 * 1000  # the scorer logs within seconds; minutes cover a broker's outage
MAX_ANSWERS: Final = 128  # open answers of one user; a person asks far less often within a horizon
MAX_EARLY_ACTS: Final = 32  # acts that wait for one answer

NEVER_SHOWN: Final = "no_impression"  # the impression did not come in time, or had closed already
TOO_MANY: Final = "too_many"  # MAX_ANSWERS or MAX_EARLY_ACTS
NOT_IN_SLATE: Final = "not_in_slate"  # the answer showed other items
TOO_LATE: Final = "after_horizon"  # occurred after served_at + horizon
REASONS: Final = (NEVER_SHOWN, TOO_MANY, NOT_IN_SLATE, TOO_LATE)

_VALUE_MOST: Final = 2**63 - 1  # what an outcome's value can hold


class Following(NamedTuple):
    """The part of an act that an outcome takes in."""

    item_id: str
    action: int
    at_ms: int
    play_ms: int
    duration_ms: int
    value_micros: int
    currency: str


class Shown(NamedTuple):
    """One slot and what followed so far."""

    item_id: str
    actions: int = 0  # bit (Action - 1) set for each kind of act
    play_ms: int = ABSENT
    duration_ms: int = ABSENT
    value_micros: int = ABSENT
    currency: str = ""
    distance_m: float = math.nan


class Answer(NamedTuple):
    """One open answer; its messages are never changed once they are here."""

    request_id: str
    due_ms: int
    impression: Impression | None = None  # None = not shown yet
    partition: int = 0
    offset: int = 0
    shown: tuple[Shown, ...] = ()
    plays: Plays = NO_PLAYS
    waiting: tuple[Following, ...] = ()


class AttributionState(NamedTuple):
    """A user's open answers by request id; the mapping is replaced, never written."""

    answers: Mapping[str, Answer]


class Folded(NamedTuple):
    """What one step gives."""

    state: AttributionState
    outcomes: tuple[Outcome, ...] = ()
    let_go: tuple[str, ...] = ()  # REASONS, one per act that no outcome will hold


class Changes(NamedTuple):
    """The difference between two states, as rows."""

    put: list[Answer]
    removed: list[str]  # request ids


EMPTY: Final = AttributionState({})


def show(state: AttributionState, impression: Impression, plays: Plays, record: Record, context: FoldContext) -> Folded:
    """The state after a new `impression`; acts that waited for it join. Of a repeated item the first slot counts."""
    request_id = impression.request_id
    due_ms = served_ms(impression) + context.horizon_ms
    early = state.answers.get(request_id)
    if early is not None and early.impression is not None:
        return Folded(state)
    kept = _trimmed(impression)
    shown = tuple(_shown(slot.item_id, impression, context.items) for slot in kept.slots)
    answer = Answer(request_id, due_ms, kept, record.partition, record.offset, shown, plays)
    let_go: list[str] = []
    for act in early.waiting if early is not None else ():
        joined = _joined(answer, act)
        if isinstance(joined, str):
            let_go.append(joined)
        else:
            answer = joined
    answers = {**state.answers, request_id: answer} if shown else _without(state.answers, request_id)
    bounded = _bounded(answers)
    return bounded._replace(let_go=(*let_go, *bounded.let_go))


def act(state: AttributionState, done: Act, record: Record) -> Folded:
    """The state after an act; unchanged when the act names no request."""
    request_id = done.request_id
    if not request_id:
        return Folded(state)
    following = Following(
        done.item_id, done.action, done.at_ms, done.play_ms, done.duration_ms, done.value_micros, done.currency
    )
    answer = state.answers.get(request_id)
    if answer is None:
        answer = Answer(request_id, record.log_time_ms + EARLY_ACT_MS)
    if answer.impression is None:
        if len(answer.waiting) == MAX_EARLY_ACTS:
            return Folded(state, let_go=(TOO_MANY,))
        answer = answer._replace(waiting=(*answer.waiting, following))
        return _bounded({**state.answers, request_id: answer})
    joined = _joined(answer, following)
    if isinstance(joined, str):
        return Folded(state, let_go=(joined,))
    return Folded(AttributionState({**state.answers, request_id: joined}))


def close_due(state: AttributionState, log_time_ms: int) -> Folded:
    """The state without what is due at `log_time_ms`, and the outcomes of what was shown, by due time."""
    due = [answer for answer in state.answers.values() if answer.due_ms <= log_time_ms]
    return _closed(state.answers, due) if due else Folded(state)


def changes(before: AttributionState, after: AttributionState) -> Changes:
    """Which answers must be written and which removed to get from `before` to `after`."""
    if before is after:
        return Changes([], [])
    put = [answer for request_id, answer in after.answers.items() if before.answers.get(request_id) is not answer]
    return Changes(put, [request_id for request_id in before.answers if request_id not in after.answers])


def pack(answer: Answer) -> bytes:
    """The stored form of one open answer."""
    return OpenAnswer(
        request_id=answer.request_id,
        due_at_ms=answer.due_ms,
        impression=answer.impression,
        partition=answer.partition,
        offset=answer.offset,
        shown=[
            ShownItem(
                actions=one.actions,
                play_ms=one.play_ms,
                duration_ms=one.duration_ms,
                value_micros=one.value_micros,
                currency=one.currency,
                distance_m=None if math.isnan(one.distance_m) else one.distance_m,
            )
            for one in answer.shown
        ],
        peers=[Peers(bucket=bucket, play_ds=peers) for bucket, peers in enumerate(answer.plays) if peers],
        waiting=[WaitingActMessage(**one._asdict()) for one in answer.waiting],
    ).SerializeToString()


def unpack(rows: Sequence[bytes]) -> AttributionState:
    """The state whose open answers `rows` hold."""
    if not rows:
        return EMPTY
    answers = [_answer(OpenAnswer.FromString(row)) for row in rows]
    return AttributionState({answer.request_id: answer for answer in answers})


def _answer(row: OpenAnswer) -> Answer:
    impression = row.impression if row.HasField("impression") else None
    peers: list[tuple[int, ...]] = list(NO_PLAYS)
    for one in row.peers:
        peers[one.bucket] = tuple(one.play_ds)
    return Answer(
        row.request_id,
        row.due_at_ms,
        impression,
        row.partition,
        row.offset,
        tuple(
            Shown(
                slot.item_id,
                one.actions,
                one.play_ms,
                one.duration_ms,
                one.value_micros,
                one.currency,
                one.distance_m if one.HasField("distance_m") else math.nan,
            )
            for slot, one in zip(row.impression.slots, row.shown, strict=True)
        ),
        tuple(peers),
        tuple(
            Following(one.item_id, one.action, one.at_ms, one.play_ms, one.duration_ms, one.value_micros, one.currency)
            for one in row.waiting
        ),
    )


def _trimmed(impression: Impression) -> Impression:
    """What outcomes need of an impression: each item's first slot, and of the candidates only those shown."""
    kept = Impression(
        request_id=impression.request_id,
        user_id=impression.user_id,
        served_at=impression.served_at,
        surface=impression.surface,
        model_version=impression.model_version,
        tokenizer_version=impression.tokenizer_version,
        policy_version=impression.policy_version,
        origin=impression.origin,
    )
    if impression.HasField("feature_cursor"):
        kept.feature_cursor.CopyFrom(impression.feature_cursor)
    if impression.HasField("exploration"):
        kept.exploration.slate_log_prob = impression.exploration.slate_log_prob
    items: set[str] = set()
    for slot in impression.slots:
        if slot.item_id in items:
            continue
        items.add(slot.item_id)
        copy = kept.slots.add(item_id=slot.item_id, position=slot.position, source=slot.source, candidate_index=ABSENT)
        if 0 <= slot.candidate_index < len(impression.candidates):
            candidate = impression.candidates[slot.candidate_index]
            copy.candidate_index = len(kept.candidates)
            kept.candidates.add(codes=candidate.codes, masked_log_probs=candidate.masked_log_probs)
    return kept


def _shown(item_id: str, impression: Impression, items: ItemLookup) -> Shown:
    key = item_key(item_id)
    away_m = math.nan
    if impression.HasField("location"):
        place = items.location(key)
        if place is not None:
            away_m = distance_m(impression.location.latitude, impression.location.longitude, *place)
    return Shown(item_id, duration_ms=items.duration_ms(key), distance_m=away_m)


def _joined(answer: Answer, done: Following) -> Answer | str:
    """The answer with one more act in its slot, or the reason why it cannot join."""
    if done.at_ms > answer.due_ms:
        return TOO_LATE
    place = next((place for place, one in enumerate(answer.shown) if one.item_id == done.item_id), -1)
    if place < 0:
        return NOT_IN_SLATE
    one = answer.shown[place]
    value_micros, currency = one.value_micros, one.currency
    if done.value_micros != ABSENT and currency in ("", done.currency):  # one currency: that of the first order
        value_micros, currency = min(_VALUE_MOST, max(0, value_micros) + done.value_micros), done.currency
    changed = Shown(
        one.item_id,
        one.actions | 1 << (done.action - 1),
        one.play_ms if done.play_ms == ABSENT else max(0, one.play_ms) + done.play_ms,
        one.duration_ms if done.duration_ms == ABSENT else done.duration_ms,
        value_micros,
        currency,
        one.distance_m,
    )
    return answer._replace(shown=(*answer.shown[:place], changed, *answer.shown[place + 1 :]))


def _bounded(answers: Mapping[str, Answer]) -> Folded:
    """Beyond MAX_ANSWERS the answer due next closes early: its acts so far are its outcome."""
    if len(answers) <= MAX_ANSWERS:
        return Folded(AttributionState(answers))
    return _closed(answers, [min(answers.values(), key=_by_due)], TOO_MANY)


def _closed(answers: Mapping[str, Answer], closing: list[Answer], reason: str = NEVER_SHOWN) -> Folded:
    gone = {answer.request_id for answer in closing}
    outcomes: list[Outcome] = []
    let_go = 0
    for answer in sorted(closing, key=_by_due):
        outcomes += _outcomes(answer)
        let_go += len(answer.waiting)
    left = {request_id: answer for request_id, answer in answers.items() if request_id not in gone}
    return Folded(AttributionState(left), tuple(outcomes), (reason,) * let_go)


def _without(answers: Mapping[str, Answer], request_id: str) -> Mapping[str, Answer]:
    return {known: answer for known, answer in answers.items() if known != request_id}


def _by_due(answer: Answer) -> tuple[int, str]:
    return answer.due_ms, answer.request_id


def _outcomes(answer: Answer) -> list[Outcome]:
    """One outcome per slot of a shown answer."""
    impression = answer.impression
    if impression is None:
        return []
    made = []
    for slot, one in zip(impression.slots, answer.shown, strict=True):
        bucket = bucket_of(one.duration_ms)
        peers = rank(answer.plays, bucket, one.play_ms)
        outcome = Outcome(
            outcome_id=outcome_id(answer.request_id, one.item_id),
            request_id=answer.request_id,
            user_id=impression.user_id,
            item_id=one.item_id,
            position=slot.position,
            served_at=impression.served_at,
            surface=impression.surface,
            source=slot.source,
            actions=[action for action in Action.values() if action and one.actions >> (action - 1) & 1],
            currency=one.currency,
            disliked=bool(one.actions >> (Action.ACTION_DISLIKE - 1) & 1),
            duration_bucket=bucket,
            peers=peers.peers,
            model_version=impression.model_version,
            tokenizer_version=impression.tokenizer_version,
            policy_version=impression.policy_version,
            explored=impression.HasField("exploration"),
            partition=answer.partition,
            offset=answer.offset,
            origin=impression.origin,
        )
        outcome.closed_at.FromMilliseconds(answer.due_ms)
        if one.play_ms != ABSENT:
            outcome.play_ms, outcome.rank, outcome.ties = one.play_ms, peers.rank, peers.ties
        if one.duration_ms != ABSENT:
            outcome.duration_ms = one.duration_ms
        if one.value_micros != ABSENT:
            outcome.value_micros = one.value_micros
        if not math.isnan(one.distance_m):
            outcome.distance_m = one.distance_m
        if slot.candidate_index != ABSENT:
            candidate = impression.candidates[slot.candidate_index]
            outcome.codes.extend(candidate.codes)
            outcome.masked_log_probs.extend(candidate.masked_log_probs)
        if impression.HasField("exploration"):
            outcome.slate_log_prob = impression.exploration.slate_log_prob
        if impression.HasField("feature_cursor"):
            outcome.features.partition = impression.feature_cursor.partition
            outcome.features.offset = impression.feature_cursor.offset
        made.append(outcome)
    return made
