"""The two server processes, put together: `nearfeed serve scorer` and `nearfeed serve ingest`.

Each prints one line when it is ready, serves until SIGTERM or SIGINT, and then lets calls in flight
end, sends what waits and returns. What cannot be reached or loaded at start is raised as a
NearfeedError with one clear line.
"""

import asyncio
import gc
import logging
import socket
import uuid
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

import numpy as np

from core.producer import ActivityProducer, make_producer
from core.settings import Settings
from core.telemetry import MODEL_VERSION, serve_metrics
from feature_repo.store import AsyncPackedReader
from grpc_api.batching import Batcher
from grpc_api.catalog import CatalogService
from grpc_api.catalog_log import CatalogLog, apply_between_answers
from grpc_api.impressions import ImpressionLog
from grpc_api.ingest import IngestService
from grpc_api.lease import CatalogLease, Session
from grpc_api.listener import Listener, until_stopped
from grpc_api.pipeline import Pipeline
from grpc_api.recommend import Parts, RecommendService
from grpc_api.serving import Generated, Host, Question, Serving
from grpc_api.swap import ModelWatch, load_serving
from models.registry import current
from models.values import SelectionWeights
from protos.catalog.v1 import catalog_pb2, catalog_pb2_grpc
from protos.catalog.v1.catalog_pb2 import CatalogRecord
from protos.ingest.v1 import ingest_pb2, ingest_pb2_grpc
from protos.scoring.v1 import recommend_pb2, recommend_pb2_grpc

RECOMMEND_SERVICE: Final = recommend_pb2.DESCRIPTOR.services_by_name["RecommendService"].full_name
INGEST_SERVICE: Final = ingest_pb2.DESCRIPTOR.services_by_name["IngestService"].full_name
CATALOG_SERVICE: Final = catalog_pb2.DESCRIPTOR.services_by_name["CatalogService"].full_name

MAX_RECOMMEND_BYTES: Final = 512 << 10  # 1,000 excluded ids of 256 bytes fit twice
FLUSH_S: Final = 5.0  # for impressions and frames that wait when a stop is asked for
FIRST_LEASE_S: Final = 10.0

_log = logging.getLogger(__name__)


async def serve_scorer(settings: Settings) -> None:
    """Serve RecommendService until a signal asks to stop.

    Raises:
        ArtefactError: no model is published, or it is damaged.
        StoreUnavailable, BrokerUnavailable: PostgreSQL or Kafka did not answer at start.
        NearfeedError: tables or topics are missing, or the address is taken.
    """
    scorer = settings.scorer
    clock = settings.clock.clock()
    rng = np.random.default_rng()

    def load(version: int | None) -> Serving:
        return load_serving(
            settings.registry.home, version, threads=scorer.threads, max_batch_size=scorer.max_batch_size
        )

    async with AsyncExitStack() as stack:
        metrics_port = serve_metrics(settings.telemetry.metrics_port)
        service = RecommendService(
            clock=clock, rng=rng, settings=scorer, location_resolution=settings.streams.location_resolution
        )
        listener = Listener(max_request_bytes=MAX_RECOMMEND_BYTES)
        listener.add(RECOMMEND_SERVICE, recommend_pb2_grpc.add_RecommendServiceServicer_to_server, service)
        address = await listener.start(scorer.address)
        stack.push_async_callback(listener.stop)

        host = Host(await asyncio.to_thread(lambda: load(current(settings.registry.home))))
        batcher: Batcher[Question, Generated] = Batcher(
            host.answer, max_batch_size=scorer.max_batch_size, max_wait_ms=scorer.max_wait_ms
        )
        batcher.start()
        stack.push_async_callback(batcher.stop)

        reader = AsyncPackedReader(settings.postgres, "nearfeed-scorer")
        stack.push_async_callback(reader.close)
        pipeline = Pipeline(
            reader,
            batcher.submit,
            lambda: host.serving,
            clock=clock,
            rng=rng,
            service_radius_m=1000.0 * scorer.service_radius_km,
            location_resolution=settings.streams.location_resolution,
            weights=SelectionWeights.of(scorer),
        )
        await pipeline.warm_up()

        producer = await asyncio.to_thread(
            lambda: ActivityProducer(
                settings.kafka, linger_ms=settings.ingest.linger_ms, timeout_ms=settings.kafka.request_timeout_ms
            )
        )
        stack.push_async_callback(asyncio.to_thread, producer.close, FLUSH_S)
        impressions = ImpressionLog(producer)
        stack.push_async_callback(asyncio.to_thread, impressions.close, FLUSH_S)

        async def follow(records: Sequence[CatalogRecord]) -> None:
            await apply_between_answers(records, lambda: host.serving.catalog, batcher.between_batches)

        log = CatalogLog(settings.kafka, follow)
        await log.start()
        stack.push_async_callback(log.stop)
        lease = CatalogLease(
            Session(settings.postgres, "nearfeed-scorer-lease"),
            f"{socket.gethostname()}/{uuid.uuid4().hex}",
            lease_s=scorer.lease_s,
            log=log,
            model_version=lambda: host.serving.manifest.model_version,
        )
        stack.push_async_callback(lease.release)
        await lease.acquire(FIRST_LEASE_S)

        watch = ModelWatch(host, log, batcher.between_batches, load, settings.registry.home, settings.registry.poll_ms)
        service.open(Parts(pipeline, lease, impressions.log))
        await listener.set_serving(True)
        serving = host.serving
        MODEL_VERSION.set(serving.manifest.model_version)
        _say(
            f"scorer.ready address={address} model_version={serving.manifest.model_version} "
            f"provider={serving.generator.provider} metrics={metrics_port}"
        )
        gc.collect()
        gc.freeze()  # what start-up made lives as long as the process: no later collection stops to walk it
        await _serve(listener, lease.keep, watch.follow)
    _say("scorer.stopped")


