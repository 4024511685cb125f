"""Published versions: a folder each, whole or not at all, and a pointer to the one that serves.

    home/
      00000001/   model.onnx  catalog.parquet  tokenizer.npz  [neighbours.npz]  golden.npz  weights.pt  manifest.json
      00000002/   ...
      CURRENT     the number of the version that serves
      .staging-*  what is being made, or was when its maker died; may be deleted

A version is never changed once it has its number. A publish that dies at any instruction leaves CURRENT where it was;
what is on disk then is either a staging folder or a whole version that nobody was told of.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Final

from google.protobuf.json_format import MessageToJson, Parse, ParseError

from core.errors import ArtefactError
from protos.registry.v1.manifest_pb2 import FileDigest, ModelManifest

MODEL_FILE: Final = "model.onnx"
CATALOG_FILE: Final = "catalog.parquet"
TOKENIZER_FILE: Final = "tokenizer.npz"
NEIGHBOURS_FILE: Final = "neighbours.npz"  # where the generator has a prior
GOLDEN_FILE: Final = "golden.npz"
WEIGHTS_FILE: Final = "weights.pt"
MANIFEST_FILE: Final = "manifest.json"
REQUIRED: Final = (MODEL_FILE, CATALOG_FILE, TOKENIZER_FILE, GOLDEN_FILE)

_CURRENT: Final = "CURRENT"
_LOCK: Final = ".lock"


def stage(home: Path) -> Path:
    """A new empty folder to put a version's files into, on the disk that `publish` will rename it on."""
    home.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=".staging-", dir=home))


def publish(home: Path, staged: Path, manifest: ModelManifest) -> int:
    """The staged files are a version and CURRENT names it; returns its number, one above the highest so far.

    Args:
        staged: from `stage`, with the REQUIRED files in it; gone afterwards.
        manifest: what to say about it. Number and file digests are filled in here.

    Raises:
        ArtefactError: a required file is missing; nothing changed.
    """
    missing = [name for name in REQUIRED if not (staged / name).is_file()]
    if missing:
        raise ArtefactError(f"{staged}: found no {', '.join(missing)}, expected all of {', '.join(REQUIRED)}")
    files = sorted(path for path in staged.iterdir() if path.name != MANIFEST_FILE)
    with _locked(home):
        version = max(versions(home), default=0) + 1
        manifest.model_version = version
        del manifest.files[:]
        manifest.files.extend(_digest(path) for path in files)
        (staged / MANIFEST_FILE).write_text(MessageToJson(manifest, preserving_proto_field_name=True), "utf-8")
        for path in (*files, staged / MANIFEST_FILE, staged):
            _sync(path)
        staged.chmod(0o755)  # mkdtemp makes folders for their maker only; scorers may be other users
        staged.rename(_folder(home, version))
        _sync(home)
        _point(home, version)
    return version


def versions(home: Path) -> list[int]:
    """Every published version, ascending."""
    return sorted(int(path.name) for path in home.glob("[0-9]" * 8) if path.is_dir())


def current(home: Path) -> int | None:
    """The version that serves; None while nothing is published.

    Raises:
        ArtefactError: the pointer is damaged.
    """
    try:
        text = (home / _CURRENT).read_text("ascii", "replace").strip()
    except FileNotFoundError:
        return None
    if not text.isdigit():
        raise ArtefactError(f"{home / _CURRENT}: found {text[:20]!r}, expected a number; roll back to a version")
    return int(text)


def folder_of(home: Path, version: int | None) -> Path:
    """The folder of a version; of None, which is what `current` says of an empty registry, there is none.

    Raises:
        ArtefactError: there is no such version.
    """
    if version is None:
        raise ArtefactError(f"{home}: found no published version; train and publish one first")
    folder = _folder(home, version)
    if not folder.is_dir():
        known = ", ".join(map(str, versions(home))) or "none"
        raise ArtefactError(f"{home}: found no version {version}, expected one of {known}")
    return folder


def load_manifest(home: Path, version: int | None) -> ModelManifest:
    """What was published under this number.

    Raises:
        ArtefactError: there is no such version, or its manifest is missing, damaged or another's.
    """
    path = folder_of(home, version) / MANIFEST_FILE
    try:
        manifest = Parse(path.read_text("utf-8"), ModelManifest())
    except (OSError, UnicodeDecodeError, ParseError) as error:
        raise ArtefactError(f"{path}: found no readable manifest ({error}); roll back, then publish again") from None
    if manifest.model_version != version:
        raise ArtefactError(f"{path}: found the manifest of version {manifest.model_version}, expected {version}")
    return manifest


def verify(home: Path, version: int | None) -> ModelManifest:
    """The manifest of a version whose files are all there, byte for byte.

    Raises:
        ArtefactError: naming the first file that is not as it was published.
    """
    manifest = load_manifest(home, version)
    folder = folder_of(home, version)
    listed = {file.name: file for file in manifest.files}
    for name in sorted({*listed, *REQUIRED}):
        path = folder / name
        if name not in listed:
            raise ArtefactError(f"{folder / MANIFEST_FILE}: found no digest of {name}; publish the version again")
        if not path.is_file():
            raise ArtefactError(f"{path}: found nothing, expected {listed[name].size_bytes} bytes; roll back")
        if path.stat().st_size != listed[name].size_bytes:
            found = path.stat().st_size
            raise ArtefactError(f"{path}: found {found} bytes, expected {listed[name].size_bytes}; roll back")
        sha256 = _digest(path).sha256
        if sha256 != listed[name].sha256:
            raise ArtefactError(f"{path}: found SHA-256 {sha256[:12]}, expected {listed[name].sha256[:12]}; roll back")
    return manifest


def rollback(home: Path, version: int | None = None) -> int:
    """CURRENT names `version`, or the newest version below the one that serves; returns it.

    Raises:
        ArtefactError: there is no such version, or it is damaged; CURRENT stays.
    """
    if version is None:
        serving = current(home)
        older = [number for number in versions(home) if serving is not None and number < serving]
        if not older:
            found = "no published version" if serving is None else f"no version before {serving}"
            raise ArtefactError(f"{home}: found {found}, expected one to roll back to; see `nearfeed models list`")
        version = older[-1]
    verify(home, version)
    with _locked(home):
        _point(home, version)
    return version


def _folder(home: Path, version: int) -> Path:
    return home / f"{version:08d}"


def _digest(path: Path) -> FileDigest:
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return FileDigest(name=path.name, sha256=sha256, size_bytes=path.stat().st_size)


def _point(home: Path, version: int) -> None:
    fresh = home / f"{_CURRENT}.new"
    fresh.write_text(f"{version}\n", "ascii")
    _sync(fresh)
    fresh.replace(home / _CURRENT)
    _sync(home)


def _sync(path: Path) -> None:
    """The file, or the list of files of the folder, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    """One publisher at a time; the lock ends with its process."""
    with (home / _LOCK).open("w") as file:
        flock(file, LOCK_EX)
        yield
