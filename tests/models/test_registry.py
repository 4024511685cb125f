"""Laws of the registry: a version is whole or not there, and CURRENT never names what is not."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import models.registry
from core.errors import ArtefactError
from models.registry import (
    CATALOG_FILE,
    MANIFEST_FILE,
    MODEL_FILE,
    REQUIRED,
    current,
    folder_of,
    load_manifest,
    publish,
    rollback,
    stage,
    verify,
    versions,
)
from protos.registry.v1.manifest_pb2 import GateCheck, GateVerdict, ModelManifest


def staged(home: Path, text: str = "contents") -> Path:
    folder = stage(home)
    for name in REQUIRED:
        (folder / name).write_text(f"{text} of {name}")
    return folder


def published(home: Path, count: int = 1) -> int:
    return [publish(home, staged(home, f"{number}"), ModelManifest(tokenizer_version=5)) for number in range(count)][-1]


def test_a_published_version_is_current_and_verified(tmp_path: Path) -> None:
    assert (current(tmp_path), versions(tmp_path)) == (None, [])
    folder = staged(tmp_path)
    (folder / "weights.pt").write_bytes(b"weights")
    gate = GateVerdict(passed=True, checks=[GateCheck(name="legality", passed=True, value=1.0)])
    version = publish(tmp_path, folder, ModelManifest(tokenizer_version=5, gate=gate))
    assert (version, current(tmp_path), versions(tmp_path)) == (1, 1, [1])
    manifest = verify(tmp_path, version)
    assert (manifest.model_version, manifest.tokenizer_version, manifest.gate) == (1, 5, gate)
    assert {file.name for file in manifest.files} == {*REQUIRED, "weights.pt"}
    assert not folder.exists()


def test_versions_rise_by_one_even_after_a_rollback(tmp_path: Path) -> None:
    published(tmp_path, 3)
    assert rollback(tmp_path) == 2 == current(tmp_path)
    assert rollback(tmp_path) == 1 == current(tmp_path)
    assert published(tmp_path) == 4 == current(tmp_path)
    assert rollback(tmp_path, 2) == 2 == current(tmp_path)
    assert versions(tmp_path) == [1, 2, 3, 4]


@pytest.mark.parametrize("missing", REQUIRED)
def test_an_incomplete_version_is_not_published(tmp_path: Path, missing: str) -> None:
    published(tmp_path)
    folder = staged(tmp_path)
    (folder / missing).unlink()
    with pytest.raises(ArtefactError, match=f"found no {missing}"):
        publish(tmp_path, folder, ModelManifest())
    assert (current(tmp_path), versions(tmp_path)) == (1, [1])


class Died(Exception):
    """Stands for a process that ends between two instructions."""


@pytest.mark.parametrize("steps", range(10))
def test_an_interrupted_publish_leaves_current_whole(
    tmp_path: Path, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Die after each of the writes that reach the disk: CURRENT names a whole version, the old one or the new."""
    published(tmp_path)
    folder = staged(tmp_path, "new")
    left = steps

    def fsync_or_die(descriptor: int) -> None:
        nonlocal left
        if left == 0:
            raise Died
        left -= 1
        os.fsync(descriptor)

    class DyingOs:
        O_RDONLY, open, close, fsync = os.O_RDONLY, os.open, os.close, staticmethod(fsync_or_die)

    with monkeypatch.context() as patched:
        patched.setattr(models.registry, "os", DyingOs)
        try:
            publish(tmp_path, folder, ModelManifest())
            died = False
        except Died:
            died = True
    assert died == (steps < 9)  # four files, manifest, folder, home, pointer, home
    serving = current(tmp_path)
    assert serving == (1 if steps < 8 else 2)
    for version in versions(tmp_path):
        verify(tmp_path, version)
    assert publish(tmp_path, staged(tmp_path), ModelManifest()) == len(versions(tmp_path)) == current(tmp_path)


def test_two_publishers_get_two_versions(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from models.registry import *; "
        "from protos.registry.v1.manifest_pb2 import ModelManifest; home = Path(sys.argv[1])\n"
        "for _ in range(5):\n"
        "    folder = stage(home)\n"
        "    for name in REQUIRED: (folder / name).write_text('x')\n"
        "    publish(home, folder, ModelManifest())\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path)]) for _ in range(2)]
    assert [process.wait(timeout=60) for process in running] == [0, 0]
    assert versions(tmp_path) == list(range(1, 11))
    assert current(tmp_path) == 10
    for version in versions(tmp_path):
        verify(tmp_path, version)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / MODEL_FILE).unlink(), "model.onnx: found nothing"),
        (lambda folder: (folder / MODEL_FILE).write_text("short"), "model.onnx: found 5 bytes"),
        (lambda folder: (folder / CATALOG_FILE).write_text("0 of catalog.parqueT"), "catalog.parquet: found SHA-256"),
        (lambda folder: (folder / MANIFEST_FILE).unlink(), "no readable manifest"),
        (lambda folder: (folder / MANIFEST_FILE).write_text("{"), "no readable manifest"),
        (lambda folder: (folder / MANIFEST_FILE).write_text('{"model_version": 1}'), "found no digest of"),
        (lambda folder: (folder / MANIFEST_FILE).write_text('{"model_version": 7}'), "manifest of version 7"),
    ],
)
def test_damage_is_named_in_one_line_and_is_not_rolled_back_to(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    published(tmp_path, 2)
    damage(folder_of(tmp_path, 1))
    with pytest.raises(ArtefactError, match=message) as caught:
        verify(tmp_path, 1)
    assert "\n" not in str(caught.value)
    with pytest.raises(ArtefactError):
        rollback(tmp_path)
    assert current(tmp_path) == 2


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="found no published version"):
        load_manifest(tmp_path, current(tmp_path))
    published(tmp_path)
    with pytest.raises(ArtefactError, match="found no version 3, expected one of 1"):
        load_manifest(tmp_path, 3)
    with pytest.raises(ArtefactError, match="found no version before 1"):
        rollback(tmp_path)
    (tmp_path / "CURRENT").write_text("?")
    with pytest.raises(ArtefactError, match="expected a number"):
        current(tmp_path)
