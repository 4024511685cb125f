"""The checker finds what it is there for: every altered field, every lost or doubled effect. No servers."""

import copy
from collections.abc import Iterator

import numpy as np
import pytest

from core.frames import encode_frame
from feature_repo.folds import attribution
from feature_repo.folds.act import NoItems
from feature_repo.folds.context import FoldContext
from feature_repo.layouts import USER
from feature_repo.sums import CELL_SUMS, ITEM_SUMS, Sum
from protos.events.v1.activity_pb2 import Activity, Forget
from protos.events.v1.outcome_pb2 import Outcome
from protos.events.v1.rejected_pb2 import Rejected
from protos.state.v1.attribution_pb2 import OpenAnswer
from streams.cursor import Partition, Record
from streams.driver import Driver
from streams.state_store import MemoryStateStore
from tests.faults.checker import Report, compare, missing_from
from tests.faults.plain_log import Logged, partition_of
from tests.faults.recompute import COUNTERS, TOPIC, Expected, Rules, expected_of
from tests.faults.stored import Stored
from tests.faults.traffic import Traffic

RULES = Rules(partitions=2, horizon_ms=3_000, resolution=9)
CONTEXT = FoldContext(NoItems(), 0, RULES.horizon_ms, RULES.resolution)
START_MS = 1_795_007_200_000  # a Wednesday: working hours in London, night in Sydney
FORGOTTEN = "user-5"
TICKS, TICK_MS, ENTRIES = 400, 250, 12


def log_of(seed: int) -> list[list[Logged]]:
    """Some minutes of traffic, by partition; at its end a user is forgotten."""
    traffic = Traffic(seed, users=60, partitions=RULES.partitions, horizon_ms=RULES.horizon_ms)
    log: list[list[Logged]] = [[] for _ in range(RULES.partitions)]
    for tick in range(TICKS):
        for partition, value, timestamp_ms in traffic.records(ENTRIES, START_MS + tick * TICK_MS):
            log[partition].append(Logged(len(log[partition]), timestamp_ms, value))
    forget = Forget(user_id=FORGOTTEN)
    forget.requested_at.FromMilliseconds(START_MS)
    last = log[partition_of(FORGOTTEN, RULES.partitions)]
    last.append(Logged(len(last), START_MS + TICKS * TICK_MS, encode_frame([Activity(forget=forget)])))
    return log


def stored_of(log: list[list[Logged]], user_ids: list[str]) -> Stored:
    """What the platform makes of the log, in memory."""
    store = MemoryStateStore()
    counters = []
    for number, records in enumerate(log):
        partition = Partition("tests", TOPIC, "topic-id", number, RULES.partitions)
        driver = Driver(partition, store, lambda: CONTEXT, cache_users=10)
        driver.apply([Record(*record) for record in records])
        counters.append({name: getattr(driver.cursor, name) for name in COUNTERS})
    produced = [record for _, record in store.outbox.values()]
    return Stored(
        counters,
        user_ids,
        store.features.read_users(user_ids),
        {
            (user_id, answer.request_id): OpenAnswer.FromString(attribution.pack(answer))
            for user_id, state in zip(user_ids, store.answers(user_ids), strict=True)
            for answer in state.answers.values()
        },
        dict(_sums(store, CELL_SUMS)),
        dict(_sums(store, ITEM_SUMS)),
        [Outcome.FromString(record.value) for record in produced if record.topic == "outcomes.v1"],
        [Rejected.FromString(record.value) for record in produced if record.topic == "rejected.v1"],
        0,
    )


def _sums(store: MemoryStateStore, table: Sum) -> Iterator[tuple[tuple[str, int], np.void]]:
    for number in range(RULES.partitions):
        keys = store.features.sum_keys(None, table, number)
        for key, row in zip(keys, store.sums(table, number, keys), strict=True):
            yield (key, number), row


@pytest.fixture(scope="module")
def expected() -> Expected:
    log = log_of(1)
    return expected_of(log, [len(records) for records in log], RULES)


@pytest.fixture(scope="module")
def untouched(expected: Expected) -> Stored:
    return stored_of(log_of(1), sorted(expected.users))


@pytest.fixture
def stored(untouched: Stored) -> Stored:
    """To be altered."""
    return copy.deepcopy(untouched)


def findings(report: Report) -> list[str]:
    return [*report.lost, *report.doubled, *report.differing]


@pytest.mark.parametrize("seed", range(2, 6))
def test_what_the_folds_make_of_a_log_is_what_the_plain_rules_make_of_it(seed: int) -> None:
    log = log_of(seed)
    expected = expected_of(log, [len(records) for records in log], RULES)
    report = compare(expected, stored_of(log, sorted(expected.users)))
    assert report.clean, report


def test_the_traffic_of_these_tests_has_everything_in_it(expected: Expected) -> None:
    totals = {name: sum(counters[name] for counters in expected.counters) for name in COUNTERS}
    assert min(totals.values()) > 5, totals
    assert len(expected.answers) > 20
    assert expected.users[FORGOTTEN] is None
    assert any(user and user.places.home_cell for user in expected.users.values())
    assert any(user and user.places.work_cell for user in expected.users.values())
    assert any(user and len(user.exposures) == 50 for user in expected.users.values())


def test_a_changed_field_of_any_row_is_found(expected: Expected, untouched: Stored) -> None:
    """Every field of the stored record, in the user who did most."""
    busiest = int(untouched.users.history["applied"].argmax())
    for part in USER.names or ():
        for field in USER[part].names or ():
            stored = untouched._replace(users=copy.deepcopy(untouched.users))
            values = getattr(stored.users, part)[busiest : busiest + 1][field].reshape(-1)
            values[0] = values[0] - 1 if values[0] and values.dtype.kind != "f" else values[0] + 20
            report = compare(expected, stored)
            assert len(findings(report)) == 1, f"{part}.{field}: {report}"
            assert stored.user_ids[busiest] in findings(report)[0]


