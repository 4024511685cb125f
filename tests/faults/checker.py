"""Compares what is stored with what the log says must be stored: every user, answer, outcome, reject, counter and sum.

Whole numbers and texts must be equal, floats within the tolerances of `fields`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from google.protobuf.message import Message

from tests.faults.fields import differing_field, expected_fields, first_difference, stored_fields
from tests.faults.plain_log import Logged
from tests.faults.plain_sums import COUNTS
from tests.faults.recompute import Expected
from tests.faults.stored import Stored


class Report(NamedTuple):
    """What a check found; one line for each finding."""

    users: int
    answers: int  # open ones
    outcomes: int
    repeats: int  # records of outcomes.v1 and rejected.v1 sent again: allowed, consumers recognise them
    rejects: int
    sums: int  # rows of partial sums
    lost: list[str]
    doubled: list[str]
    differing: list[str]

    @property
    def clean(self) -> bool:
        return not (self.lost or self.doubled or self.differing)

    def __str__(self) -> str:
        head = (
            f"{self.users} users, {self.answers} open answers, {self.outcomes} outcomes, {self.rejects} rejects, "
            f"{self.sums} sums compared, {self.repeats} repeats recognised: "
            f"{len(self.lost)} lost, {len(self.doubled)} doubled, {len(self.differing)} differing"
        )
        shown = [f"  lost: {line}" for line in self.lost[:10]]
        shown += [f"  doubled: {line}" for line in self.doubled[:10]]
        shown += [f"  differing: {line}" for line in self.differing[:20]]
        return "\n".join([head, *shown])


def compare(expected: Expected, stored: Stored) -> Report:
    """Every difference between the two."""
    report = Report(
        users=len(expected.users),
        answers=len(expected.answers),
        outcomes=sum(map(len, expected.outcomes.values())),
        repeats=_repeats(stored.outcomes) + _repeats(stored.rejects),
        rejects=len(expected.rejects),
        sums=sum(len(sums.cells) + len(sums.items) for sums in expected.sums),
        lost=list(expected.unread),
        doubled=[],
        differing=[],
    )
    if stored.waiting:
        report.lost.append(f"{stored.waiting} records still wait in the outbox")
    _compare_counters(expected, stored, report)
    _compare_users(expected, stored, report)
    _compare_answers(expected, stored, report)
    _compare_outcomes(expected, stored, report)
    _compare_rejects(expected, stored, report)
    _compare_sums(expected, stored, report)
    return report


def missing_from(log: Sequence[Sequence[Logged]], acknowledged: Mapping[tuple[int, int], bytes | None]) -> list[str]:
    """Acknowledged records (partition, offset) that the log does not hold as they were sent."""
    held = {(partition, record.offset): record.value for partition, records in enumerate(log) for record in records}
    return [
        f"partition {at[0]} offset {at[1]}: acknowledged, not in the log"
        for at, value in acknowledged.items()
        if at not in held or held[at] != value
    ]


def _compare_counters(expected: Expected, stored: Stored, report: Report) -> None:
    if len(expected.counters) != len(stored.counters):
        report.differing.append(f"cursors: found {len(stored.counters)}, expected {len(expected.counters)}")
    for partition, (must, found) in enumerate(zip(expected.counters, stored.counters, strict=False)):
        line = first_difference(found, must)
        if line:
            report.differing.append(f"cursor of partition {partition}: {line}")


def _compare_users(expected: Expected, stored: Stored, report: Report) -> None:
    for at, user_id in enumerate(stored.user_ids):
        must, found = expected.users.get(user_id), bool(stored.users.found[at])
        name = f"user {user_id!r}"
        if must is None:
            if found:
                why = "forgotten" if user_id in expected.users else "not in the log"
                report.differing.append(f"{name}: found a row, expected none ({why})")
            continue
        if not found:
            report.lost.append(f"{name}: found no row, expected {must.applied} acts")
            continue
        row = stored_fields(stored.users, at)
        applied = int(stored.users.history["applied"][at])
        line = first_difference(row, expected_fields(must))
        if applied < must.applied:
            report.lost.append(f"{name}: {must.applied - applied} of {must.applied} acts")
        elif applied > must.applied:
            report.doubled.append(f"{name}: {applied - must.applied} acts more than {must.applied}")
        elif line:
            report.differing.append(f"{name}: {line}")


def _compare_answers(expected: Expected, stored: Stored, report: Report) -> None:
    for key in expected.answers.keys() | stored.answers.keys():
        must, found = expected.answers.get(key), stored.answers.get(key)
        name = f"open answer {key[1]!r} of {key[0]!r}"
        if found is None:
            report.lost.append(name)
        elif must is None:
            report.differing.append(f"{name}: found open, expected closed or forgotten")
        elif found != must:
            report.differing.append(f"{name}: {differing_field(found, must)}")


def _compare_outcomes(expected: Expected, stored: Stored, report: Report) -> None:
    sent: dict[str, list[Any]] = {}
    for outcome in stored.outcomes:
        known = sent.setdefault(outcome.outcome_id, [])
        if outcome not in known:
            known.append(outcome)
    for outcome_id in expected.outcomes.keys() | sent.keys():
        must, found = expected.outcomes.get(outcome_id, []), sent.get(outcome_id, [])
        name = f"outcome {outcome_id}"
        if len(found) < len(must):
            report.lost.append(f"{name} of {must[0].user_id!r}")
        elif not must:
            report.differing.append(f"{name} of {found[0].user_id!r}: sent, expected none")
        elif len(found) > len(must):
            report.doubled.append(f"{name}: sent with {len(found)} different contents")
        else:
            strange = next((one for one in found if one not in must), None)
            if strange is not None:
                report.differing.append(f"{name}: {differing_field(strange, must[0])}")


def _compare_rejects(expected: Expected, stored: Stored, report: Report) -> None:
    sent = {}
    for reject in stored.rejects:
        key = (reject.partition, reject.offset, reject.index)
        if key in sent and sent[key] != reject:
            report.doubled.append(f"reject {key}: sent with two contents")
        sent[key] = reject
    for key in expected.rejects.keys() | sent.keys():
        must, found = expected.rejects.get(key), sent.get(key)
        if found is None:
            report.lost.append(f"reject {key}")
        elif must is None:
            report.differing.append(f"reject {key}: sent for {found.reason!r}, expected none")
        elif not found.reason:
            report.differing.append(f"reject {key}: found no reason, expected one")
        else:
            must.reason = found.reason  # words for people, only their presence is checked
            if found != must:
                report.differing.append(f"reject {key}: {differing_field(found, must)}")


def _compare_sums(expected: Expected, stored: Stored, report: Report) -> None:
    must_cells = {(name, at): cell for at, sums in enumerate(expected.sums) for name, cell in sums.cells.items()}
    must_items = {(name, at): item for at, sums in enumerate(expected.sums) for name, item in sums.items.items()}
    for table, must, found in (
        ("cell_popularity", must_cells, stored.cells),
        ("item_statistics", must_items, stored.items),
    ):
        for key in must.keys() - found.keys():
            report.lost.append(f"{table} {key}: found no row")
        for key in found.keys() - must.keys():
            report.differing.append(f"{table} {key}: found a row, expected none")
    for key in must_cells.keys() & stored.cells.keys():
        cell, row = must_cells[key], stored.cells[key]
        scores = dict(zip(row["item"][: row["length"]].tolist(), row["score"].tolist(), strict=False))
        line = first_difference(
            {"updated_ms": int(row["updated_ms"]), "items": sorted(scores), "score": scores},
            {"updated_ms": cell.updated_ms, "items": sorted(cell.scores), "score": cell.scores},
        )
        if line:
            report.differing.append(f"cell_popularity {key}: {line}")
    for key in must_items.keys() & stored.items.keys():
        item, row = must_items[key], stored.items[key]
        line = first_difference(
            {"updated_ms": int(row["updated_ms"]), "counts": {name: float(row[name]) for name in COUNTS}},
            {"updated_ms": item.updated_ms, "counts": item.counts},
        )
        if line:
            report.differing.append(f"item_statistics {key}: {line}")


def _repeats(records: Sequence[Message]) -> int:
    return len(records) - len({record.SerializeToString(deterministic=True) for record in records})