async def serve_ingest(settings: Settings) -> None:
    """Serve IngestService and CatalogService until a signal asks to stop.

    Raises:
        BrokerUnavailable: Kafka did not answer at start.
        NearfeedError: topics are missing, or the address is taken.
    """
    ingest = settings.ingest
    clock = settings.clock.clock()
    async with AsyncExitStack() as stack:
        metrics_port = serve_metrics(settings.telemetry.metrics_port)
        sink = await asyncio.to_thread(
            lambda: ActivityProducer(settings.kafka, linger_ms=ingest.linger_ms, timeout_ms=ingest.ack_timeout_ms)
        )
        stack.push_async_callback(asyncio.to_thread, sink.close, FLUSH_S)
        records = await asyncio.to_thread(lambda: make_producer(settings.kafka, timeout_ms=ingest.ack_timeout_ms))
        stack.push_async_callback(asyncio.to_thread, records.close, timeout=FLUSH_S)
        session = Session(settings.postgres, "nearfeed-catalog-writer")
        stack.push_async_callback(session.close)
        catalog = CatalogService(settings.kafka, settings.registry.home, session, records, clock)
        await catalog.start()
        stack.push_async_callback(catalog.stop)

        listener = Listener(max_request_bytes=ingest.max_request_bytes)
        listener.add(
            INGEST_SERVICE, ingest_pb2_grpc.add_IngestServiceServicer_to_server, IngestService(sink, clock, ingest)
        )
        listener.add(CATALOG_SERVICE, catalog_pb2_grpc.add_CatalogServiceServicer_to_server, catalog)
        address = await listener.start(ingest.address)
        stack.push_async_callback(listener.stop)
        await listener.set_serving(True)
        _say(f"ingest.ready address={address} metrics={metrics_port}")
        await _serve(listener)
    _say("ingest.stopped")


async def _serve(listener: Listener, *work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Until a signal; then no new calls, and what is in flight ends before anything it uses is closed."""
    tasks = [asyncio.create_task(one()) for one in work]
    try:
        await until_stopped(*tasks)
        _log.info("server.stopping")
        await listener.stop()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _say(line: str) -> None:
    """One line on standard output: what starts this process waits for it."""
    print(line, flush=True)
