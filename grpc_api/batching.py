"""Micro-batching: requests that arrive together share one run of the generator.

Two numbers with units decide it: `max_batch_size`, and `max_wait_ms`, how long the first request of a
batch waits for company. While a batch runs, the next one fills, so under load nobody waits for the
timer. The run happens in one worker thread; the event loop stays free.

A job that could not be done in time, judged by how long recent runs took and how many are before it, is
turned away when it comes: its caller then falls back early and alone, not late and with all the others.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from core.errors import ContractError
from core.telemetry import STAGE_IN, STAGE_OUT, STAGE_REMOVED, STAGE_SECONDS

Job = TypeVar("Job")
Result = TypeVar("Result")

STAGE: Final = "batch"
RECENT: Final = 0.2  # weight of the newest run in the mean that the forecast goes by


@dataclass(eq=False)  # one waiting job is never another, whatever they hold
class _Waiting(Generic[Job, Result]):
    job: Job
    arrived_s: float
    deadline_s: float
    answer: "asyncio.Future[Result]"


class Batcher(Generic[Job, Result]):
    """Runs jobs in batches, in order of arrival.

    `run` gets 1 .. max_batch_size jobs, in a thread of its own, and answers one result per job. A job
    whose deadline passed, or whose caller gave up, before its turn takes no part in a run.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Job]], Sequence[Result]],
        *,
        max_batch_size: int,
        max_wait_ms: float,
    ) -> None:
        self._run = run
        self._max_batch_size = max_batch_size
        self._max_wait_s = max_wait_ms / 1000.0
        self._queue: deque[_Waiting[Job, Result]] = deque()
        self._arrival = asyncio.Event()
        self._running = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="generator")
        self._loop_task: asyncio.Task[None] | None = None
        self._mean_run_s = 0.0

    def start(self) -> None:
        """Take jobs from now on; call it on the event loop that submits them."""
        self._loop_task = asyncio.create_task(self._serve(), name="batcher")

    async def stop(self) -> None:
        """Let the running batch end; every job still waiting is cancelled."""
        if self._loop_task is not None:
            async with self._running:
                self._loop_task.cancel()
            await asyncio.wait([self._loop_task])
        for waiting in self._queue:
            waiting.answer.cancel()
        self._thread.shutdown(wait=False)

    async def submit(self, job: Job, deadline_s: float) -> Result:
        """The job's result.

        Args:
            deadline_s: on the monotonic clock; afterwards the result is of no use to anybody.

        Raises:
            TimeoutError: the deadline passed first, or would.
            Exception: whatever the run raised; every job of that batch gets it.
        """
        STAGE_IN.labels(STAGE).inc()
        now = time.monotonic()
        if now + self._forecast_s() > deadline_s:
            STAGE_REMOVED.labels(STAGE, "hopeless").inc()
            raise TimeoutError
        waiting = _Waiting(job, now, deadline_s, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._arrival.set()
        try:
            async with asyncio.timeout(max(0.0, deadline_s - now)):
                result: Result = await waiting.answer
                return result
        finally:
            if waiting in self._queue:  # out of time, or the caller went away: its turn is free
                self._queue.remove(waiting)
                STAGE_REMOVED.labels(STAGE, "given_up").inc()

    @asynccontextmanager
    async def between_batches(self) -> AsyncIterator[None]:
        """No batch runs inside: what a run reads may be changed here without tearing it."""
        async with self._running:
            yield

    def _forecast_s(self) -> float:
        """How long one more job would take; 0 when it could run at once, so that a slow past is never final."""
        if not self._queue and not self._running.locked():
            return 0.0
        runs_before = self._running.locked() + len(self._queue) // self._max_batch_size
        return (runs_before + 1) * self._mean_run_s

    async def _serve(self) -> None:
        while True:
            await self._fill()
            async with self._running:
                batch = self._take()
                if batch:
                    await self._run_in_thread(batch)

    async def _fill(self) -> None:
        """Return when a batch is due: it is full, or its first job has waited long enough."""
        while not self._queue:
            self._arrival.clear()
            await self._arrival.wait()
        due = self._queue[0].arrived_s + self._max_wait_s
        while len(self._queue) < self._max_batch_size and (left := due - time.monotonic()) > 0:
            self._arrival.clear()
            try:
                async with asyncio.timeout(left):
                    await self._arrival.wait()
            except TimeoutError:
                return

    def _take(self) -> list[_Waiting[Job, Result]]:
        now = time.monotonic()
        batch: list[_Waiting[Job, Result]] = []
        while self._queue and len(batch) < self._max_batch_size:
            waiting = self._queue.popleft()
            if waiting.deadline_s > now:
                batch.append(waiting)
            else:  # its own timer fires in a moment
                STAGE_REMOVED.labels(STAGE, "deadline").inc()
        return batch

    async def _run_in_thread(self, batch: Sequence[_Waiting[Job, Result]]) -> None:
        started = time.monotonic()
        jobs = [waiting.job for waiting in batch]
        try:
            results = await asyncio.get_running_loop().run_in_executor(self._thread, self._run, jobs)
            if len(results) != len(batch):
                raise ContractError(f"the run answered input({len(batch)}) != output({len(results)})")
        except Exception as error:
            STAGE_REMOVED.labels(STAGE, "failed").inc(len(batch))
            for waiting in batch:
                if not waiting.answer.done():
                    waiting.answer.set_exception(error)
            return
        took_s = time.monotonic() - started
        self._mean_run_s += RECENT * (took_s - self._mean_run_s)
        STAGE_OUT.labels(STAGE).inc(len(batch))
        STAGE_SECONDS.labels(STAGE).observe(took_s)
        for waiting, result in zip(batch, results, strict=True):
            if not waiting.answer.done():
                waiting.answer.set_result(result)
