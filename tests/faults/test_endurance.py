"""Minutes of faults in one run leave no trace either; `make faults` runs it, with servers of its own."""

import random
import time
from collections.abc import Callable

import pytest

from core.settings import Settings
from infra.local import LocalServers
from tests.faults.check import check, wait_until_quiet
from tests.faults.crew import Crew
from tests.faults.load import Load
from tests.faults.sleepers import COMMITTING, READING, sleep_while, wait_until
from tests.faults.steps import Steps, chosen_seed

pytestmark = [pytest.mark.live, pytest.mark.faults]

RATE = 300.0  # entries a second
POISON = 1_000  # records at once into one partition

# How often each happens, in random order.
FAULTS = {
    "kill": 24,
    "terminate": 6,
    "sleep": 3,
    "asleep while reading": 1,
    "asleep while committing": 2,
    "a third worker joins": 3,
    "it leaves": 3,
    "postgres": 4,
    "kafka": 3,
    "poison": 3,
}


def test_minutes_of_faults_leave_no_trace(
    request: pytest.FixtureRequest, servers: LocalServers, settings: Settings, crew: Crew
) -> None:
    seed = chosen_seed()
    rng = random.Random(seed)
    load = Load(settings, seed, rate=RATE)
    request.addfinalizer(load.give_up)

    def kill() -> None:
        place = rng.randrange(len(crew.workers))
        if rng.random() < 0.8:  # else perhaps one that is still starting
            crew.wait_ready()
            time.sleep(rng.uniform(0.0, 2.0))
        crew.kill(place)

    def leave() -> None:
        if len(crew.workers) > 2:
            crew.leave()

    def postgres() -> None:
        servers.kill_postgres()
        time.sleep(rng.uniform(0.0, 4.0))
        servers.restart_postgres()

    def kafka() -> None:
        servers.kill_kafka()
        servers.restart_kafka()

    do: dict[str, Callable[[], None]] = {
        "kill": kill,
        "terminate": lambda: crew.terminate(rng.randrange(len(crew.workers))),
        "sleep": lambda: crew.sleep(rng.randrange(len(crew.workers))),
        "asleep while reading": lambda: sleep_while(READING, settings, crew, load),
        "asleep while committing": lambda: sleep_while(COMMITTING, settings, crew, load),
        "a third worker joins": crew.join,
        "it leaves": leave,
        "postgres": postgres,
        "kafka": kafka,
        "poison": lambda: load.poison(rng.randrange(settings.kafka.activity_partitions), POISON),
    }
    faults = [name for name, times in FAULTS.items() for _ in range(times)]
    rng.shuffle(faults)

    crew.wait_ready()
    load.start()
    steps = Steps()
    for number, name in enumerate(faults):
        time.sleep(rng.uniform(0.2, 2.0))
        crew.replace_the_fallen()
        do[name]()
        steps.done(f"{number + 1}/{len(faults)} {name}")
    crew.wait_ready()
    load.stop()
    wait_until_quiet(settings, crew)
    steps.done("quiet")
    wait_until(lambda: crew.fenced > 0, "a sleeper tries to commit, and is fenced")
    crew.stop()
    report = check(settings, load)
    steps.done("checked")
    print(f"kills {crew.kills}, fallen {crew.fallen}, fenced {crew.fenced}, sent again {load.sent_again}\n{report}")
    assert report.clean, f"seed {seed}: {report}"
