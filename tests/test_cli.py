"""Laws of the command line: it explains itself, and every failure is one clear line and an exit code."""

import json
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from cli import app
from core.settings import MASK, PREFIX

CLI = Path(__file__).resolve().parents[1] / "cli.py"
SECRET = "hunter2"  # must never be printed


def _verbs(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _verbs(command, (*path, name))
        else:
            yield (*path, name), command


VERBS = dict(_verbs(typer.main.get_command(app)))
EXAMPLES = [
    line.partition("`")[2].partition("`")[0]
    for command in VERBS.values()
    for line in command.help.splitlines()
    if line.startswith("Example: ")
]


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment in which every server is a port that refuses, and nothing was ever published."""
    with socket.socket() as refusing:
        refusing.bind(("127.0.0.1", 0))  # bound and not listening: nobody else can take it
        address = "{}:{}".format(*refusing.getsockname())
        ours = {
            "KAFKA__BOOTSTRAP_SERVERS": address,
            "KAFKA__REQUEST_TIMEOUT_MS": "200",
            "POSTGRES__DSN": f"postgresql://nearfeed:{SECRET}@{address}/nearfeed",
            "POSTGRES__CONNECT_TIMEOUT_S": "1",
            "SCORER__ADDRESS": address,
            "INGEST__ADDRESS": "127.0.0.1:0",
            "ARCHIVE__HOME": str(tmp_path / "archive"),
            "REGISTRY__HOME": str(tmp_path / "registry"),
        }
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        yield inherited | {f"{PREFIX}{key}": value for key, value in ours.items()}


def nearfeed(environment: dict[str, str], folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(CLI), *arguments],
        env=environment | {"OMP_NUM_THREADS": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_verb_says_what_it_does_and_what_its_options_mean(verb: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(app, [*verb, "--help"])
    assert shown.exit_code == 0
    assert " ".join(VERBS[verb].help.split()[:3]) in shown.output
    assert VERBS[verb].help.splitlines()[0].endswith(".")
    options = [param for param in VERBS[verb].params if param.param_type_name == "option"]
    assert [option.name for option in options if not option.help] == []
    assert all(option.opts[0] in shown.output for option in options)


def test_verbs_that_take_something_of_the_users_show_an_example() -> None:
    taking = {verb for verb, command in VERBS.items() for param in command.params if param.required}
    assert taking == {verb for verb in taking if "Example: " in VERBS[verb].help}
    assert len(taking) >= 3


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_can_be_typed(example: str) -> None:
    words = shlex.split(example)
    while words[0].startswith(PREFIX):
        words.pop(0)
    assert words.pop(0) == "nearfeed"
    verb = next(verb for verb in VERBS if tuple(words[: len(verb)]) == verb)
    VERBS[verb].make_context(" ".join(verb), words[len(verb) :])


@pytest.mark.parametrize(
    "arguments",
    [["recommend"], ["models", "delete"], ["ask", "7", "--slate", "5"], ["ask"], ["up", "--workers", "0"]],
    ids=" ".join,
)
def test_what_is_asked_wrongly_ends_with_2(arguments: list[str]) -> None:
    refused = CliRunner().invoke(app, arguments)
    assert refused.exit_code == 2
    assert "Usage:" in refused.output and "--help" in refused.output
    assert "Traceback" not in refused.output


def test_settings_are_json_with_their_sources_and_without_secrets(elsewhere: dict[str, str]) -> None:
    shown = CliRunner().invoke(app, ["settings", "show", "--json"], env=elsewhere)
    assert shown.exit_code == 0
    assert SECRET not in shown.output
    found = {row["key"]: row for row in json.loads(shown.stdout)}
    assert found["postgres.dsn"]["value"] == MASK
    assert found["postgres.dsn"]["source"] == f"{PREFIX}POSTGRES__DSN"
    assert {row["source"] for row in found.values()} > {"default"}


def test_tables_show_brackets_as_they_are(elsewhere: dict[str, str]) -> None:
    """What comes from outside is text, never markup of the terminal."""
    bracketed = elsewhere | {f"{PREFIX}REGISTRY__HOME": "x[/b]y", f"{PREFIX}POSTGRES__DSN": SECRET}
    shown = CliRunner().invoke(app, ["settings", "show"], env=bracketed)
    assert (shown.exit_code, shown.exception) == (0, None)
    assert "x[/b]y" in shown.output and SECRET not in shown.output


def test_an_unknown_setting_is_one_line_and_2(elsewhere: dict[str, str], tmp_path: Path) -> None:
    refused = nearfeed(elsewhere | {f"{PREFIX}SCORER__THREDS": "4"}, tmp_path, "topics", "apply")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == (
        f"nearfeed: {PREFIX}SCORER__THREDS: unknown setting scorer.threds; `nearfeed settings show` lists all\n"
    )


def test_half_a_location_is_refused(elsewhere: dict[str, str], tmp_path: Path) -> None:
    refused = nearfeed(elsewhere, tmp_path, "ask", "7", "--latitude", "1")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == "nearfeed: found one coordinate, expected --latitude and --longitude together\n"


@pytest.mark.parametrize(
    ("verb", "clear"),
    [
        ("ask 7", "is the server up (`nearfeed serve`)"),
        ("serve scorer", "found no published version"),
        ("topics apply", "no Kafka broker answered at 127.0.0.1"),
        ("serve ingest", "no Kafka broker answered at 127.0.0.1"),
        ("stream", "no Kafka broker answered at 127.0.0.1"),
        ("features show 7", "PostgreSQL: "),
        ("archive --once", "no Kafka broker answered at 127.0.0.1"),
        ("replay --verify", "no Kafka broker answered at 127.0.0.1"),
        ("backfill log.parquet", "no Kafka broker answered at 127.0.0.1"),
        ("forget 7", "no Kafka broker answered at 127.0.0.1"),
    ],
)
def test_a_part_that_is_not_there_is_named_in_the_last_line(
    verb: str, clear: str, elsewhere: dict[str, str], tmp_path: Path
) -> None:
    own = {f"{PREFIX}SCORER__ADDRESS": "127.0.0.1:0"} if verb == "serve scorer" else {}
    failed = nearfeed(elsewhere | own, tmp_path, *verb.split())
    assert (failed.returncode, failed.stdout) == (1, "")
    assert clear in failed.stderr.splitlines()[-1]
    assert failed.stderr.count(clear) == 1
    assert "Traceback" not in failed.stderr and SECRET not in failed.stderr
