"""From a quiet platform to a report: wait until all is read, then compare."""

import time

import psycopg

from core.settings import Settings
from tests.faults.checker import Report, compare, missing_from
from tests.faults.crew import Crew
from tests.faults.load import Load
from tests.faults.recompute import Rules, expected_of
from tests.faults.stored import end_offsets, read_counters, read_log, read_stored

PATIENCE_S = 90.0


def wait_until_quiet(settings: Settings, crew: Crew) -> None:
    """All is read, the outbox is empty, and no answer is due any more; who falls on the way is replaced."""
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        ends = end_offsets(settings)
        read = [cursor["next_offset"] for cursor in read_counters(settings)]
        now_ms = time.time_ns() // 1_000_000
        with psycopg.connect(settings.postgres.dsn.get_secret_value()) as connection:
            due = connection.execute("select count(*) from user_attribution where due_at_ms < %s", (now_ms,))
            waiting = [due.fetchone(), connection.execute("select count(*) from stream_outbox").fetchone()]
        if waiting == [(0,), (0,)] and read == ends:
            return
        crew.replace_the_fallen()  # a sleeper that woke and another may have fenced each other
        assert time.monotonic() < deadline_s, f"read {read} of {ends}; due, in the outbox: {waiting}"
        time.sleep(0.3)


def check(settings: Settings, load: Load) -> Report:
    """What the workers, all ended, have made of the log that `load` has filled."""
    log = read_log(settings)
    rules = Rules(
        settings.kafka.activity_partitions,
        settings.streams.horizon_s * 1000,
        settings.streams.location_resolution,
    )
    read_to = [cursor["next_offset"] for cursor in read_counters(settings)]
    expected = expected_of(log, read_to, rules)
    report = compare(expected, read_stored(settings, sorted(expected.users)))
    report.lost.extend(missing_from(log, load.acknowledged))
    return report
