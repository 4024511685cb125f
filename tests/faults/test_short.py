"""Some faults of every kind under steady load leave no trace: real Kafka, real PostgreSQL. `make faults` runs more."""

import random
import time

import pytest

from core.settings import Settings
from infra.local import LocalServers
from tests.faults.check import check, wait_until_quiet
from tests.faults.crew import Crew
from tests.faults.load import Load
from tests.faults.sleepers import COMMITTING, READING, sleep_while, wait_until
from tests.faults.steps import Steps, chosen_seed

pytestmark = pytest.mark.live

RATE = 300.0  # entries a second
POISON = 1_000  # records at once into one partition


def test_faults_of_every_kind_leave_no_trace(
    request: pytest.FixtureRequest, servers: LocalServers, settings: Settings, crew: Crew
) -> None:
    seed = chosen_seed()
    rng = random.Random(seed)
    load = Load(settings, seed, rate=RATE)
    request.addfinalizer(load.give_up)
    crew.wait_ready()
    load.start()
    steps = Steps()

    load.poison(rng.randrange(settings.kafka.activity_partitions), POISON)
    for place in (0, 1, 0):
        time.sleep(rng.uniform(0.3, 3.0))
        crew.kill(place)
        steps.done("kill -9 of a worker")
    crew.wait_ready()
    steps.done("workers ready")
    time.sleep(rng.uniform(0.3, 1.0))
    crew.terminate(1)
    steps.done("SIGTERM of a worker")
    time.sleep(rng.uniform(0.3, 1.0))
    servers.kill_postgres()
    servers.restart_postgres()
    steps.done("kill -9 of PostgreSQL, and back")
    time.sleep(rng.uniform(0.3, 1.0))
    servers.kill_kafka()
    servers.restart_kafka()
    steps.done("kill -9 of the broker, and back")
    time.sleep(rng.uniform(1.0, 2.0))

    sleep_while(READING, settings, crew, load)
    wait_until(lambda: crew.fenced > 0, "the sleeper tries to commit, and is fenced")
    steps.done("asleep while reading, fenced")
    sleep_while(COMMITTING, settings, crew, load)
    steps.done("asleep while committing")

    load.stop()
    wait_until_quiet(settings, crew)
    steps.done("quiet")
    crew.stop()
    steps.done("stopped")
    report = check(settings, load)
    steps.done("checked")
    print(
        f"kills {crew.kills} fallen {crew.fallen} fenced {crew.fenced} records sent again {load.sent_again}\n{report}"
    )
    assert report.clean, f"seed {seed}: {report}"
