"""The command: killed at any step and started again, it ends as if nothing had happened."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from models.example_shards import write_shards
from tests.models.example_worlds import CODES, random_examples

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 300.0
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}  # equal sums need equal numbers of threads


def command(folder: Path, out: str, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "models.train_from_shards"),
        *(str(folder / "examples"), "--codes", str(folder / "codes.npy"), "--out", str(folder / out)),
        *("--preset", "tiny", "--codebook-size", "5", "--batch-size", "8", "--epochs", "12"),
        *("--validation", str(folder / "later"), *more),
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_shards([random_examples(100)], tmp_path / "examples", shard_rows=16)
    write_shards([random_examples(30, seed=1)], tmp_path / "later")
    np.save(tmp_path / "codes.npy", CODES)
    return tmp_path


def curve(path: Path) -> list[dict[str, float]]:
    reports: list[dict[str, float]] = json.loads(path.read_text("utf-8"))["curve"]
    return [{name: value for name, value in report.items() if name != "elapsed_s"} for report in reports]


def test_a_killed_run_ends_with_the_same_curve_to_the_bit(folder: Path) -> None:
    run(command(folder, "whole"))
    checkpoint, seed = folder / "killed" / "checkpoint.pt", random.randrange(1 << 30)
    chance = random.Random(seed)
    killed = command(folder, "killed", "--every-steps", "3")
    child = subprocess.Popen(killed, cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    changes, seen, deadline = chance.randint(1, 15), -1, time.monotonic() + DEADLINE_S
    while changes and child.poll() is None and time.monotonic() < deadline:
        now = checkpoint.stat().st_mtime_ns if checkpoint.exists() else -1
        changes, seen = changes - (now != seen), now
        time.sleep(0.001)
    child.send_signal(signal.SIGKILL)
    assert child.wait(10) == -signal.SIGKILL, f"seed {seed}: the run ended before it was killed"
    run(killed)
    assert curve(folder / "killed" / "curve.json") == curve(folder / "whole" / "curve.json"), f"seed {seed}"
    assert (folder / "killed" / "curve.png").stat().st_size > 1000


def test_progress_is_a_line_with_loss_and_validation_where_there_is_no_terminal(folder: Path) -> None:
    lines = [line for line in run(command(folder, "out", "--seconds", "600")).splitlines() if "%" in line]
    assert len(lines) == 20
    assert all("loss" in line and "validation" in line for line in lines)


def run(words: list[str]) -> str:
    """What the command has said on its way; it ended well."""
    ended = subprocess.run(
        words, cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, check=False, timeout=DEADLINE_S
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stderr
