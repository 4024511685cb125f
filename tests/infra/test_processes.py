"""Laws of our own processes as children: found ready, said why when they died, and none left behind."""

import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import NotReady
from core.settings import PREFIX, Settings, load
from infra.processes import Processes


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """A broker that takes connections and never answers, and nothing published."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        yield load(
            {
                f"{PREFIX}KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{silent.getsockname()[1]}",
                f"{PREFIX}REGISTRY__HOME": str(tmp_path / "registry"),
                f"{PREFIX}SCORER__ADDRESS": "127.0.0.1:0",
            }
        )


def test_a_process_that_says_its_word_is_found_and_has_our_settings(settings: Settings, tmp_path: Path) -> None:
    with Processes(tmp_path / "logs", settings, keep_fd=2) as processes:
        processes.start("settings", "settings", "show", "--json")
        found = processes.wait_for("settings", r'"kafka\.bootstrap_servers",\s+"value": "(\S+)"', 20.0)
        assert found[1] == settings.kafka.bootstrap_servers
        assert processes.stop("settings") in (0, -15)


def test_a_process_that_died_is_told_with_its_last_words(settings: Settings, tmp_path: Path) -> None:
    with Processes(tmp_path / "logs", settings, keep_fd=2) as processes:
        processes.start("scorer", "serve", "scorer")
        with pytest.raises(NotReady, match=r"scorer ended with 1: .*found no published version.*its log is") as told:
            processes.wait_for("scorer", r"scorer\.ready", 20.0)
        assert str(processes.log_of("scorer")) in str(told.value)
        assert processes.exit_code("scorer") == 1
        with pytest.raises(NotReady, match="scorer ended with 1"):
            processes.check("scorer")
        assert processes.stop("scorer") == 1


def test_a_silent_process_is_not_waited_for_longer_than_said_and_leaving_ends_it(
    settings: Settings, tmp_path: Path
) -> None:
    """Every child holds the descriptor it was given: the pipe ends when the last of them has."""
    ours, theirs = os.pipe()
    with Processes(tmp_path / "logs", settings, keep_fd=theirs) as processes:
        processes.start("topics", "topics", "apply")
        os.close(theirs)
        with pytest.raises(NotReady, match="topics was not ready within 0 s: its log is empty"):
            processes.wait_for("topics", "never said", 0.1)
        processes.check("topics")
        assert processes.exit_code("topics") is None
        assert select.select([ours], [], [], 0)[0] == []
    assert select.select([ours], [], [], 0)[0] == [ours] and os.read(ours, 1) == b""
    os.close(ours)


def test_a_new_start_begins_the_log_anew(settings: Settings, tmp_path: Path) -> None:
    with Processes(tmp_path / "logs", settings, keep_fd=2) as processes:
        processes.log_of("settings").write_text("ingest.ready address=of-an-earlier-run\n")
        processes.start("settings", "settings", "show")
        assert "earlier" not in processes.log_of("settings").read_text()
