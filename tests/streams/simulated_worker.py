"""One worker process of the simulation: what streams.app and streams.ownership do around a Driver, step by step."""

from collections.abc import Callable, Sequence

from core.clock import Clock
from core.errors import NotReady, OwnershipLost, StoreUnavailable
from streams.cursor import Record
from streams.driver import Driver
from streams.holes import Holes, Step, runs
from streams.outbox import Relay
from tests.streams.simulated_servers import Broker, Killed, SimulatedStore


class Holding:
    """One partition from its assignment to its revocation."""

    def __init__(self, position: int) -> None:
        self.position = position  # of the next fetch
        self.fresh = True  # nothing was fetched yet
        self.fetched: list[Record] = []
        self.acknowledged = position  # everything before it may be committed to Kafka
        self.driver: Driver | None = None
        self.holes = Holes()


class Worker:
    """Alive until it is killed; a worker that starts again is another one. `asleep`: stopped by SIGSTOP."""

    def __init__(
        self, name: str, broker: Broker, store: SimulatedStore, take_over: Callable[[int], Driver], clock: Clock
    ) -> None:
        self.name = name
        self.alive = True
        self.asleep = False
        self.holdings: dict[int, Holding] = {}  # as it believes: a sleeper is not told
        self.broker = broker
        self.relay = Relay(store, broker, lambda: sorted(self.holdings), ack_timeout_s=1.0)
        self._take_over = take_over
        self._clock = clock

    def die(self) -> None:
        """Nothing that it held in memory is left."""
        self.alive = False
        self.holdings = {}

    def assigned(self, partitions: dict[int, int]) -> None:
        """It holds exactly these partitions, each from a committed offset on; what it had fetched is gone."""
        self.holdings = {number: Holding(position) for number, position in partitions.items()}

    def fetch(self, number: int, limit: int) -> None:
        holding = self.holdings[number]
        records = self.broker.fetch(number, holding.position, limit, holding.fresh)
        if records:
            holding.fresh = False
            holding.fetched += records
            holding.position = records[-1].offset + 1

    def settle(self, number: int, size: int) -> None:
        """One batch, as `Owner.settle` and the application do it; while the store is away the batch waits."""
        holding = self.holdings[number]
        batch = holding.fetched[:size]
        try:
            if not batch:
                self._begin(number, holding)
            for run in runs(batch):
                settled = self.apply(number, holding, batch[run])
                if self.holdings.get(number) is not holding:
                    return
                self._settled(number, holding, batch[run], settled)
        except StoreUnavailable:
            holding.driver = None
        except OwnershipLost:
            self.broker.stage.tell("fenced")
            if self.holdings.get(number) is holding:
                self.die()
                raise Killed from None

    def _begin(self, number: int, holding: Holding) -> None:
        """An empty batch: the partition is owned now, and read on from where its cursor is."""
        self.apply(number, holding, [])
        assert holding.driver is not None
        holding.position = holding.driver.cursor.next_offset

    def apply(self, number: int, holding: Holding, records: Sequence[Record]) -> int:
        """How many leading `records` are in the states."""
        if holding.driver is None:
            holding.driver = self._take_over(number)
        return holding.driver.apply(records)

    def _settled(self, number: int, holding: Holding, records: Sequence[Record], settled: int) -> None:
        """What is in the states is acknowledged; a gap in front of the rest is looked into."""
        del holding.fetched[: len(records)]
        if settled:
            holding.acknowledged = max(holding.acknowledged, records[settled - 1].offset + 1)
        if settled == len(records):
            holding.holes.closed(number)
            return
        assert holding.driver is not None
        expected, found = holding.driver.cursor.next_offset, records[settled].offset
        step = holding.holes.met(number, expected, found, self._clock.monotonic_s())
        self.broker.stage.tell(f"hole: {step.value}")
        if step is Step.STEP_OVER:
            holding.driver.skip_hole(found)
        if step is not Step.WAIT:
            holding.position = expected

    def send_waiting(self) -> None:
        """One round of the relay."""
        try:
            self.relay.send_waiting()
        except NotReady:
            return  # the rows stay
