"""Laws of the catalogue: one item per path, for good; only what may be shown can be reached."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import ArtefactError, ContractError, TooLarge
from core.ids import ItemKey, item_key
from feature_repo.folds.act import UNKNOWN_PLACE
from models.catalog import Applied, Catalog
from models.catalog_files import load_catalog, save_catalog
from models.evidence import near_items
from models.item_vectors import FEATURES, WORDS, words_of
from models.neighbours import neighbour_tables
from models.newcomers import Newcomers
from models.tokenizer import Tokenizer
from models.tokenizer_health import HealthLimits
from models.trie import Trie, build_trie
from protos.catalog.v1.catalog_pb2 import CatalogRecord, Item, OpeningHours
from tests.models.shelves import record_of, set_available, shop, shop_item, shop_items, shop_walks, walk


@pytest.fixture
def catalog() -> Catalog:
    return shop().catalog


def reachable(catalog: Catalog) -> list[str]:
    return [item.item_id for index, item in enumerate(catalog.items) if walk(catalog, catalog.codes[index]) == index]


def test_every_item_has_one_path_and_is_reached_by_it(catalog: Catalog) -> None:
    assert len({tuple(path) for path in catalog.codes.tolist()}) == len(catalog)
    assert reachable(catalog) == [item.item_id for item in shop_items()]


def test_a_new_item_gets_a_free_path_and_nobody_else_moves(catalog: Catalog) -> None:
    before = catalog.codes.copy()
    applied = catalog.apply([record_of(catalog, shop_item("new", 2))])
    assert applied == Applied(added=1, changed=0, removed=0, foreign=0)
    np.testing.assert_array_equal(catalog.codes[:-1], before)
    assert tuple(catalog.codes[-1].tolist()) not in {tuple(path) for path in before.tolist()}
    assert "new" in reachable(catalog)
    assert catalog.indices_of(np.array([item_key("new")])) == [len(before)]


def test_a_new_item_stands_behind_the_first_code_of_its_shelf(catalog: Catalog) -> None:
    path = catalog.assign([shop_item("new", 2)])[0]
    behind = {catalog.items[index].item_id[0] for index in np.flatnonzero(catalog.codes[:, 0] == path[0])}
    assert behind == {"2"}


def test_items_assigned_together_never_meet(catalog: Catalog) -> None:
    new = [shop_item(f"new-{number}", 2) for number in range(30)]
    paths = catalog.assign([*new, shop_items()[0], new[0]])
    everybody = {tuple(path) for path in (*catalog.codes.tolist(), *paths[:30].tolist())}
    assert len(everybody) == len(catalog) + 30
    np.testing.assert_array_equal(paths[30], catalog.codes[0])
    np.testing.assert_array_equal(paths[31], paths[0])


def test_assigning_changes_nothing(catalog: Catalog) -> None:
    before, arrays = catalog.digest(), [array.copy() for array in catalog.trie]
    catalog.assign([shop_item("new", 1)])
    assert catalog.digest() == before
    for ours, theirs in zip(catalog.trie, arrays, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_removed_item_cannot_be_reached_and_its_path_is_never_given_again(catalog: Catalog) -> None:
    path, vector = catalog.codes[0].copy(), catalog.vectors[0].copy()
    assert catalog.remove("0-0")
    assert "0-0" not in reachable(catalog)
    assert catalog.assign([shop_item("twin", 0)])[0].tolist() != path.tolist()
    np.testing.assert_array_equal(catalog.table.vectors[catalog.place(item_key("0-0"))], vector)  # histories name it
    with pytest.raises(ContractError, match="removed for good"):
        catalog.apply([CatalogRecord(item=shop_item("0-0", 0), tokenizer_version=1, codes=path.tolist())])


def test_what_is_not_available_cannot_be_reached_until_it_is(catalog: Catalog) -> None:
    set_available(catalog, "1-1", False)
    assert "1-1" not in reachable(catalog)
    set_available(catalog, "1-1", True)
    assert "1-1" in reachable(catalog)
    assert not catalog.remove("nobody")


changes = st.lists(
    st.tuples(st.sampled_from(["add", "remove", "open", "close"]), st.integers(0, 7)), min_size=1, max_size=20
)


@settings(max_examples=30, deadline=None)
@given(changes, st.data())
def test_a_changed_trie_equals_one_built_anew_however_changes_are_grouped(
    steps: list[tuple[str, int]], data: st.DataObject
) -> None:
    live, writer = shop(items=shop_items()[:8]).catalog, shop(items=shop_items()[:8]).catalog
    records: list[CatalogRecord] = []
    for kind, number in steps:
        item = shop_items()[number] if kind != "add" else shop_item(f"extra-{number}", number % 4)
        index = writer.index_of(item.item_id)
        if index is not None and writer.removed[index]:
            continue
        item.available = kind != "close"
        record = record_of(writer, item)
        if kind == "remove":
            record = CatalogRecord(item=Item(item_id=item.item_id), tokenizer_version=1, removed=True)
        writer.apply([record])
        records.append(record)
    cut = data.draw(st.integers(0, len(records)))
    live.apply(records[:cut])
    live.apply(records[cut:])
    np.testing.assert_array_equal(live.codes, writer.codes)
    words = np.full((live.capacity, WORDS), FEATURES, np.int32)
    words[: len(live)] = [words_of(item) for item in live.items]
    size = live.tokenizer.codebook.size
    built = build_trie(live.codes, live.capacity, codebook_size=size, live=live.available, words=words)
    for ours, theirs in zip(live.trie, built, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert not (live.available & live.removed[: len(live)]).any()


def test_a_repeated_record_changes_nothing(catalog: Catalog) -> None:
    record = record_of(catalog, shop_item("new", 1))
    catalog.apply([record])
    digest = catalog.digest()
    assert catalog.apply([record]) == Applied(added=0, changed=1, removed=0, foreign=0)
    assert catalog.digest() == digest


def test_an_upsert_changes_what_an_item_is_and_not_where_it_stands(catalog: Catalog) -> None:
    codes, vector = catalog.codes[0].copy(), catalog.vectors[0].copy()
    moved = shop_item("0-0", 3, at=(31.0, 121.0))
    moved.duration_ms = 77_000
    moved.opening_hours.append(OpeningHours(weekday=1, open_minute=540, close_minute=600))
    catalog.apply([record_of(catalog, moved)])
    key = item_key("0-0")
    assert (catalog.duration_ms(key), catalog.location(key)) == (77_000, (31.0, 121.0))
    np.testing.assert_array_equal(catalog.codes[0], codes)
    np.testing.assert_array_equal(catalog.vectors[0], vector)
    monday_9_30 = 1_700_438_400_000 + 570 * 60_000
    first_two = np.array([0, 1], np.int32)
    assert catalog.open_at(first_two, monday_9_30, 0).tolist() == [True, True]
    assert catalog.open_at(first_two, monday_9_30, 60).tolist() == [False, True]


def test_a_path_that_is_taken_is_refused_and_the_records_before_it_stand(catalog: Catalog) -> None:
    good = record_of(catalog, shop_item("good", 1))
    bad = CatalogRecord(item=shop_item("bad", 1), tokenizer_version=1, codes=catalog.codes[3].tolist())
    with pytest.raises(ContractError, match="is taken"):
        catalog.apply([good, bad])
    assert "good" in reachable(catalog)
    assert catalog.index_of("bad") is None


def test_codes_that_contradict_the_catalogue_are_refused(catalog: Catalog) -> None:
    record = CatalogRecord(item=shop_item("0-0", 0), tokenizer_version=1, codes=[7, 7, 7])
    with pytest.raises(ContractError, match="a second process assigns codes"):
        catalog.apply([record])


def test_codes_of_another_tokenizer_are_not_used(catalog: Catalog) -> None:
    records = [
        CatalogRecord(item=shop_item(name, 0, available=False), tokenizer_version=9, codes=[7, 7, 7])
        for name in ("0-0", "new")
    ]
    codes = catalog.codes[0].copy()
    assert catalog.apply(records) == Applied(added=0, changed=1, removed=0, foreign=1)
    assert "0-0" not in reachable(catalog)
    np.testing.assert_array_equal(catalog.codes[0], codes)


def test_a_full_catalogue_says_so() -> None:
    catalog = shop(capacity=60).catalog
    with pytest.raises(TooLarge, match="all 60 rows of the catalogue are used"):
        catalog.apply([record_of(catalog, shop_item("new", 1))])
    with pytest.raises(TooLarge, match="expected at most 59"):
        shop(capacity=59)


def test_two_items_of_one_name_are_refused(catalog: Catalog) -> None:
    twice = [*range(len(catalog)), 0]
    items = [catalog.items[index] for index in twice]
    with pytest.raises(ContractError, match="have one key"):
        Catalog(items, catalog.codes[twice], catalog.vectors[twice], catalog.tokenizer)


def test_indices_are_those_of_the_keys_in_any_shape(catalog: Catalog) -> None:
    catalog.apply([record_of(catalog, shop_item("new", 1))])
    keys = np.array([[item_key("new"), -1, 0], [item_key("3-3"), 12345, item_key("0-0")]], np.int64)
    indices = catalog.indices_of(keys)
    assert indices.dtype == np.int32
    assert indices.tolist() == [[60, -1, -1], [catalog.index_of("3-3"), -1, 0]]


def test_the_folds_table_follows_the_catalogue(catalog: Catalog) -> None:
    table = catalog.table
    assert catalog.table is table  # made once
    place = catalog.place(item_key("1-3"))
    assert place == catalog.index_of("1-3")
    np.testing.assert_array_equal(table.vectors, catalog.vectors)
    assert table.first_codes.tolist() == catalog.codes[:, 0].tolist()
    catalog.apply([record_of(catalog, shop_item("new", 1))])
    assert len(catalog.table.vectors) == len(catalog.items) == len(table.vectors) + 1
    assert catalog.table.first_codes[catalog.place(item_key("new"))] == catalog.codes[-1, 0]


def test_an_unknown_key_is_an_item_that_nothing_is_known_of(catalog: Catalog) -> None:
    assert catalog.place(ItemKey(5)) == UNKNOWN_PLACE
    assert catalog.duration_ms(ItemKey(5)) == -1
    assert catalog.location(ItemKey(5)) is None
    assert catalog.location(item_key("0-0")) is None


def test_the_digest_changes_with_ids_codes_and_tokenizer_and_with_nothing_else(catalog: Catalog) -> None:
    tokenizer = catalog.tokenizer
    codes = catalog.codes.copy()
    codes[[0, 1]] = codes[[1, 0]]
    renamed = [shop_item("renamed", 0), *catalog.items[1:]]
    newer = Tokenizer(tokenizer.version + 1, tokenizer.encoder, tokenizer.codebook)
    changed = [
        Catalog(catalog.items, codes, catalog.vectors, tokenizer),
        Catalog(renamed, catalog.codes, catalog.vectors, tokenizer),
        Catalog(catalog.items, catalog.codes, catalog.vectors, newer),
    ]
    assert len({catalog.digest(), *(other.digest() for other in changed)}) == 4
    digest = catalog.digest()
    set_available(catalog, "0-0", False)
    assert catalog.digest() == digest


def test_the_middle_of_the_places_does_not_jump_at_the_antimeridian() -> None:
    items = [*shop_items()[1:], shop_item("east", 0, at=(10.0, 179.0)), shop_item("west", 0, at=(10.0, -179.0))]
    centre = shop(items=items).catalog.centre
    assert centre is not None
    assert abs(centre[1]) == pytest.approx(180.0)
    assert centre[0] == pytest.approx(10.0, abs=0.01)
    assert shop().catalog.centre is None


def test_equal_arguments_give_an_equal_catalogue_and_another_seed_another() -> None:
    assert shop(seed=1).catalog.digest() == shop(seed=1).catalog.digest() != shop(seed=2).catalog.digest()


def test_a_saved_catalogue_comes_back_whole(catalog: Catalog, tmp_path: Path) -> None:
    catalog.apply([record_of(catalog, shop_item("place", 1, at=(31.0, 121.0)))])
    set_available(catalog, "0-1", False)
    catalog.remove("0-2")
    save_catalog(catalog, tmp_path)
    loaded = load_catalog(tmp_path)
    assert loaded.digest() == catalog.digest()
    assert loaded.items == catalog.items
    assert (loaded.capacity, loaded.centre) == (catalog.capacity, pytest.approx((31.0, 121.0)))
    np.testing.assert_array_equal(loaded.removed, catalog.removed)
    for ours, theirs in zip(loaded.trie, catalog.trie, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    other = shop_item("new", 3)
    np.testing.assert_array_equal(loaded.assign([other]), catalog.assign([other]))


def test_equal_catalogues_are_equal_files(catalog: Catalog, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save_catalog(catalog, tmp_path / name)
    for file in ("catalog.parquet", "tokenizer.npz"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_catalogue_and_a_tokenizer_of_two_makings_do_not_load(tmp_path: Path) -> None:
    for seed in (1, 2):
        (tmp_path / str(seed)).mkdir()
        save_catalog(shop(seed=seed).catalog, tmp_path / str(seed))
    shutil.copy(tmp_path / "2" / "tokenizer.npz", tmp_path / "1" / "tokenizer.npz")
    with pytest.raises(ArtefactError, match="not published together"):
        load_catalog(tmp_path / "1")


@pytest.mark.parametrize("file", ["catalog.parquet", "tokenizer.npz"])
@pytest.mark.parametrize("damage", ["gone", "cut", "noise"])
def test_a_damaged_file_is_named_in_one_line(catalog: Catalog, tmp_path: Path, file: str, damage: str) -> None:
    save_catalog(catalog, tmp_path)
    path = tmp_path / file
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:200] if damage == "cut" else b"noise" * 50)
    with pytest.raises(ArtefactError, match=file) as caught:
        load_catalog(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_codes_of_like_items_change_when_only_their_place_does() -> None:
    """Two towns, 100 km apart, with the same shelves: location is part of what is quantised."""
    towns = [(31.0, 121.0), (32.0, 121.0)]
    placed = [
        shop_item(f"{town}-{shelf}-{number}", shelf, at=(towns[town][0] + number / 1000, towns[town][1]))
        for town in (0, 1)
        for shelf in range(2)
        for number in range(10)
    ]
    codes = shop(items=placed).catalog.codes
    first_codes = [set(codes[20 * town : 20 * (town + 1), 0].tolist()) for town in (0, 1)]
    assert first_codes[0].isdisjoint(first_codes[1])
    nowhere = [shop_item(item.item_id, int(item.item_id[2])) for item in placed]
    codes = shop(items=nowhere, limits=HealthLimits(usage=0.0, entropy=0.0, moved=1.0, spilled=1.0)).catalog.codes
    assert set(codes[:20, 0].tolist()) & set(codes[20:, 0].tolist())


def test_a_trie_of_some_items_reaches_them_and_no_other_and_leaves_the_catalogues_own_alone(catalog: Catalog) -> None:
    set_available(catalog, catalog.items[2].item_id, False)
    before = catalog.trie.live.copy()
    some = catalog.trie_of(np.array([0, 2, 2], np.int32))
    assert np.flatnonzero(some.live[some.leaf[: len(catalog)]]).tolist() == [0, 2]
    assert some.live[0] == 2
    np.testing.assert_array_equal(catalog.trie.live, before)
    np.testing.assert_array_equal(some.leaf, catalog.trie.leaf)


def test_the_trie_of_targets_knows_of_no_other_item(catalog: Catalog) -> None:
    some, targets = (make(np.array([0, 2, 2], np.int32)) for make in (catalog.trie_of, catalog.trie_of_targets))
    for name in set(Trie._fields) - {"leaf"}:
        np.testing.assert_array_equal(getattr(targets, name), getattr(some, name))
    assert np.flatnonzero(targets.leaf >= 0).tolist() == [0, 2]
    np.testing.assert_array_equal(targets.leaf[[0, 2]], some.leaf[[0, 2]])
    assert (catalog.trie.leaf[: len(catalog)] >= 0).all()


def test_items_that_come_are_near_what_they_are_like_once_they_are_welcome(catalog: Catalog) -> None:
    tables = neighbour_tables(catalog.items, [catalog.indices_of(keys) for keys in shop_walks()])
    catalog.apply([record_of(catalog, shop_item("before", 2))])
    assert catalog.lent is None, "nobody was welcome yet"
    catalog.welcome(Newcomers(catalog.items, tables, catalog.capacity))
    catalog.apply([record_of(catalog, shop_item("after", 2))])
    histories = catalog.indices_of(np.array([[item_key("2-0")], [item_key("1-0")]]))
    near, nearness = near_items(histories, catalog.neighbours, lent=catalog.lent)
    for name in ("before", "after"):
        here, there = (nearness[row, near[row] == catalog.index_of(name), :2].ravel() for row in range(2))
        assert (here > 0).tolist() == [True, True], "not seen with, or not like, its shelf"
        assert (there < here).all(), "as near to another shelf"
