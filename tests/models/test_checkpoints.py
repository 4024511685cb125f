"""A checkpoint is whole, is the newest, and belongs to its run."""

import os
from pathlib import Path

import pytest
import torch

from core.errors import ArtefactError, InputError
from models.checkpoints import Best, Checkpoint, read_checkpoint, run_digest, seed_of_step, write_checkpoint


def made(step: int) -> Checkpoint:
    weights = {"w": torch.full((2, 3), float(step))}
    best = Best(0.5, {"w": torch.ones(2)})
    average = {"module.w": torch.full((2, 3), 0.5)}
    return Checkpoint(
        "run", step, 1.5, 0.25, weights, {"optimizer": {}}, average, [0.1, 0.2], [(1, 2.0, None)], best, 2
    )


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    write_checkpoint(made(7), tmp_path / "deep" / "checkpoint.pt")
    found = read_checkpoint(tmp_path / "deep" / "checkpoint.pt", "run")
    assert found is not None
    assert found.best is not None
    assert torch.equal(found.model["w"], torch.full((2, 3), 7.0))
    assert torch.equal(found.best.weights["w"], torch.ones(2))
    assert found.average is not None
    assert torch.equal(found.average["module.w"], torch.full((2, 3), 0.5))
    tensors = {"model": {}, "average": None, "best": None}
    assert found._replace(**tensors) == made(7)._replace(**tensors)


def test_an_interrupted_write_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoint.pt"
    write_checkpoint(made(1), path)
    before = os.fsync

    def killed(descriptor: int) -> None:
        before(descriptor)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(made(2), path)
    monkeypatch.undo()
    found = read_checkpoint(path, "run")
    assert found is not None
    assert found.step == 1


def test_nothing_there_is_a_beginning_and_damage_is_said(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    assert read_checkpoint(path, "run") is None
    write_checkpoint(made(1), path)
    with pytest.raises(InputError, match="found a checkpoint of run run"):
        read_checkpoint(path, "other")
    for damage in (b"", b"no checkpoint", path.read_bytes()[:-200]):
        path.write_bytes(damage)
        with pytest.raises(ArtefactError, match="remove it to begin anew"):
            read_checkpoint(path, "run")


def test_a_digest_and_a_seed_depend_on_every_part() -> None:
    assert run_digest({"a": 1}, [2]) == run_digest({"a": 1}, [2])
    assert len({run_digest({"a": 1}, [2]), run_digest({"a": 2}, [2]), run_digest({"a": 1}, [3])}) == 3
    assert len({seed_of_step(seed, step, rank) for seed in range(3) for step in range(3) for rank in range(3)}) == 27
