"""Steady traffic into the log, and a ledger of what the broker acknowledged."""

import threading
import time
from collections import deque
from concurrent.futures import Future

from core.errors import BrokerUnavailable
from core.producer import Acknowledged, make_producer, send_record
from core.settings import Settings
from core.topics import ACTIVITY
from tests.faults.traffic import Sending, Traffic

TICK_S = 0.02
MOST_IN_FLIGHT = 2_000  # records; while the broker is away no more are made
PATIENCE_S = 60.0
GIVE_UP_S = 60.0


class Load(threading.Thread):
    """Sends `rate` entries a second, which may be changed, until `stop`.

    What the broker does not acknowledge is sent again, as clients do. `acknowledged` holds the value of each record by
    (partition, offset), complete once the thread has ended.
    """

    def __init__(self, settings: Settings, seed: int, *, rate: float, users: int = 400) -> None:
        super().__init__(name="load", daemon=True)
        self.acknowledged: dict[tuple[int, int], bytes | None] = {}
        self.sent_again = 0
        self.error: BaseException | None = None
        self._settings = settings
        self.rate = rate
        self._traffic = Traffic(
            seed,
            users=users,
            partitions=settings.kafka.activity_partitions,
            horizon_ms=settings.streams.horizon_s * 1000,
        )
        # Not the same traffic: its thread is in the middle of it.
        self._strangers = Traffic(seed, users=1, partitions=settings.kafka.activity_partitions, horizon_ms=1)
        self._in_flight: deque[tuple[Sending, Future[Acknowledged]]] = deque()
        self._extra: deque[Sending] = deque()
        self._stopping = threading.Event()

    def poison(self, partition: int, records: int) -> None:
        """The partition gets `records` records of poison at once."""
        poisonous = Traffic(records, users=1, partitions=1, horizon_ms=1)
        self._extra.extend(poisonous.poison(partition, _now_ms()) for _ in range(records))

    def newcomers(self) -> None:
        """Each partition gets a record of a user who was never here."""
        self._extra.extend(self._strangers.newcomers(_now_ms()))

    def stop(self) -> None:
        """Everything made so far is acknowledged.

        Raises:
            BrokerUnavailable: the broker did not take it in time.
        """
        self._stopping.set()
        self.join()
        if self.error is not None:
            raise self.error

    def give_up(self) -> None:
        """It has ended, whatever became of what it made: a test that failed leaves no thread behind."""
        self._stopping.set()
        if self.is_alive():
            self.join(GIVE_UP_S)

    def run(self) -> None:
        try:
            self._run()
        except BaseException as error:  # told by stop()
            self.error = error

    def _run(self) -> None:
        self._producer = make_producer(self._settings.kafka, timeout_ms=10_000, linger_ms=5)
        try:
            last_s, due = time.monotonic(), 0.0
            while not self._stopping.wait(TICK_S):
                now_s = time.monotonic()
                due += (now_s - last_s) * self.rate
                last_s = now_s
                if len(self._in_flight) < MOST_IN_FLIGHT:
                    self._send_all(self._traffic.records(int(due), _now_ms()))
                    while self._extra:
                        self._send(self._extra.popleft())
                due %= 1.0
                self._settle(wait_s=0.0)
            self._send_all(self._traffic.rest(_now_ms()))
            until_s = time.monotonic() + PATIENCE_S
            while self._in_flight:
                if time.monotonic() > until_s:
                    raise BrokerUnavailable(f"{len(self._in_flight)} records not acknowledged in {PATIENCE_S} s")
                self._settle(wait_s=1.0)
        finally:
            self._producer.close(timeout=5.0)

    def _send_all(self, sendings: list[Sending]) -> None:
        for sending in sendings:
            self._send(sending)

    def _send(self, sending: Sending) -> None:
        sent = send_record(
            self._producer,
            ACTIVITY,
            sending.value,
            key=b"none" if sending.value is None else None,
            partition=sending.partition,
            timestamp_ms=sending.timestamp_ms,
        )
        self._in_flight.append((sending, sent))

    def _settle(self, wait_s: float) -> None:
        """What was acknowledged is in the ledger, what failed is on its way again."""
        for _ in range(len(self._in_flight)):
            sending, sent = self._in_flight.popleft()
            if wait_s and not sent.done():
                try:
                    sent.exception(wait_s)
                except TimeoutError:
                    wait_s = 0.0
            if not sent.done():
                self._in_flight.append((sending, sent))
            elif sent.exception() is None:
                done = sent.result()
                self.acknowledged[done.partition, done.offset] = sending.value
            else:
                self.sent_again += 1
                self._send(sending)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
