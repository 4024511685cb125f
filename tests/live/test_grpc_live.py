"""The scorer and the ingest server as processes, with real Kafka and PostgreSQL, and a model really published."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import grpc
import psycopg
import pytest
from kafka import KafkaConsumer, TopicPartition
from pydantic import SecretStr

from core.frames import decode_frame
from core.partition import partition_of
from core.settings import Settings, as_environment
from core.topics import ACTIVITY
from core.topics_admin import apply_topics
from feature_repo import schema
from feature_repo.layouts import GLOBAL_CELL
from feature_repo.store import PackedWriter
from feature_repo.sums import CELL_SUMS
from grpc_api.client import Client
from infra.local import LocalServers
from models.registry import MODEL_FILE, folder_of, rollback
from protos.catalog.v1.catalog_pb2 import Availability, CatalogChange
from protos.events.v1.activity_pb2 import Activity
from protos.events.v1.interaction_pb2 import Action, Interaction
from protos.scoring.v1.recommend_pb2 import RecommendRequest, RecommendResponse
from tests.grpc_api.published import publish_tiny
from tests.grpc_api.world import HERE, Store, catalog_of, item, user_row

pytestmark = pytest.mark.live

ROOT = Path(__file__).resolve().parents[2]
PATIENT_S = 5.0
LEASE_S = 1.5
START_S = 60.0

_MAIN = """
import uvloop
from core.errors import NearfeedError
from core.settings import load
from core.telemetry import configure_logging
from grpc_api.server import serve_{name}
settings = load()
configure_logging("INFO", "{name}")
try:
    uvloop.run(serve_{name}(settings))
except NearfeedError as error:
    raise SystemExit(f"{{type(error).__name__}}: {{error}}")
