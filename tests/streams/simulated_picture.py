"""What a run of the simulation leaves behind, and what a pass without faults leaves: comparable."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np

from core.topics import OUTCOMES
from feature_repo.folds.act import NoItems
from feature_repo.folds.context import FoldContext
from feature_repo.sums import SUMS
from protos.events.v1.outcome_pb2 import Outcome
from protos.events.v1.rejected_pb2 import Rejected
from streams.driver import Driver
from streams.state_store import MemoryStateStore
from tests.streams.log_maker import HORIZON_MS
from tests.streams.simulated_log import READ, USERS, Topic, topics_of
from tests.streams.simulated_servers import Delivered

_SHORT: Final = 300


class Row(NamedTuple):
    """One stored row, byte for byte."""

    value: bytes
    layout: np.dtype[np.void]


class Picture(NamedTuple):
    """Each part by what it is of."""

    rows: dict[str, Row]  # of users by view, partial sums by partition and entity
    answers: dict[str, Any]  # still open
    cursors: dict[str, Any]
    sent: dict[str, set[Delivered]]  # by id: more than one would be a repeat that differs


def picture_of(store: MemoryStateStore, sent: Iterable[Delivered], topics: Sequence[Topic]) -> Picture:
    """Row ids, epochs and repeats left out."""
    everybody = [user_id for users in USERS for user_id in users]
    features = store.features
    found = features.read_users(everybody)
    rows = {
        f"{user_id} {view}": _row(of_view[place])
        for view, of_view in zip(found._fields, found, strict=True)
        if view != "found"
        for place, user_id in enumerate(everybody)
    }
    for table in SUMS:
        for number in range(READ):
            keys = features.sum_keys(None, table, number)
            sums = features.load_sums(None, table, number, keys)
            rows |= {f"{table.table} {number} {key}": _row(row) for key, row in zip(keys, sums, strict=True)}
    answers = dict(zip(everybody, features.load_answers(None, everybody), strict=True))
    cursors = {
        f"{at.topic_id} {at.number}": cursor._replace(epoch=0)
        for at, cursor in store.cursors.items()
        if at.topic_id in [topic.topic_id for topic in topics]
    }
    by_id: defaultdict[str, set[Delivered]] = defaultdict(set)
    for one in sent:
        by_id[_id_of(one)].add(one)
    return Picture(rows, answers, cursors, dict(by_id))


def difference(found: Picture, expected: Picture) -> str:
    """The first difference in words; empty when there is none."""
    for part in Picture._fields:
        ours, theirs = getattr(found, part), getattr(expected, part)
        for name in [*theirs, *ours]:
            if ours.get(name) != theirs.get(name):
                return f"{part} of {name}: {_differing(ours.get(name), theirs.get(name))}"
    return ""


def _differing(found: Any, expected: Any) -> str:
    if isinstance(found, Row) and isinstance(expected, Row):
        ours, theirs = (np.frombuffer(row.value, row.layout)[0] for row in (found, expected))
        fields = [name for name in found.layout.names or () if ours[name].tobytes() != theirs[name].tobytes()]
        return "; ".join(f"{name}: {_differing(ours[name].tolist(), theirs[name].tolist())}" for name in fields)
    return f"found {_short(found)}, expected {_short(expected)}"


def _row(row: np.void) -> Row:
    return Row(row.tobytes(), row.dtype)


@cache
def expected(seed: int, lives: int) -> Picture:
    """One owner that never fails takes one record at a time, and every produced record is sent once."""
    store = MemoryStateStore()
    context = FoldContext(NoItems(), 1, HORIZON_MS, 9)
    topics = topics_of(seed)[:lives]
    for topic in topics:
        for number, log in enumerate(topic.logs):
            driver = Driver(topic.partition(number), store, lambda: context, cache_users=0)
            for record in log:
                driver.skip_hole(record.offset)
                assert driver.apply([record]) == 1
    sent = [Delivered(one.topic, one.partition, one.key, one.value) for _, one in store.outbox.values()]
    return picture_of(store, sent, topics)


def _id_of(sent: Delivered) -> str:
    if sent.topic == OUTCOMES:
        return f"outcome {Outcome.FromString(sent.value).outcome_id}"
    reject = Rejected.FromString(sent.value)
    return f"reject {sent.partition} {reject.topic} {reject.partition} {reject.offset} {reject.index}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < _SHORT else f"{text[:_SHORT]} ..."
