"""One demo from nothing to its report: `make demo`, `make demo-city`.

    servers up · topics and features · version 1 trained and published · processes up · the past · the live
    days with requests · update, gate, swap · drain · report

Everything is written below the demo's home, which is emptied first.
"""

import asyncio
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import torch
from rich.console import Console

from core.clock import PlatformClock
from core.settings import PREFIX, Settings, load
from core.topics_admin import apply_topics
from feature_repo.apply import apply_features
from infra.demo import accounts
from infra.demo.ledger import Ledger
from infra.demo.live import Live
from infra.demo.recorded import Recorded
from infra.demo.report import write_report
from infra.demo.results import build_report, disagreements, show_results
from infra.demo.scenario import Scenario
from infra.demo.show import Show
from infra.demo.training import FirstArguments, FirstVersion, train_first_version
from infra.local import LOCK_FILE, LocalServers, lock_home
from infra.processes import Processes
from models.registry import load_manifest
from models.train_generator import Progress
from models.values import SelectionWeights
from rl.announce import announce

JARS: Final = Path("var/kafka-jars")
VERDICT_FILE: Final = "verdict.json"  # what `nearfeed learn` says of the update
TRAIN_THREADS: Final = 1  # waiting for each other on busy cores, two are slower than one
START_AHEAD_S: Final = 35.0  # from the start of our processes to the first live act, wall time
EXPLORATION_SHARE: Final = 0.1


class Times:
    """Wall seconds of the parts of a run."""

    def __init__(self) -> None:
        self.started_s = time.monotonic()
        self.parts: dict[str, float] = {}

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        """What the block takes counts as `part`."""
        started_s = time.monotonic()
        try:
            yield
        finally:
            self.parts[part] = self.parts.get(part, 0.0) + time.monotonic() - started_s

    def report(self) -> dict[str, float]:
        """Rounded, the total last."""
        return {
            name: round(took, 1) for name, took in (*self.parts.items(), ("total", time.monotonic() - self.started_s))
        }


def run_demo(scenario: Scenario, home: Path) -> int:
    """Exit code 0 when the loop turned and its accounts agree, else 1 with the reason.

    Raises:
        NearfeedError: a part could not start or stopped; its log stands in `home`/logs.
    """
    show = Show(Console(highlight=False))
    times = Times()
    with ExitStack() as stack:
        show.step("Kafka and PostgreSQL start; the recorded days are read")
        with times.of("setup"):
            lock = stack.enter_context(_emptied(home))
            servers = stack.enter_context(LocalServers(home / "servers", jars=JARS))
            recorded = scenario.recorded()
            settings = _settings(servers, home, recorded, live_in_s=0.0)
            apply_topics(settings.kafka)
            apply_features(settings)
        show.say(f"{recorded.title}: {len(recorded.items):,} items, {len(recorded.past):,} past acts")

        show.step("Version 1: semantic ids and generator, from the days before the replay")
        with times.of("train"):
            first = _train(recorded, scenario.arguments(), settings, show)
        announce(settings.kafka, load_manifest(settings.registry.home, first.version))
        for line in first.health:
            show.say(line)
        found = first.metrics
        show.say(
            f"version {first.version} published; recall@10 {found['recall_at_10']:.4f}, popularity "
            f"{found['recall_at_10_popularity']:.4f}, on {found['test_exposures']:.0f} exposures of the first live day"
        )
        show.step("Stream workers, ingest and scorer start")
        settings = _settings(servers, home, recorded, live_in_s=START_AHEAD_S)
        ledger = Ledger()
        processes = stack.enter_context(Processes(home / "logs", settings, lock))
        verdict = home / VERDICT_FILE
        learn = ("learn", "--verdict", str(verdict.absolute()), *scenario.judge_arguments())
        live = Live(settings, recorded, first.catalog, scenario.user_model(first), processes, ledger, show, learn)
        with times.of("stream"):
            try:
                result = asyncio.run(live.run())
            except BaseExceptionGroup as group:
                raise _first(group) from None
            outcomes = accounts.outcomes(settings)
            rejects = accounts.rejects(settings)
        processes.stop_all()
    report = build_report(recorded, first, ledger, result, list(outcomes.values()), rejects, verdict)
    report["wall_s"] = times.report()
    as_json, page = write_report(home, report, ledger, times.started_s)
    show_results(show, report)
    show.say(f"{as_json} and {page}")
    wrong = disagreements(report)
    for line in wrong:
        show.fail(line)
    return 1 if wrong else 0


def _first(error: BaseException) -> BaseException:
    """What went wrong first, out of a group of tasks that ended because of it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _train(recorded: Recorded, arguments: FirstArguments, settings: Settings, show: Show) -> FirstVersion:
    torch.set_num_threads(TRAIN_THREADS)
    with show.progress("training", 1.0) as bar:

        def progress(at: Progress) -> None:
            bar.at(at.done, f"loss {at.loss:.3f}")

        return train_first_version(
            recorded,
            arguments,
            registry=settings.registry.home,
            streams=settings.streams,
            weights=SelectionWeights.of(settings.scorer),
            clock=settings.clock.clock(),
            say=show.say,
            progress=progress,
        )


def _settings(servers: LocalServers, home: Path, recorded: Recorded, live_in_s: float) -> Settings:
    """The settings of the demo's processes: its own servers, free ports, and the clock of the recorded days."""
    chosen = {
        "KAFKA__BOOTSTRAP_SERVERS": servers.kafka_bootstrap,
        "KAFKA__RETENTION_DAYS": 0,  # the broker counts from record timestamps, and these are old days
        "POSTGRES__DSN": servers.postgres_dsn,
        "CLOCK__ANCHOR_WALL_MS": PlatformClock().now_ms() + round(1000 * live_in_s),
        "CLOCK__ANCHOR_PLATFORM_MS": recorded.live_start_ms,
        "CLOCK__SPEED": recorded.speed,
        "SCORER__ADDRESS": "127.0.0.1:0",
        "SCORER__EXPLORATION_SHARE": EXPLORATION_SHARE,
        "INGEST__ADDRESS": "127.0.0.1:0",
        "REGISTRY__HOME": (home / "registry").absolute(),
    }
    return load({f"{PREFIX}{key}": str(value) for key, value in chosen.items()}, file=None)


@contextmanager
def _emptied(home: Path) -> Iterator[int]:
    """`home` is empty and ours until the block ends; gives the file descriptor that holds it."""
    home.mkdir(parents=True, exist_ok=True)
    lock = lock_home(home)
    try:
        for path in home.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != LOCK_FILE:
                path.unlink()
        yield lock
    finally:
        os.close(lock)
