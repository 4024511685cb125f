"""What the tokenizer's verbs print, write and refuse."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from core.errors import ArtefactError
from infra.tokenizer_command import tokenizer_app, train_semantic_ids_command
from models import kuairand
from models.catalog import Catalog
from models.catalog_files import load_catalog, save_catalog
from models.registry import GOLDEN_FILE, MODEL_FILE, publish, stage
from models.train_semantic_ids import catalog_health
from protos.catalog.v1.catalog_pb2 import Item
from protos.registry.v1.manifest_pb2 import ModelManifest
from tests.models.shelves import shop, shop_items, shop_walks

train_app = typer.Typer()
train_app.command()(train_semantic_ids_command)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NEARFEED_REGISTRY__HOME", str(tmp_path / "registry"))
    return tmp_path / "registry"


@pytest.fixture
def shop_for_excerpt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kuairand, "read_excerpt", lambda: None)
    monkeypatch.setattr(kuairand, "items", lambda _: shop_items())
    monkeypatch.setattr(kuairand, "sequences", lambda *_: shop_walks())


def published(home: Path, catalog: Catalog) -> int:
    staged = stage(home)
    save_catalog(catalog, staged)
    for name in (MODEL_FILE, GOLDEN_FILE):
        (staged / name).write_bytes(b"none")
    return publish(home, staged, ModelManifest())


def test_the_report_of_a_version_is_that_of_its_catalogue_against_the_one_before(home: Path) -> None:
    first, second = shop().catalog, shop(seed=3).catalog
    published(home, first)
    published(home, second)
    found = json.loads(CliRunner().invoke(tokenizer_app, ["--json"]).stdout)
    assert found == json.loads(json.dumps(catalog_health(second, first)._asdict()))
    alone = json.loads(CliRunner().invoke(tokenizer_app, ["1", "--json"]).stdout)
    assert alone == json.loads(json.dumps(catalog_health(first)._asdict()))


def test_people_get_a_table(home: Path) -> None:
    published(home, shop().catalog)
    shown = CliRunner().invoke(tokenizer_app, ["1"])
    assert shown.exit_code == 0 and "squared error" in shown.stdout and "Version 1" in shown.stdout


def test_an_empty_registry_says_so(home: Path) -> None:
    assert "no published version" in str(CliRunner().invoke(tokenizer_app, []).exception)


@pytest.mark.usefixtures("home", "shop_for_excerpt")
@pytest.mark.parametrize("variant", ["plain", "balanced"])
def test_a_build_is_shown_and_written(tmp_path: Path, variant: str) -> None:
    asked = ["--size", "8", "--variant", variant, "--output", str(tmp_path / "built"), "--json"]
    done = CliRunner().invoke(train_app, asked)
    assert done.exit_code == 0
    catalog = load_catalog(tmp_path / "built")
    assert json.loads(done.stdout) == json.loads(json.dumps(catalog_health(catalog)._asdict()))


@pytest.mark.usefixtures("shop_for_excerpt")
def test_a_build_beside_a_serving_version_is_the_next_tokenizer_and_tells_the_churn(home: Path, tmp_path: Path) -> None:
    published(home, shop().catalog)
    done = CliRunner().invoke(train_app, ["--size", "8", "--output", str(tmp_path / "built"), "--json"])
    assert len(json.loads(done.stdout)["churn"]) == 3
    assert load_catalog(tmp_path / "built").tokenizer.version == 2


@pytest.mark.usefixtures("home")
def test_a_refused_build_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blank = [Item(item_id=f"{number}", available=True) for number in range(100)]
    monkeypatch.setattr(kuairand, "read_excerpt", lambda: None)
    monkeypatch.setattr(kuairand, "items", lambda _: blank)
    monkeypatch.setattr(kuairand, "sequences", lambda *_: [])
    done = CliRunner().invoke(train_app, ["--size", "8", "--output", str(tmp_path / "built")])
    assert isinstance(done.exception, ArtefactError)
    assert not (tmp_path / "built").exists()


@pytest.mark.usefixtures("home", "shop_for_excerpt")
def test_an_unknown_variant_is_asked_wrongly() -> None:
    assert CliRunner().invoke(train_app, ["--variant", "round"]).exit_code == 2
