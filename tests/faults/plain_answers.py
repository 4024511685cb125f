"""What the log makes of shown items and what followed, written a second time in the plainest way, for the checker.

An answer is a dict-like object that is changed in place; closing it gives the outcomes that must stand in
outcomes.v1. No catalogue is known here, so no distance is.
"""

import hashlib

from protos.events.v1.impression_pb2 import Impression
from protos.events.v1.interaction_pb2 import Interaction
from protos.events.v1.outcome_pb2 import Outcome
from protos.state.v1.attribution_pb2 import OpenAnswer, Peers, ShownItem, WaitingAct
from tests.faults.plain_log import MINUTE_MS, milliseconds
from tests.faults.plain_user import DISLIKE, bucket_of, deciseconds, duration_of, play_of

MOST_ANSWERS = 128
MOST_WAITING = 32
MOST_INT64 = 2**63 - 1


class Answers:
    """The open answers of one user, and what closing gave."""

    def __init__(self) -> None:
        self.open: dict[str, OpenAnswer] = {}
        self.outcomes: list[Outcome] = []
        self.let_go = 0

    def close_due(self, log_time_ms: int) -> None:
        self._close([answer for answer in self.open.values() if answer.due_at_ms <= log_time_ms])

    def show(self, shown: Impression, plays: list[list[int]], partition: int, offset: int, horizon_ms: int) -> None:
        """A new impression; `plays` are the user's play times by bucket as of now."""
        early = self.open.get(shown.request_id)
        if early is not None and early.HasField("impression"):
            return
        waiting = list(early.waiting) if early is not None else []
        answer = OpenAnswer(
            request_id=shown.request_id,
            due_at_ms=milliseconds(shown.served_at) + horizon_ms,
            impression=first_slots(shown),
            partition=partition,
            offset=offset,
            peers=[Peers(bucket=bucket, play_ds=peers) for bucket, peers in enumerate(plays) if peers],
        )
        for _ in answer.impression.slots:
            answer.shown.append(ShownItem(play_ms=-1, duration_ms=-1, value_micros=-1))
        for act in waiting:
            self._join(answer, act)
        self.open.pop(shown.request_id, None)
        if answer.shown:
            self.open[shown.request_id] = answer
        self._keep_bounds()

    def act(self, event: Interaction, log_time_ms: int) -> None:
        """A new act; only one that names a request matters here."""
        if event.request_id == "":
            return
        following = WaitingAct(
            item_id=event.item_id,
            action=event.action,
            at_ms=milliseconds(event.occurred_at),
            play_ms=play_of(event),
            duration_ms=duration_of(event),
            value_micros=event.value_micros if event.HasField("value_micros") else -1,
            currency=event.currency,
        )
        answer = self.open.get(event.request_id)
        if answer is not None and answer.HasField("impression"):
            self._join(answer, following)
        elif answer is not None and len(answer.waiting) == MOST_WAITING:
            self.let_go += 1
        else:
            if answer is None:
                answer = OpenAnswer(request_id=event.request_id, due_at_ms=log_time_ms + 5 * MINUTE_MS)
                self.open[event.request_id] = answer
            answer.waiting.append(following)
            self._keep_bounds()

    def _join(self, answer: OpenAnswer, act: WaitingAct) -> None:
        items = [slot.item_id for slot in answer.impression.slots]
        if act.at_ms > answer.due_at_ms or act.item_id not in items:
            self.let_go += 1
            return
        one = answer.shown[items.index(act.item_id)]
        one.actions |= 1 << (act.action - 1)
        if act.play_ms >= 0:
            one.play_ms = max(0, one.play_ms) + act.play_ms
        if act.duration_ms != -1:
            one.duration_ms = act.duration_ms
        if act.value_micros != -1 and one.currency in ("", act.currency):
            one.value_micros = min(MOST_INT64, max(0, one.value_micros) + act.value_micros)
            one.currency = act.currency

    def _keep_bounds(self) -> None:
        if len(self.open) > MOST_ANSWERS:
            self._close([min(self.open.values(), key=lambda answer: (answer.due_at_ms, answer.request_id))])

    def _close(self, closing: list[OpenAnswer]) -> None:
        for answer in closing:
            self.outcomes += outcomes_of(answer)
            self.let_go += len(answer.waiting)
            del self.open[answer.request_id]


