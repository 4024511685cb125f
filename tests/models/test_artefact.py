"""Laws of a loaded version: its parts belong together and it answers as when it was made."""

from pathlib import Path

import numpy as np
import pytest

from core.errors import ArtefactError
from models.artefact import GOLDEN_TOLERANCE, load_artefact
from models.batches import TABLES, ContextBatch
from models.catalog import Catalog
from models.catalog_files import save_catalog
from models.export import export_generator
from models.golden import Golden, load_golden, save_golden
from models.registry import GOLDEN_FILE, MODEL_FILE, publish, stage
from protos.registry.v1.manifest_pb2 import ModelManifest
from tests.models.shelves import CODES, shop
from tests.models.worlds import random_context, small_config, small_generator, table_of

WIDTH = 4


class Parts:
    """What a version is made of, exported once."""

    def __init__(self, folder: Path) -> None:
        self.catalog: Catalog = shop().catalog
        self.model = folder / MODEL_FILE
        batch: ContextBatch = random_context(np.random.default_rng(0), 3, CODES)
        generator = small_generator(config=small_config(CODES))
        beams = export_generator(generator, self.model, batch, self.catalog.trie, beam_width=WIDTH)
        self.golden = Golden(batch, beams)

    def publish(self, home: Path, golden: Golden | None = None, digest: str | None = None) -> int:
        folder = stage(home)
        (folder / MODEL_FILE).write_bytes(self.model.read_bytes())
        save_catalog(self.catalog, folder)
        save_golden(golden or self.golden, folder / GOLDEN_FILE)
        return publish(home, folder, ModelManifest(catalog_digest=digest or self.catalog.digest()))


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    return Parts(tmp_path_factory.mktemp("parts"))


def test_a_published_version_answers_as_when_it_was_made(parts: Parts, tmp_path: Path) -> None:
    artefact = load_artefact(tmp_path, parts.publish(tmp_path), threads=1)
    assert artefact.manifest.model_version == 1
    assert artefact.catalog.digest() == parts.catalog.digest()
    assert artefact.generator.beam_width == WIDTH
    answer = artefact.generator.generate(artefact.golden.batch, artefact.catalog.trie)
    np.testing.assert_array_equal(answer.items, parts.golden.beams.items)


def test_a_version_brings_its_neighbours_and_damaged_ones_do_not_load(parts: Parts, tmp_path: Path) -> None:
    parts.catalog.neighbours = (table_of(np.eye(len(parts.catalog), k=1)),) * TABLES
    version = parts.publish(tmp_path)
    catalog = load_artefact(tmp_path, version, threads=1).catalog
    for table in catalog.neighbours:
        assert table.items[:3, 0].tolist() == [1, 2, 3]
    assert catalog.lent is not None, "what comes later borrows nothing"
    parts.catalog.neighbours = (table_of(np.eye(len(parts.catalog) + 1, k=1)),) * TABLES
    larger = parts.publish(tmp_path)
    parts.catalog.neighbours = ()
    with pytest.raises(ArtefactError, match="count them anew"):
        load_artefact(tmp_path, larger, threads=1)
    assert load_artefact(tmp_path, parts.publish(tmp_path), threads=1).catalog.neighbours == ()


def test_a_model_that_answers_otherwise_does_not_load(parts: Parts, tmp_path: Path) -> None:
    beams = parts.golden.beams
    moved = beams._replace(masked_log_probs=beams.masked_log_probs - np.float32(2 * GOLDEN_TOLERANCE))
    version = parts.publish(tmp_path, golden=parts.golden._replace(beams=moved))
    with pytest.raises(ArtefactError, match="the golden answer differs by"):
        load_artefact(tmp_path, version, threads=1)


def test_a_catalogue_that_the_manifest_does_not_name_does_not_load(parts: Parts, tmp_path: Path) -> None:
    version = parts.publish(tmp_path, digest="0" * 64)
    with pytest.raises(ArtefactError, match="publish model and catalogue together"):
        load_artefact(tmp_path, version, threads=1)


def test_an_empty_registry_is_said(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="found no published version"):
        load_artefact(tmp_path, None, threads=1)


def test_a_damaged_golden_batch_is_named(parts: Parts, tmp_path: Path) -> None:
    path = tmp_path / GOLDEN_FILE
    save_golden(parts.golden, path)
    for ours, theirs in zip(load_golden(path).batch, parts.golden.batch, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for contents in (path.read_bytes()[:100], b"noise", b""):
        path.write_bytes(contents)
        with pytest.raises(ArtefactError, match="found no readable golden batch"):
            load_golden(path)
