"""Real gRPC servers on port 0 over the tiny world of `world.py`."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import numpy as np
import pytest

from core.clock import FixedClock
from core.settings import Ingest, Scorer
from grpc_api.batching import Batcher
from grpc_api.client import Client
from grpc_api.impressions import ImpressionLog
from grpc_api.ingest import IngestService
from grpc_api.listener import Listener
from grpc_api.pipeline import Pipeline
from grpc_api.recommend import Parts, RecommendService
from grpc_api.serving import Generated, Host, Question, Serving
from models.values import SelectionWeights
from protos.events.v1.impression_pb2 import Impression
from protos.ingest.v1 import ingest_pb2_grpc
from protos.scoring.v1 import recommend_pb2_grpc
from tests.grpc_api.world import HERE, Lease, Sink, Store, catalog_of, clock, item, serving_of

RECOMMEND = "protos.scoring.v1.RecommendService"
INGEST = "protos.ingest.v1.IngestService"
DEFAULT = SelectionWeights.of(Scorer())


@dataclass
class ScorerWorld:
    """A scorer, everything it leans on, and a client of it."""

    host: Host
    store: Store
    sink: Sink
    lease: Lease
    impressions: ImpressionLog
    client: Client
    listener: Listener
    service: RecommendService
    parts: Parts
    clock: FixedClock = field(default_factory=clock)

    def logged(self) -> list[Impression]:
        """Every impression sent so far."""
        self.impressions.close(5.0)
        return [activity.impression for activity, _, _ in self.sink.sent]


@dataclass(frozen=True)
class Wanted:
    """What a test asks of its scorer; a fixture parameter."""

    serving: Serving | None = None
    exploration_share: float = 0.0
    max_queue: int = 64
    weights: SelectionWeights = DEFAULT
    opened: bool = True


@pytest.fixture
def wanted() -> Wanted:
    """Override it in a test module, or parametrize it, for another scorer."""
    return Wanted()


def twenty() -> Serving:
    """Twenty items: ten videos, ten places around HERE."""
    return serving_of(
        catalog_of(
            [item(f"v{i}") for i in range(10)] + [item(f"p{i}", (HERE[0] + 0.01 * i, HERE[1])) for i in range(10)]
        )
    )


@pytest.fixture
async def scorer(wanted: Wanted) -> AsyncIterator[ScorerWorld]:
    """A scorer that answers on a free port."""
    settings = Scorer(
        exploration_share=wanted.exploration_share,
        max_queue=wanted.max_queue,
        item_weight=wanted.weights.item,
        value_weight=wanted.weights.value,
        default_deadline_ms=2000,
    )
    world_clock = clock()
    host = Host(wanted.serving or twenty())
    batcher: Batcher[Question, Generated] = Batcher(host.answer, max_batch_size=4, max_wait_ms=1)
    batcher.start()
    store, sink, lease = Store(), Sink(), Lease()
    rng = np.random.default_rng(5)
    pipeline = Pipeline(
        store,
        batcher.submit,
        lambda: host.serving,
        clock=world_clock,
        rng=rng,
        service_radius_m=30_000.0,
        location_resolution=9,
        weights=SelectionWeights.of(settings),
    )
    impressions = ImpressionLog(sink)
    service = RecommendService(clock=world_clock, rng=rng, settings=settings, location_resolution=9)
    listener = Listener(max_request_bytes=1 << 16)
    listener.add(RECOMMEND, recommend_pb2_grpc.add_RecommendServiceServicer_to_server, service)
    address = await listener.start("127.0.0.1:0")
    parts = Parts(pipeline, lease, impressions.log)
    if wanted.opened:
        service.open(parts)
        await listener.set_serving(True)
    async with Client(address) as client:
        yield ScorerWorld(host, store, sink, lease, impressions, client, listener, service, parts, world_clock)
    await listener.stop(0)
    await batcher.stop()
    impressions.close(0.1)


@dataclass
class IngestWorld:
    """An ingest server, its broker and a client of it."""

    sink: Sink
    client: Client
    clock: FixedClock


@pytest.fixture
async def ingest() -> AsyncIterator[IngestWorld]:
    """An ingest server that answers on a free port; small limits."""
    settings = Ingest(max_events=10, max_request_bytes=4096, ack_timeout_ms=100)
    sink, world_clock = Sink(), clock()
    listener = Listener(max_request_bytes=settings.max_request_bytes)
    service = IngestService(sink, world_clock, settings)
    listener.add(INGEST, ingest_pb2_grpc.add_IngestServiceServicer_to_server, service)
    address = await listener.start("127.0.0.1:0")
    await listener.set_serving(True)
    async with Client(address) as client:
        yield IngestWorld(sink, client, world_clock)
    await listener.stop(0)
