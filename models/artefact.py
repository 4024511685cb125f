"""A published version, loaded: files as published, parts that belong together, answers as when it was made."""

from pathlib import Path
from typing import Final, NamedTuple

from core.errors import ArtefactError, ContractError
from models.batches import beam_difference
from models.catalog import Catalog
from models.catalog_files import load_catalog
from models.evidence import load_neighbours
from models.golden import Golden, load_golden
from models.newcomers import Newcomers
from models.registry import GOLDEN_FILE, MODEL_FILE, NEIGHBOURS_FILE, folder_of, verify
from models.runtime import Generator, OnnxGenerator
from protos.registry.v1.manifest_pb2 import ModelManifest

# Largest difference of a log-probability to the golden batch. Ten times what an export allows itself against torch:
# another processor adds the same numbers in another order.
GOLDEN_TOLERANCE: Final = 1e-3


class Artefact(NamedTuple):
    """Everything that a version serves with."""

    manifest: ModelManifest
    catalog: Catalog
    generator: Generator
    golden: Golden


def load_artefact(home: Path, version: int | None, threads: int) -> Artefact:
    """The version, verified: digests, then that catalogue and manifest agree, then the golden batch.

    Args:
        version: a number, or what `models.registry.current` says.
        threads: of ONNX Runtime, inside an operator.

    Raises:
        ArtefactError: one line that says what is missing, damaged, or answers otherwise than when it was published.
    """
    manifest = verify(home, version)
    folder = folder_of(home, version)
    catalog = load_catalog(folder)
    if catalog.digest() != manifest.catalog_digest:
        raise ArtefactError(
            f"{folder}: found a catalogue of digest {catalog.digest()[:12]}, "
            f"expected {manifest.catalog_digest[:12]}; publish model and catalogue together"
        )
    if (folder / NEIGHBOURS_FILE).exists():
        tables = load_neighbours(folder / NEIGHBOURS_FILE, len(catalog))
        catalog.welcome(Newcomers(catalog.items, tables, catalog.capacity))
    generator = OnnxGenerator.load(folder / MODEL_FILE, threads)
    golden = load_golden(folder / GOLDEN_FILE)
    try:
        answer = generator.generate(golden.batch, catalog.trie)
    except ContractError as error:
        raise ArtefactError(f"{folder}: the golden batch cannot be asked: {error}") from error
    difference = beam_difference(golden.beams, answer)
    if not difference <= GOLDEN_TOLERANCE:
        raise ArtefactError(
            f"{folder}: the golden answer differs by {difference:.1e}, expected at most {GOLDEN_TOLERANCE:.0e}; "
            f"{generator.provider} computes otherwise than where the model was made"
        )
    return Artefact(manifest, catalog, generator, golden)
