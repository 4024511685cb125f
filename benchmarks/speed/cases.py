"""What is measured: each case gives its rows.

Cases that compare run every system; growth, memory and reads are about this project's worker and store.
"""

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from benchmarks.speed.freshness import Freshness, freshness
from benchmarks.speed.ground import Ground
from benchmarks.speed.load import FRAME_EVENTS, Backlog, even_backlog, user_name, zipf_backlog
from benchmarks.speed.rows import Row
from benchmarks.speed.systems import SYSTEMS, Running, System
from benchmarks.speed.window import Window, measured, wait_until
from core.errors import NearfeedError, NotReady
from feature_repo.store import AsyncPackedReader

PARTITIONS: Final = 4
OURS: Final = SYSTEMS[0]

_SEED: Final = 4
_READ_USERS: Final = 32
_READS: Final = 2_000
_WARM_USERS: Final = 40_000  # transactions as large as they get


class Plan(NamedTuple):
    """What the caller chose."""

    ground: Ground
    systems: Sequence[System]
    events: int  # of a run with full frames and one worker
    users: int
    repeats: int
    steady_s: float  # how long the steady load runs
    rate: float | None  # events/s of the steady load; None = half of what this project's worker carries
    now_ms: int  # every log ends here
    logs: Path
    say: Callable[[str], None]


def frames(plan: Plan) -> list[Row]:
    """Full frames, one worker: the main case."""
    return _compared(plan, "frames", plan.systems, _backlog(plan))