def first_slots(shown: Impression) -> Impression:
    """What an open answer keeps: of a repeated item the first slot, of the candidates only the shown ones."""
    kept = Impression(
        request_id=shown.request_id,
        user_id=shown.user_id,
        served_at=shown.served_at,
        surface=shown.surface,
        model_version=shown.model_version,
        tokenizer_version=shown.tokenizer_version,
        policy_version=shown.policy_version,
        origin=shown.origin,
    )
    if shown.HasField("feature_cursor"):
        kept.feature_cursor.CopyFrom(shown.feature_cursor)
    if shown.HasField("exploration"):
        kept.exploration.slate_log_prob = shown.exploration.slate_log_prob
    for slot in shown.slots:
        if slot.item_id in [known.item_id for known in kept.slots]:
            continue
        copy = kept.slots.add()
        copy.CopyFrom(slot)
        if slot.candidate_index >= 0:
            candidate = shown.candidates[slot.candidate_index]
            copy.candidate_index = len(kept.candidates)
            kept.candidates.add(codes=candidate.codes, masked_log_probs=candidate.masked_log_probs)
    return kept


def outcomes_of(answer: OpenAnswer) -> list[Outcome]:
    """One for each slot of what was shown; none for acts that waited in vain."""
    if not answer.HasField("impression"):
        return []
    return [outcome_of(answer, place) for place in range(len(answer.shown))]


def outcome_of(answer: OpenAnswer, place: int) -> Outcome:
    shown, slot, one = answer.impression, answer.impression.slots[place], answer.shown[place]
    name = f"{shown.request_id}\x00{slot.item_id}".encode()
    outcome = Outcome(
        outcome_id=hashlib.blake2b(name, digest_size=16).hexdigest(),
        request_id=shown.request_id,
        user_id=shown.user_id,
        item_id=slot.item_id,
        position=slot.position,
        served_at=shown.served_at,
        surface=shown.surface,
        source=slot.source,
        actions=[action for action in range(1, 12) if one.actions >> (action - 1) & 1],
        currency=one.currency,
        disliked=bool(one.actions >> (DISLIKE - 1) & 1),
        duration_bucket=bucket_of(one.duration_ms),
        model_version=shown.model_version,
        tokenizer_version=shown.tokenizer_version,
        policy_version=shown.policy_version,
        explored=shown.HasField("exploration"),
        partition=answer.partition,
        offset=answer.offset,
        origin=shown.origin,
    )
    outcome.closed_at.FromMilliseconds(answer.due_at_ms)
    peers = [play for known in answer.peers if known.bucket == outcome.duration_bucket for play in known.play_ds]
    outcome.peers = len(peers)
    if one.play_ms != -1:
        outcome.play_ms = one.play_ms
        outcome.rank = sum(play <= deciseconds(one.play_ms) for play in peers)
        outcome.ties = sum(play == deciseconds(one.play_ms) for play in peers)
    if one.duration_ms != -1:
        outcome.duration_ms = one.duration_ms
    if one.value_micros != -1:
        outcome.value_micros = one.value_micros
    if slot.candidate_index != -1:
        candidate = shown.candidates[slot.candidate_index]
        outcome.codes.extend(candidate.codes)
        outcome.masked_log_probs.extend(candidate.masked_log_probs)
    if shown.HasField("exploration"):
        outcome.slate_log_prob = shown.exploration.slate_log_prob
    if shown.HasField("feature_cursor"):
        outcome.features.partition = shown.feature_cursor.partition
        outcome.features.offset = shown.feature_cursor.offset
    return outcome
