"""The platform on this machine until somebody ends it: servers, topics, features, and our processes.

    nearfeed up

The servers' data stays in the home, so the next start goes on where this one ended.
"""

import shlex
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from core.errors import NotReady
from core.settings import PREFIX, Settings, as_environment, load
from core.topics_admin import apply_topics
from feature_repo.apply import apply_features
from infra.local import LocalServers, lock_home
from infra.processes import Processes
from models.registry import current

READY_S: Final = 60.0
ENVIRONMENT_FILE: Final = "environment"
_POLL_S: Final = 0.5
_SOON_S: Final = 10.0  # a process that ends sooner after its start has a cause that starting again does not mend


def run_platform(settings: Settings, home: Path, *, jars: Path, workers: int, say: Callable[[str], None]) -> None:
    """Serves until SIGINT or SIGTERM; then everything has ended in order.

    Raises:
        NearfeedError: a part could not start, or ended by itself; its log stands in `home`/logs. Stream workers and
            the archiver are started again unless they ended at once.
    """
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    home.mkdir(parents=True, exist_ok=True)
    with LocalServers(home / "servers", jars=jars) as servers:
        found = as_environment(settings)
        found[f"{PREFIX}KAFKA__BOOTSTRAP_SERVERS"] = servers.kafka_bootstrap
        found[f"{PREFIX}POSTGRES__DSN"] = servers.postgres_dsn
        here = load(found)
        apply_topics(here.kafka)
        apply_features(here)
        with Processes(home / "logs", here, lock_home(home)) as processes:
            followers = {f"stream-{number}": "stream" for number in range(1, workers + 1)} | {"archive": "archive"}
            started_s = {}
            for name, verb in followers.items():
                processes.start(name, verb)
                started_s[name] = time.monotonic()
            processes.start("ingest", "serve", "ingest")
            names = ["ingest"]
            say(processes.wait_for("ingest", r"ingest\.ready .*", READY_S)[0])
            if current(here.registry.home) is None:
                say(f"no model in {here.registry.home}: the scorer starts when `nearfeed train` has published one")
            environment = home / ENVIRONMENT_FILE
            environment.touch(mode=0o600)
            environment.write_text(
                "".join(f"export {name}={shlex.quote(found[name])}\n" for name in sorted(found)), "utf-8"
            )
            say(f"other shells: source {environment}; Ctrl-C ends everything")
            while not stopping.is_set():
                if "scorer" not in names and current(here.registry.home) is not None:
                    processes.start("scorer", "serve", "scorer")
                    names.append("scorer")
                    say(processes.wait_for("scorer", r"scorer\.ready .*", READY_S)[0])
                servers.check()
                for name in names:
                    processes.check(name)
                for name, verb in followers.items():
                    try:
                        processes.check(name)
                    except NotReady as ended:
                        # They go on where they stood; a worker ends, for one, when a replay has switched its tables.
                        if time.monotonic() - started_s[name] < _SOON_S:
                            raise
                        say(f"{ended}; started again")
                        processes.start(name, verb)
                        started_s[name] = time.monotonic()
                time.sleep(_POLL_S)
            say("stopping")