def single(plan: Plan) -> list[Row]:
    """Frames of one event: what a record costs."""
    return _compared(plan, "single", plan.systems, _backlog(plan, events=plan.events // 8, frame_events=1))


def workers(plan: Plan) -> list[Row]:
    """Two workers share the partitions."""
    return _compared(plan, "workers", plan.systems, _backlog(plan, events=2 * plan.events), workers=2)


def users(plan: Plan) -> list[Row]:
    """The same number of events, of more and more users."""
    counts = (plan.users // 100, plan.users // 10, plan.users)
    return [
        row
        for count in counts
        for row in _compared(plan, "users", (OURS,), _backlog(plan, events=plan.events // 2, users=count))
    ]


def partitions(plan: Plan) -> list[Row]:
    """The same events in more and more partitions, one worker."""
    counts = (1, PARTITIONS, 4 * PARTITIONS)
    return [
        row
        for count in counts
        for row in _compared(plan, "partitions", (OURS,), _backlog(plan, events=plan.events // 2, partitions=count))
    ]


def memory(plan: Plan) -> list[Row]:
    """What the cached states of 100,000 users add to a worker that has already compiled and filled its buffers."""
    everybody = np.arange(_WARM_USERS + plan.users)
    warm = even_backlog(_SEED, everybody[:_WARM_USERS], times=2, partitions=PARTITIONS, end_ms=plan.now_ms)
    rest = even_backlog(_SEED + 1, everybody[_WARM_USERS:], times=2, partitions=PARTITIONS, end_ms=plan.now_ms)
    ground, row = plan.ground, _row(plan, "memory", OURS, warm)._replace(users=plan.users)
    ground.lay_out(PARTITIONS)
    ground.produce(warm.frames)
    settings = ground.fresh_run(cache_users=len(everybody))
    group, total = settings.streams.group, len(warm.frames) + len(rest.frames)
    plan.say("memory")
    with Running(OURS, settings, 1, plan.logs) as running:
        wait_until(ground, group, running, lambda now: now.records >= len(warm.frames))
        before = running.memory_bytes()
        ground.produce(rest.frames)
        wait_until(ground, group, running, lambda now: now.records >= total)
        added = running.memory_bytes() - before
    return [row._replace(memory_mb=added / 1e6 * 100_000 / plan.users, events=rest.events, repeats=1)]


def fresh(plan: Plan) -> list[Row]:
    """Freshness under a steady load, for every system at the same rate: half of what this project's worker carries,
    unless the plan names one."""
    backlog = _backlog(plan)
    seen: dict[str, list[Freshness]] = {system.name: [] for system in plan.systems}
    notes = {system.name: system.absent() for system in plan.systems}
    rate = plan.rate or 0.0
    for turn in range(plan.repeats):
        for system in plan.systems:
            if notes[system.name]:
                continue
            plan.say(f"fresh: {system.name}, {turn + 1} of {plan.repeats}")
            try:
                rate, found = _fresh_run(plan, system, backlog, rate)
                seen[system.name].append(found)
            except NearfeedError as error:
                notes[system.name] = f"not valid: {error}"
    rows = [_row(plan, "fresh", system, backlog) for system in plan.systems]
    return [
        row._replace(note=notes[row.system], repeats=0)
        if notes[row.system]
        else _with_freshness(row, seen[row.system], rate)
        for row in rows
    ]


def reads(plan: Plan) -> list[Row]:
    """The scorer's read of 32 users, drawn evenly from those stored: after a run, with nothing else at work."""
    backlog = _backlog(plan)
    _fill(plan, backlog)
    _measure(plan, OURS, backlog, 1)
    drawn = np.random.default_rng(_SEED).integers(0, plan.users, (_READS, _READ_USERS)).tolist()

    async def read() -> list[float]:
        reader = AsyncPackedReader(plan.ground.settings.postgres, "bench-reader", connections=1)
        took_ms = []
        try:
            for numbers in drawn:
                asked = [user_name(number) for number in numbers]
                since = time.perf_counter()
                await reader.read_users(asked)
                took_ms.append(1000.0 * (time.perf_counter() - since))
        finally:
            await reader.close()
        return took_ms[_READS // 10 :]  # the first connect, and warm what is cached

    p50, p99 = np.percentile(asyncio.run(read()), (50, 99)).tolist()
    row = _row(plan, "reads", OURS, backlog)
    return [row._replace(read_p50_ms=p50, read_p99_ms=p99, events=None, repeats=1, workers=0)]


CASES: Final[dict[str, Callable[[Plan], list[Row]]]] = {
    case.__name__: case for case in (frames, single, workers, users, partitions, memory, fresh, reads)
}


def _compared(plan: Plan, case: str, systems: Sequence[System], backlog: Backlog, workers: int = 1) -> list[Row]:
    """One row a system: all of them read the same log, in turns, `plan.repeats` times."""
    _fill(plan, backlog)
    windows: dict[str, list[Window]] = {system.name: [] for system in systems}
    notes = {system.name: system.absent() for system in systems}
    for turn in range(plan.repeats):
        for system in systems:
            if notes[system.name]:
                continue
            plan.say(f"{case}: {system.name}, {turn + 1} of {plan.repeats}")
            try:
                windows[system.name].append(_measured_again(plan, system, backlog, workers))
            except NearfeedError as error:
                notes[system.name] = f"not valid: {error}"
    rows = [_row(plan, case, system, backlog)._replace(workers=workers) for system in systems]
    return [
        row._replace(note=notes[row.system], repeats=0)
        if notes[row.system]
        else _with_windows(row, windows[row.system])
        for row in rows
    ]


def _measured_again(plan: Plan, system: System, backlog: Backlog, workers: int) -> Window:
    """A process may end itself, to be started again by its supervisor; a run in which one did is made once more."""
    try:
        return _measure(plan, system, backlog, workers)
    except NotReady as error:
        plan.say(f"once more: {error}")
        return _measure(plan, system, backlog, workers)


def _measure(plan: Plan, system: System, backlog: Backlog, workers: int) -> Window:
    settings = plan.ground.fresh_run()
    with Running(system, settings, workers, plan.logs) as running:
        return _window(plan, settings.streams.group, running, backlog, workers)


def _window(plan: Plan, group: str, running: Running, backlog: Backlog, workers: int) -> Window:
    records, events = len(backlog.frames), backlog.events
    return measured(plan.ground, group, running, records=records, events=events, workers=workers)


def _fresh_run(plan: Plan, system: System, backlog: Backlog, rate: float) -> tuple[float, Freshness]:
    """The rate of the load, half of this run's own capacity where none is given yet, and what was seen under it."""
    _fill(plan, backlog)  # the steady load goes into the same topic, so each run has its own
    settings = plan.ground.fresh_run()
    with Running(system, settings, 1, plan.logs) as running:
        capacity = _window(plan, settings.streams.group, running, backlog, 1).events_per_s
        rate = rate or capacity / 2
        more = zipf_backlog(
            _SEED + 1,
            events=int(rate * plan.steady_s),
            users=plan.users,
            partitions=PARTITIONS,
            end_ms=plan.now_ms + int(plan.steady_s * 1000),
            span_ms=int(plan.steady_s * 1000),
        )
        return rate, freshness(plan.ground, running, more.frames, rate)


def _with_freshness(row: Row, seen: Sequence[Freshness], rate: float) -> Row:
    feast = [np.percentile(found.feast_ms, (50, 99)).tolist() for found in seen]
    store = [np.percentile(found.store_ms, (50, 99)).tolist() for found in seen]
    p99s = [p99 for _, p99 in feast]
    return row._replace(
        freshness_p50_ms=statistics.median(p50 for p50, _ in feast),
        freshness_p99_ms=statistics.median(p99s),
        freshness_store_p50_ms=statistics.median(p50 for p50, _ in store),
        freshness_store_p99_ms=statistics.median(p99 for _, p99 in store),
        repeats=len(seen),
        note=f"at {rate:,.0f} events/s; p99 {min(p99s):,.0f}-{max(p99s):,.0f} ms",
    )


def _backlog(
    plan: Plan,
    *,
    events: int | None = None,
    users: int | None = None,
    partitions: int = PARTITIONS,
    frame_events: int = FRAME_EVENTS,
) -> Backlog:
    return zipf_backlog(
        _SEED,
        events=events or plan.events,
        users=users or plan.users,
        partitions=partitions,
        end_ms=plan.now_ms,
        frame_events=frame_events,
    )


def _fill(plan: Plan, backlog: Backlog) -> None:
    plan.ground.lay_out(backlog.partitions)
    plan.ground.produce(backlog.frames)


def _row(plan: Plan, case: str, system: System, backlog: Backlog) -> Row:
    command = f"make bench BENCH='--case {case} --system {system.name}'"
    empty = Row(case, system.name, 1, None, None, None, None, command)
    return empty._replace(users=backlog.users, partitions=backlog.partitions)


def _with_windows(row: Row, windows: Sequence[Window]) -> Row:
    rates = [window.events_per_s for window in windows]
    costs = [window.cpu_us_per_event for window in windows]
    return row._replace(
        events_per_s=statistics.median(rates),
        cpu_us_per_event=statistics.median(costs),
        events=windows[0].events,
        repeats=len(windows),
        events_per_s_spread=(min(rates), max(rates)),
        cpu_us_spread=(min(costs), max(costs)),
        postgres_us_per_event=statistics.median(window.postgres_us_per_event for window in windows),
        note=_shares(windows[-1]),
    )


def _shares(window: Window) -> str:
    """How the work was divided, where there were several workers."""
    if len(window.cpu_s) == 1:
        return ""
    return "CPU of each worker: " + ", ".join(f"{one / sum(window.cpu_s):.0%}" for one in window.cpu_s)
