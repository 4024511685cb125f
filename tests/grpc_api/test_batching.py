"""Laws of the micro-batcher."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence

import pytest

from core.errors import ContractError
from grpc_api.batching import Batcher


class Recorder:
    """Doubles numbers and remembers its batches; `gate` holds a run back."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.threads: set[int] = set()

    def __call__(self, jobs: Sequence[int]) -> list[int]:
        assert self.gate.wait(5)
        self.threads.add(threading.get_ident())
        self.batches.append(list(jobs))
        return [2 * job for job in jobs]


def soon() -> float:
    return time.monotonic() + 5.0


async def running(
    run: Callable[[Sequence[int]], Sequence[int]], size: int = 4, wait_ms: float = 20
) -> Batcher[int, int]:
    batcher = Batcher(run, max_batch_size=size, max_wait_ms=wait_ms)
    batcher.start()
    return batcher


async def test_jobs_that_arrive_together_share_a_run_in_one_other_thread() -> None:
    record = Recorder()
    batcher = await running(record)
    assert await asyncio.gather(*(batcher.submit(n, soon()) for n in range(10))) == [2 * n for n in range(10)]
    assert record.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert len(record.threads) == 1
    assert threading.get_ident() not in record.threads
    await batcher.stop()


async def test_a_lone_job_does_not_wait_for_a_full_batch() -> None:
    batcher = await running(Recorder(), wait_ms=1)
    assert await batcher.submit(1, soon()) == 2
    await batcher.stop()


async def test_while_a_batch_runs_the_next_one_fills() -> None:
    record = Recorder()
    record.gate.clear()
    batcher = await running(record, wait_ms=0)
    first = asyncio.create_task(batcher.submit(0, soon()))
    await asyncio.sleep(0.02)
    rest = [asyncio.create_task(batcher.submit(n, soon())) for n in (1, 2, 3)]
    await asyncio.sleep(0.02)
    record.gate.set()
    assert await asyncio.gather(first, *rest) == [0, 2, 4, 6]
    assert record.batches == [[0], [1, 2, 3]]
    await batcher.stop()


async def test_a_job_whose_deadline_passed_takes_no_part() -> None:
    record = Recorder()
    record.gate.clear()
    batcher = await running(record, wait_ms=0)
    first = asyncio.create_task(batcher.submit(0, soon()))
    await asyncio.sleep(0.02)
    with pytest.raises(TimeoutError):
        await batcher.submit(1, time.monotonic() + 0.03)
    with pytest.raises(TimeoutError):
        await batcher.submit(2, time.monotonic() - 1.0)
    last = asyncio.create_task(batcher.submit(3, soon()))
    await asyncio.sleep(0)
    record.gate.set()
    assert await asyncio.gather(first, last) == [0, 6]
    assert record.batches == [[0], [3]]
    await batcher.stop()


async def test_a_caller_who_goes_away_takes_no_part() -> None:
    record = Recorder()
    record.gate.clear()
    batcher = await running(record, wait_ms=0)
    first = asyncio.create_task(batcher.submit(0, soon()))
    await asyncio.sleep(0.02)
    gone = asyncio.create_task(batcher.submit(1, soon()))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    record.gate.set()
    assert await first == 0
    await batcher.stop()
    assert record.batches == [[0]]


async def test_a_failed_run_fails_its_own_jobs_only() -> None:
    def run(jobs: Sequence[int]) -> list[int]:
        if 13 in jobs:
            raise ValueError("unlucky")
        return list(jobs)

    batcher = await running(run, size=2)
    answers = await asyncio.gather(*(batcher.submit(n, soon()) for n in (13, 1, 2, 3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [ValueError, ValueError, int, int]
    await batcher.stop()


async def test_a_run_that_loses_a_job_is_a_broken_contract() -> None:
    batcher = await running(lambda jobs: list(jobs)[1:], size=2)
    answers = await asyncio.gather(*(batcher.submit(n, soon()) for n in (1, 2)), return_exceptions=True)
    assert all(isinstance(answer, ContractError) for answer in answers)
    await batcher.stop()


async def test_nothing_runs_between_batches() -> None:
    record = Recorder()
    batcher = await running(record, wait_ms=0)
    async with batcher.between_batches():
        waiting = asyncio.create_task(batcher.submit(1, soon()))
        await asyncio.sleep(0.05)
        assert record.batches == []
    assert await waiting == 2
    await batcher.stop()


async def test_stop_lets_the_running_batch_answer_and_cancels_the_rest() -> None:
    record = Recorder()
    record.gate.clear()
    batcher = await running(record, size=1, wait_ms=0)
    first = asyncio.create_task(batcher.submit(1, soon()))
    await asyncio.sleep(0.02)
    second = asyncio.create_task(batcher.submit(2, soon()))
    stopping = asyncio.create_task(batcher.stop())
    await asyncio.sleep(0.02)
    record.gate.set()
    await stopping
    assert await first == 2
    with pytest.raises(asyncio.CancelledError):
        await second


async def test_a_job_that_could_not_be_done_in_time_is_turned_away_at_once() -> None:
    def run(jobs: Sequence[int]) -> list[int]:
        time.sleep(0.05)
        return list(jobs)

    batcher = await running(run, size=1, wait_ms=0)
    for n in range(20):  # the mean comes close to what a run takes
        await batcher.submit(n, soon())
    busy = [asyncio.create_task(batcher.submit(n, soon())) for n in range(4)]
    await asyncio.sleep(0.01)
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        await batcher.submit(9, started + 0.1)  # four runs are before it
    assert time.monotonic() - started < 0.02
    assert await asyncio.gather(*busy) == [0, 1, 2, 3]
    # Nobody is before it: it may try, whatever the past was like.
    with pytest.raises(TimeoutError):
        await batcher.submit(9, time.monotonic() + 0.02)
    await batcher.stop()