@pytest.mark.parametrize(("change", "kind"), [(1, "doubled"), (-1, "lost")])
def test_an_act_more_or_less_is_doubled_or_lost(expected: Expected, stored: Stored, change: int, kind: str) -> None:
    applied = stored.users.history["applied"]
    applied[applied.argmax()] = int(applied.max()) + change
    report = compare(expected, stored)
    assert len(getattr(report, kind)) == len(findings(report)) == 1


def test_a_row_that_is_missing_is_lost(expected: Expected, stored: Stored) -> None:
    stored.users.found[int(stored.users.found.argmax())] = False
    assert len(compare(expected, stored).lost) == 1


def test_a_row_of_somebody_forgotten_is_found(expected: Expected, stored: Stored) -> None:
    stored.users.found[stored.user_ids.index(FORGOTTEN)] = True
    assert "forgotten" in compare(expected, stored).differing[0]


def test_a_changed_field_of_an_outcome_is_found(expected: Expected, untouched: Stored) -> None:
    for field in Outcome.DESCRIPTOR.fields:
        outcomes = list(untouched.outcomes)
        # Distances need a catalogue: here one appears, of everything else one goes.
        place = next((at for at, one in enumerate(outcomes) if field.name in _set_fields(one)), 0)
        outcomes[place] = copy.deepcopy(outcomes[place])
        if field.name == "distance_m":
            outcomes[place].distance_m = 5.0
        else:
            outcomes[place].ClearField(field.name)
        report = compare(expected, untouched._replace(outcomes=outcomes))
        assert not report.clean, field.name
        if field.name != "outcome_id":
            assert field.name in report.differing[0]


def test_an_outcome_that_did_not_arrive_is_lost(expected: Expected, stored: Stored) -> None:
    gone = stored.outcomes.pop()
    assert gone.outcome_id in compare(expected, stored).lost[0]


def test_an_outcome_sent_again_is_recognised(expected: Expected, stored: Stored) -> None:
    stored.outcomes.append(stored.outcomes[0])
    report = compare(expected, stored)
    assert report.clean
    assert report.repeats == 1


def test_an_outcome_sent_with_other_contents_is_doubled(expected: Expected, stored: Stored) -> None:
    other = copy.deepcopy(stored.outcomes[0])
    other.play_ms += 1
    stored.outcomes.append(other)
    assert other.outcome_id in compare(expected, stored).doubled[0]


def test_an_outcome_that_nothing_asked_for_is_found(expected: Expected, stored: Stored) -> None:
    stored.outcomes.append(Outcome(outcome_id="strange", user_id="user-1"))
    assert "strange" in compare(expected, stored).differing[0]


def test_rejects_lost_changed_without_a_reason_or_uncalled_for_are_found(expected: Expected, stored: Stored) -> None:
    lost, changed, silent = stored.rejects[:3]
    stored.rejects.remove(lost)
    changed.payload += b"x"
    silent.reason = ""
    stored.rejects.append(Rejected(topic=TOPIC, partition=1, offset=10**6, reason="none"))
    report = compare(expected, stored)
    assert len(report.lost) == 1
    assert len(report.differing) == 3


def test_open_answers_lost_changed_or_left_are_found(expected: Expected, stored: Stored) -> None:
    lost, changed = list(stored.answers)[:2]
    left = OpenAnswer(request_id="left")
    del stored.answers[lost]
    stored.answers[changed].due_at_ms += 1
    stored.answers["user-1", "left"] = left
    report = compare(expected, stored)
    assert lost[1] in report.lost[0]
    assert len(report.differing) == 2


@pytest.mark.parametrize("counter", COUNTERS)
def test_a_changed_counter_is_found(expected: Expected, stored: Stored, counter: str) -> None:
    stored.counters[1][counter] += 1
    assert f"partition 1: {counter}" in compare(expected, stored).differing[0]


def test_sums_lost_changed_or_uncalled_for_are_found(expected: Expected, stored: Stored) -> None:
    for sums, field in ((stored.cells, "score"), (stored.items, "plays")):
        lost, changed = [key for key, row in sums.items() if np.all(row[field].reshape(-1)[:1] > 1.0)][:2]
        row = sums[changed].copy()
        row[field] = row[field] * np.float32(1.01)
        sums[changed] = row
        sums["strange", 0] = sums.pop(lost)
    report = compare(expected, stored)
    assert len(report.lost) == 2
    assert len(report.differing) == 4


def test_records_behind_the_cursor_are_lost_unless_they_are_heartbeats(expected: Expected, stored: Stored) -> None:
    log = log_of(1)
    read = [len(records) for records in log]
    assert expected_of(log, [read[0] - 1, read[1]], RULES).unread != []
    log[0].append(Logged(read[0], START_MS, log[0][0].value and b"\x08\x01"))
    report = compare(expected_of(log, read, RULES), stored)
    assert report.clean, report


def test_what_waits_in_the_outbox_is_lost(expected: Expected, stored: Stored) -> None:
    assert len(compare(expected, stored._replace(waiting=3)).lost) == 1


def test_an_acknowledged_record_that_the_log_does_not_hold_is_lost() -> None:
    log = [[Logged(0, START_MS, b"a")], [Logged(0, START_MS, b"b")]]
    held: dict[tuple[int, int], bytes | None] = {(0, 0): b"a", (1, 0): b"b"}
    assert missing_from(log, held) == []
    assert len(missing_from(log, {**held, (1, 0): b"other", (1, 1): b"b"})) == 2


def _set_fields(message: Outcome) -> list[str]:
    return [field.name for field, _ in message.ListFields()]
