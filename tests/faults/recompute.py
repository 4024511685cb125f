"""From the raw log to everything that must be stored: the checker's own fold, one entry after the other."""

from collections.abc import Sequence
from typing import NamedTuple

from protos.events.v1.outcome_pb2 import Outcome
from protos.events.v1.rejected_pb2 import Rejected
from protos.state.v1.attribution_pb2 import OpenAnswer
from tests.faults.plain_answers import Answers
from tests.faults.plain_log import Logged, activities_of, id_hash, milliseconds, steps
from tests.faults.plain_sums import Sums
from tests.faults.plain_user import User, is_late

COUNTERS = (
    "next_offset",
    "log_time_ms",
    "records",
    "applied",
    "duplicates",
    "rejected",
    "impressions",
    "outcomes",
    "let_go",
    "late",
    "forgotten",
)
TOPIC = "activity.v1"


class Rules(NamedTuple):
    """The settings that change what the log means."""

    partitions: int
    horizon_ms: int
    resolution: int


class Expected(NamedTuple):
    """What the log says must be stored."""

    users: dict[str, User | None]  # None: forgotten, nothing is kept
    answers: dict[tuple[str, str], OpenAnswer]  # by user and request
    outcomes: dict[str, list[Outcome]]  # by outcome_id; several only where a request stands in the log twice
    rejects: dict[tuple[int, int, int], Rejected]  # by partition, offset, index
    counters: list[dict[str, int]]  # by partition, COUNTERS
    sums: list[Sums]  # by partition
    unread: list[str]  # records with entries that no cursor covers, one line each


def expected_of(log: Sequence[Sequence[Logged]], read_to: Sequence[int], rules: Rules) -> Expected:
    """What must be stored when partition p of `log` was read up to, not including, offset `read_to[p]`."""
    whole = Expected({}, {}, {}, {}, [], [], [])
    for partition, records in enumerate(log):
        covered = [record for record in records if record.offset < read_to[partition]]
        _fold(covered, partition, rules, whole)
        for record in records[len(covered) :]:
            if activities_of(record) != []:
                whole.unread.append(
                    f"partition {partition} offset {record.offset}: not read, cursor {read_to[partition]}"
                )
    return whole


def _fold(records: Sequence[Logged], partition: int, rules: Rules, whole: Expected) -> None:
    counters = dict.fromkeys(COUNTERS, 0)
    sums = Sums(rules.resolution)
    users: dict[str, User | None] = {}
    answers: dict[str, Answers] = {}
    for step in steps(records, partition, rules.partitions):
        counters["next_offset"] = step.offset + 1
        counters["log_time_ms"] = step.log_time_ms
        counters["records"] += 1
        counters["rejected"] += len(step.refused)
        for refused in step.refused:
            message = Rejected(
                topic=TOPIC,
                partition=partition,
                offset=step.offset,
                index=refused.index,
                field=refused.field,
                payload=refused.payload,
            )
            message.recorded_at.FromMilliseconds(step.recorded_ms)
            whole.rejects[partition, step.offset, refused.index] = message
        for user_id, activity in step.entries:
            waiting = answers.setdefault(user_id, Answers())
            waiting.close_due(step.log_time_ms)
            if activity.HasField("forget"):
                counters["forgotten"] += 1
                users[user_id] = None
                waiting.open.clear()
                continue
            user = users.get(user_id)
            if user is None:
                user = users[user_id] = User()
            user.log_partition, user.log_offset = partition, step.offset
            hashed = id_hash(activity)
            if user.seen(hashed):
                user.duplicates += 1
                counters["duplicates"] += 1
                continue
            user.remembered.append(hashed)
            if activity.HasField("impression"):
                shown = activity.impression
                counters["impressions"] += 1
                user.updated_ms = max(user.updated_ms, milliseconds(shown.served_at))
                waiting.show(shown, user.play_ds, partition, step.offset, rules.horizon_ms)
                sums.show(shown)
                continue
            late = is_late(activity, step.recorded_ms)
            counters["applied"] += 1
            counters["late"] += late
            user.apply(activity.interaction, late, rules.resolution)
            waiting.act(activity.interaction, step.log_time_ms)
            sums.act(activity.interaction)
    for user_id, waiting in answers.items():
        waiting.close_due(counters["log_time_ms"])
        counters["let_go"] += waiting.let_go
        counters["outcomes"] += len(waiting.outcomes)
        for outcome in waiting.outcomes:
            known = whole.outcomes.setdefault(outcome.outcome_id, [])
            if outcome not in known:
                known.append(outcome)
        for request_id, answer in waiting.open.items():
            whole.answers[user_id, request_id] = answer
    whole.users.update(users)
    whole.counters.append(counters)
    whole.sums.append(sums)