"""


class Served(NamedTuple):
    """One server process that said it is ready."""

    process: subprocess.Popen[str]
    address: str
    said: str


def start(name: str, settings: Settings) -> Served:
    process = subprocess.Popen(
        [sys.executable, "-c", _MAIN.format(name=name)],
        env={**os.environ, **as_environment(settings), "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    said = process.stdout.readline()
    assert said.startswith(f"{name}.ready "), f"{name} ended with {process.poll()}"
    fields = dict(word.split("=") for word in said.split()[1:])
    return Served(process, fields["address"], said)


def stop(served: Served) -> int:
    """SIGTERM, and the exit code."""
    served.process.terminate()
    try:
        return served.process.wait(20)
    finally:
        served.process.kill()
        served.process.wait()
        if served.process.stdout is not None:
            served.process.stdout.close()


@pytest.fixture(scope="module")
def settings(platform_settings: Settings) -> Settings:
    """A platform with topics, tables and version 1, whose leases are short."""
    apply_topics(platform_settings.kafka)
    with psycopg.connect(platform_settings.postgres.dsn.get_secret_value()) as connection:
        schema.create(connection)
    videos = [item(f"v{i}") for i in range(100)]
    places = [item(f"p{i}", (HERE[0] + 0.01 * i, HERE[1])) for i in range(20)]
    publish_tiny(platform_settings.registry.home, catalog_of(videos + places))
    scorer = platform_settings.scorer.model_copy(update={"lease_s": LEASE_S})
    registry = platform_settings.registry.model_copy(update={"poll_ms": 100})
    return platform_settings.model_copy(update={"scorer": scorer, "registry": registry})


@pytest.fixture(scope="module")
def scorer_process(settings: Settings) -> Iterator[Served]:
    served = start("scorer", settings)
    yield served
    stop(served)


@pytest.fixture(scope="module")
def ingest_process(settings: Settings) -> Iterator[Served]:
    served = start("ingest", settings)
    yield served
    stop(served)


@pytest.fixture
async def scorer(scorer_process: Served) -> AsyncIterator[Client]:
    async with Client(scorer_process.address) as client:
        await client.wait_until_serving(PATIENT_S, "protos.scoring.v1.RecommendService")
        yield client


@pytest.fixture
async def ingest(ingest_process: Served) -> AsyncIterator[Client]:
    async with Client(ingest_process.address) as client:
        await client.wait_until_serving(PATIENT_S)
        yield client


async def ask(client: Client, user_id: str = "nobody", slate_size: int = 50, **more: object) -> RecommendResponse:
    request = RecommendRequest(user_id=user_id, slate_size=slate_size, **more)  # type: ignore[arg-type]
    return await client.recommend(request, deadline_s=PATIENT_S)


def names(answer: RecommendResponse) -> list[str]:
    return [one.item_id for one in answer.items]


async def write_user(settings: Settings, user_id: str, *acts: tuple[str, int]) -> None:
    """Rows as a stream worker would write them."""
    with psycopg.connect(settings.postgres.dsn.get_secret_value()) as connection:
        PackedWriter().write_users(connection, [user_id], user_row(acts))
        store = Store()
        store.popular(GLOBAL_CELL, "v50", "v51")
        PackedWriter().write_sums(connection, CELL_SUMS, 0, [GLOBAL_CELL], await store.read_cells([GLOBAL_CELL]))


def logged(settings: Settings, user_id: str) -> list[Activity]:
    """Everything about a user in activity.v1."""
    where = TopicPartition(ACTIVITY, partition_of(user_id, settings.kafka.activity_partitions))
    consumer = KafkaConsumer(bootstrap_servers=settings.kafka.bootstrap_servers, consumer_timeout_ms=5000)
    try:
        consumer.assign([where])
        consumer.seek_to_beginning(where)
        end = consumer.end_offsets([where])[where]
        found: list[Activity] = []
        while consumer.position(where) < end:
            for record in consumer.poll(timeout_ms=500).get(where, []):
                found += decode_frame(record.value)
    finally:
        consumer.close()
    return [one for one in found if user_id in (one.interaction.user_id, one.impression.user_id)]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def test_an_event_is_in_the_log_once_it_is_answered(settings: Settings, ingest: Client) -> None:
    event = Interaction(event_id="e1", user_id="watcher", item_id="v1", action=Action.ACTION_LIKE)
    event.occurred_at.FromMilliseconds(now_ms())
    answer = await ingest.ingest([event])
    assert answer.results[0].kept
    assert answer.results[0].partition == partition_of("watcher", settings.kafka.activity_partitions)
    assert [one.interaction for one in logged(settings, "watcher")] == [event]


async def test_stored_features_make_the_answer_and_the_impression_is_logged(settings: Settings, scorer: Client) -> None:
    await write_user(settings, "fan", ("v3", now_ms() - 5000))
    answer = await ask(scorer, "fan", slate_size=5, request_id="r-fan")
    assert not answer.degraded
    assert answer.model_version == 1
    assert {one.source for one in answer.items} <= {"generator", "explored"}
    assert answer.feature_cursor.offset == 41
    async with asyncio.timeout(PATIENT_S):
        while not (shown := await asyncio.to_thread(logged, settings, "fan")):
            await asyncio.sleep(0.05)
    (impression,) = [one.impression for one in shown]
    assert impression.request_id == "r-fan"
    assert [slot.item_id for slot in impression.slots] == names(answer)
    assert len(impression.candidates) == 16
    assert impression.execution_provider == "CPUExecutionProvider"


async def test_an_unknown_user_gets_what_is_popular(settings: Settings, scorer: Client) -> None:
    await write_user(settings, "fan", ("v3", now_ms() - 5000))
    assert names(await ask(scorer, slate_size=3))[:2] == ["v50", "v51"]


async def test_catalogue_changes_are_served_once_acknowledged(scorer: Client, ingest: Client) -> None:
    added = await ingest.update_catalog([CatalogChange(upsert=item("brand new"))])
    assert added.applied_by_all_scorers
    excluded = [f"v{i}" for i in range(100)] + [f"p{i}" for i in range(20)]
    assert names(await ask(scorer, exclude_item_ids=excluded)) == ["brand new"]

    hide = CatalogChange(availability=Availability(item_id="v50", available=False))
    answer = await ingest.update_catalog([hide, CatalogChange(remove="v51"), CatalogChange(remove="no such item")])
    assert [result.kept for result in answer.results] == [True, True, False]
    assert answer.applied_by_all_scorers
    assert not {"v50", "v51"} & set(names(await ask(scorer)))

    show = CatalogChange(availability=Availability(item_id="v50", available=True))
    assert (await ingest.update_catalog([show])).applied_by_all_scorers
    assert "v50" in names(await ask(scorer))

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await ingest.update_catalog([CatalogChange(upsert=item("v51"))])
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "removed for good" in str(refused.value.details())


async def test_there_is_one_writer_and_its_successor_knows_what_it_wrote(settings: Settings, ingest: Client) -> None:
    await ingest.update_catalog([CatalogChange(remove="v60")])
    second = start("ingest", settings)
    try:
        async with Client(second.address) as other:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await other.update_catalog([CatalogChange(remove="v61")])
            assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert (await ingest.update_catalog([CatalogChange(remove="v61")])).results[0].kept
    finally:
        assert stop(second) == 0


async def test_a_sleeping_scorer_shows_nothing_that_was_removed_meanwhile(
    scorer_process: Served, scorer: Client, ingest: Client
) -> None:
    assert "v10" in names(await ask(scorer))
    os.kill(scorer_process.process.pid, signal.SIGSTOP)
    try:
        impatient = await ingest.update_catalog([CatalogChange(remove="v11")], deadline_s=0.5)
        assert not impatient.applied_by_all_scorers  # its lease still runs
        patient = await ingest.update_catalog([CatalogChange(remove="v10")], deadline_s=3 * LEASE_S + 2)
        assert patient.applied_by_all_scorers  # the lease ran out, so it answers no more
        waiting = [asyncio.create_task(ask(scorer)) for _ in range(20)]
        await asyncio.sleep(0.1)
    finally:
        os.kill(scorer_process.process.pid, signal.SIGCONT)
    for answer in await asyncio.gather(*waiting, return_exceptions=True):
        if isinstance(answer, RecommendResponse):
            assert not {"v10", "v11"} & set(names(answer))
        else:
            assert isinstance(answer, grpc.aio.AioRpcError)
            assert answer.code() is grpc.StatusCode.UNAVAILABLE
    async with asyncio.timeout(PATIENT_S):
        while True:
            with suppress(grpc.aio.AioRpcError):
                answer = await ask(scorer)
                break
    assert not {"v10", "v11"} & set(names(answer))


async def test_versions_swap_while_requests_keep_coming(settings: Settings, scorer: Client) -> None:
    await write_user(settings, "swapper", ("v3", now_ms() - 5000))
    home = settings.registry.home
    seen: list[int] = []
    stopped = asyncio.Event()

    async def keep_asking() -> None:
        while not stopped.is_set():
            answer = await ask(scorer, "swapper", slate_size=5)
            assert not answer.degraded, answer.degraded_reasons
            assert "v51" not in names(answer)  # removed through the log, not in the published catalogue
            seen.append(answer.model_version)

    async def until(version: int) -> None:
        async with asyncio.timeout(20):
            while not seen or seen[-1] != version:
                await asyncio.sleep(0.02)

    asking = asyncio.create_task(keep_asking())
    try:
        catalog = catalog_of([item(f"v{i}") for i in range(100)])
        second = await asyncio.to_thread(publish_tiny, home, catalog, weights=1)
        await until(second)
        third = await asyncio.to_thread(publish_tiny, home, catalog, weights=2)
        await until(third)
        rollback(home, second)
        await until(second)
        # A damaged version is refused, and what serves goes on.
        damaged = await asyncio.to_thread(_publish_damaged, home)
        await asyncio.sleep(1.0)
        assert damaged not in seen
        assert seen[-1] == second
        rollback(home, second)
    finally:
        stopped.set()
        await asyncio.gather(asking)
    changes = [version for version, before in zip(seen[1:], seen[:-1], strict=True) if version != before]
    assert changes == [second, third, second]


def _publish_damaged(home: Path) -> int:
    """A version that breaks between its publication and its loading: the pointer moves once it is broken."""
    version = publish_tiny(home, catalog_of([item("v0")]), weights=3)
    model = folder_of(home, version) / MODEL_FILE
    model.write_bytes(model.read_bytes()[:-100])
    return version


async def test_a_stopped_scorer_has_logged_every_answer(settings: Settings) -> None:
    second = start("scorer", settings)
    async with Client(second.address) as client:
        answers = await asyncio.gather(*(ask(client, "leaver", slate_size=5) for _ in range(40)))
        second.process.send_signal(signal.SIGINT)  # a terminal and a supervisor may both ask
    assert stop(second) == 0
    shown = {one.impression.request_id for one in logged(settings, "leaver")}
    assert shown == {answer.request_id for answer in answers}


@pytest.mark.parametrize("absent", ["model", "store", "broker"])
def test_what_is_absent_at_start_is_one_clear_line(
    settings: Settings, servers: LocalServers, tmp_path: Path, absent: str
) -> None:
    nothing = "127.0.0.1:9"
    wrong = {
        "model": settings.model_copy(
            update={"registry": settings.registry.model_copy(update={"home": tmp_path / "empty"})}
        ),
        "store": settings.model_copy(
            update={"postgres": settings.postgres.model_copy(update={"dsn": _dsn(f"postgresql://x@{nothing}/x")})}
        ),
        "broker": settings.model_copy(
            update={"kafka": settings.kafka.model_copy(update={"bootstrap_servers": nothing})}
        ),
    }[absent]
    error = {"model": "ArtefactError", "store": "StoreUnavailable", "broker": "BrokerUnavailable"}[absent]
    started = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-c", _MAIN.format(name="scorer")],
        env={**os.environ, **as_environment(wrong), "NEARFEED_TELEMETRY__LOG_LEVEL": "ERROR"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=START_S,
    )
    took_s = time.monotonic() - started
    assert ended.returncode == 1
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith(f"{error}: ")
    assert "Traceback" not in ended.stderr
    assert took_s < 30


def _dsn(text: str) -> SecretStr:
    return SecretStr(text)
