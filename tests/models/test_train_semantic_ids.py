"""Bad input has a stated result or a clear error before any work; the report belongs to what was built."""

from pathlib import Path

import numpy as np
import pytest

from core.errors import ArtefactError, InputError, TooLarge
from core.ids import item_key
from models import train_semantic_ids as training
from models.catalog_files import load_catalog, save_catalog
from models.codebook_training import Variant
from models.item_training import VectorArgs
from models.tokenizer_health import HealthLimits
from models.train_semantic_ids import SemanticIdArgs, catalog_health, categories, train_semantic_ids
from protos.catalog.v1.catalog_pb2 import Item
from protos.events.v1.interaction_pb2 import Location
from tests.models.shelves import CODES, shop, shop_item, shop_items, shop_walks

NAN_PLACE = Item(item_id="x", available=True, location=Location(latitude=float("nan"), longitude=1.0))


@pytest.mark.parametrize(
    ("items", "args", "error", "message"),
    [
        ([], SemanticIdArgs(), InputError, "found no items"),
        ([shop_item("a", 0), shop_item("a", 1)], SemanticIdArgs(), InputError, "found items 'a' and 'a' under one key"),
        ([Item(available=True)], SemanticIdArgs(), InputError, "item '', item_id: found nothing"),
        ([NAN_PLACE], SemanticIdArgs(), InputError, "item 'x', .*nan"),
        (shop_items(), SemanticIdArgs(codebook_size=3), TooLarge, "found 60 items, expected at most 27"),
        (shop_items(), SemanticIdArgs(capacity=59), TooLarge, "found 60 items, expected at most 59"),
    ],
)
def test_what_cannot_become_paths_is_refused_before_any_work(
    items: list[Item], args: SemanticIdArgs, error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "fit_item_vectors", lambda *_: pytest.fail("work began"))
    with pytest.raises(error, match=message):
        train_semantic_ids(items, [], args)


@pytest.mark.parametrize("bad", [{"levels": 0}, {"codebook_size": 0}, {"levels": 5, "codebook_size": 8192}])
def test_shapes_that_cannot_be_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(InputError, match="expected"):
        SemanticIdArgs(**bad)


def test_items_that_say_nothing_and_that_nobody_took_are_refused_together_but_not_alone() -> None:
    blank = [Item(item_id=f"blank-{number}", available=True) for number in range(40)]
    with pytest.raises(ArtefactError, match="32 of 40 items without room behind"):
        train_semantic_ids(blank, [], SemanticIdArgs(codebook_size=8))
    built = train_semantic_ids([*shop_items(), blank[0]], shop_walks(), SemanticIdArgs(codebook_size=CODES))
    assert len(built.catalog) == 61


def test_a_codebook_larger_than_the_catalogue_is_a_result() -> None:
    built = train_semantic_ids(shop_items(), shop_walks(), SemanticIdArgs(codebook_size=256))
    assert built.health.error == pytest.approx(0.0, abs=1e-6)
    assert built.health.largest_bucket <= 256


def test_users_with_one_act_change_nothing() -> None:
    single = [*shop_walks(), np.array([item_key("0-1")], np.int64)]
    args = SemanticIdArgs(codebook_size=CODES, vectors=VectorArgs(gate=0.0))
    with_them, without = (train_semantic_ids(shop_items(), walks, args).catalog for walks in (single, shop_walks()))
    np.testing.assert_array_equal(with_them.vectors, without.vectors)


def test_a_build_beyond_its_limits_is_refused() -> None:
    with pytest.raises(ArtefactError, match="squared error"):
        train_semantic_ids(
            shop_items(), shop_walks(), SemanticIdArgs(codebook_size=CODES, limits=HealthLimits(error=1e-6))
        )


@pytest.mark.parametrize("variant", Variant)
def test_a_published_catalogue_is_judged_as_it_was_built(tmp_path: Path, variant: Variant) -> None:
    built = train_semantic_ids(shop_items(), shop_walks(), SemanticIdArgs(codebook_size=CODES, variant=variant))
    save_catalog(built.catalog, tmp_path)
    assert catalog_health(load_catalog(tmp_path)) == built.health


def test_churn_is_told_against_the_catalogue_before() -> None:
    before = shop().catalog
    again = train_semantic_ids(
        shop_items()[:-5], shop_walks(), SemanticIdArgs(codebook_size=CODES, seed=7), previous=before
    )
    assert len(again.health.churn) == 3 and 0 < again.health.churn[0] <= again.health.churn[2]
    assert catalog_health(before, before).churn == (0.0, 0.0, 0.0)


def test_a_first_level_of_many_codes_fits_into_stored_states() -> None:
    items = [shop_item(f"{number}", number % 7) for number in range(300)]
    rng = np.random.default_rng(0)
    walks = [np.array([item_key(f"{number}") for number in rng.permutation(300)[:10]]) for _ in range(200)]
    catalog = train_semantic_ids(items, walks, SemanticIdArgs(codebook_size=128)).catalog
    assert catalog.codes[:, 0].max() >= 64
    assert catalog.table.first_codes.max() < 64


def test_a_tag_that_most_items_have_is_no_category() -> None:
    items = [Item(tags=["shop", "a"]), Item(tags=["shop", "b"]), Item(tags=["shop"]), Item()]
    assert categories(items) == ["a", "b", "", ""]
