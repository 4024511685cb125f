"""Which changes are good, in the light of those before them, and what they make of the catalogue."""

import asyncio
import contextlib
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpc_api.catalog_changes import judge, records_of
from grpc_api.catalog_log import AT_ONCE, apply_between_answers, bring_up_to_date
from models.catalog import Catalog
from protos.catalog.v1.catalog_pb2 import Availability, CatalogChange, CatalogRecord, Item
from protos.events.v1.interaction_pb2 import Location
from tests.grpc_api.world import catalog_of, item, tokenizer


def upsert(name: str, **more: object) -> CatalogChange:
    changed = item(name)
    changed.MergeFrom(Item(**more))  # type: ignore[arg-type]
    return CatalogChange(upsert=changed)


def remove(name: str) -> CatalogChange:
    return CatalogChange(remove=name)


def show(name: str, available: bool) -> CatalogChange:
    return CatalogChange(availability=Availability(item_id=name, available=available))


def apply(catalog: Catalog, *changes: CatalogChange) -> list[str | None]:
    """The field at fault of each change; the good ones are applied the way every follower does."""
    judged = judge(changes, catalog)
    bring_up_to_date(catalog, records_of([change for change in judged if change.fault is None], catalog))
    return [None if change.fault is None else change.fault.field for change in judged]


def live(catalog: Catalog) -> set[str]:
    return {one.item_id for one, available in zip(catalog.items, catalog.available, strict=True) if available}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (CatalogChange(), "kind"),
        (upsert(""), "item_id"),
        (upsert("x", duration_ms=-1), "duration_ms"),
        (upsert("x", location=Location(latitude=95)), "location.latitude"),
        (upsert("x", price_micros=5), "currency"),
        (remove("unknown"), "item_id"),
        (show("unknown", True), "item_id"),
    ],
)
def test_a_bad_change_is_named_and_its_neighbours_are_kept(change: CatalogChange, field: str) -> None:
    catalog = catalog_of([item("a"), item("b")])
    assert apply(catalog, remove("a"), change, upsert("c")) == [None, field, None]
    assert live(catalog) == {"b", "c"}


def test_changes_see_what_the_changes_before_them_did() -> None:
    catalog = catalog_of([item("a")])
    faults = apply(catalog, upsert("n"), show("n", False), upsert("m"), remove("m"), show("m", True), upsert("m"))
    assert faults == [None, None, None, None, "item_id", "item_id"]
    assert live(catalog) == {"a"}
    assert catalog.index_of("n") is not None


def test_what_was_removed_never_comes_back() -> None:
    catalog = catalog_of([item("a")])
    assert apply(catalog, remove("a")) == [None]
    assert apply(catalog, upsert("a"), show("a", True), remove("a")) == ["item_id", "item_id", None]
    assert live(catalog) == set()


def test_a_change_keeps_the_path_of_its_item() -> None:
    catalog = catalog_of([item("a"), item("b")])
    (record,) = records_of(judge([upsert("b", title="new title")], catalog), catalog)
    assert list(record.codes) == catalog.codes[1].tolist()
    assert record.tokenizer_version == 1


def test_a_full_catalogue_refuses_new_items_only() -> None:
    catalog = Catalog([item("a")], np.zeros((1, 3), np.int32), np.eye(1, 64, dtype=np.float32), tokenizer(), capacity=2)
    assert apply(catalog, upsert("b"), upsert("c"), upsert("a"), upsert("b")) == [None, "item_id", None, None]


def test_a_contradicting_record_is_left_out_and_the_others_apply(caplog: pytest.LogCaptureFixture) -> None:
    catalog = catalog_of([item("a")])
    taken = CatalogRecord(item=item("thief"), tokenizer_version=1, codes=catalog.codes[0].tolist())
    good = CatalogRecord(item=item("good"), tokenizer_version=1, codes=[7, 7, 7])
    foreign = CatalogRecord(item=item("foreign"), tokenizer_version=2, codes=[6, 6, 6])
    bring_up_to_date(catalog, [taken, foreign, good])
    assert live(catalog) == {"a", "good"}
    assert "catalog.refused item_id=thief" in caplog.text
    assert "catalog.foreign items=1" in caplog.text


CHANGES = st.lists(
    st.tuples(st.sampled_from("abcde"), st.sampled_from([upsert, remove, lambda n: show(n, False)])).map(
        lambda pair: pair[1](pair[0])
    ),
    max_size=12,
)


@given(CHANGES, st.integers(0, 12))
def test_one_call_or_many_leave_the_same_catalogue(changes: Sequence[CatalogChange], cut: int) -> None:
    at_once, in_parts = catalog_of([item("a"), item("b")]), catalog_of([item("a"), item("b")])
    faults = apply(at_once, *changes)
    assert faults == apply(in_parts, *changes[:cut]) + apply(in_parts, *changes[cut:])
    assert live(at_once) == live(in_parts)
    shared = [one.item_id for one in at_once.items]
    assert shared == [one.item_id for one in in_parts.items]
    paths = {tuple(path) for path in at_once.codes.tolist()}
    assert len(paths) == len(at_once)


async def test_answers_go_between_a_few_records_and_the_next_few() -> None:
    catalog, seen = catalog_of([item("a")]), list[int]()
    new = [item(f"new-{number}") for number in range(AT_ONCE + 3)]
    records = records_of(judge([CatalogChange(upsert=one) for one in new], catalog), catalog)

    async def answers() -> None:
        while True:
            seen.append(len(catalog))
            await asyncio.sleep(0)

    answering = asyncio.create_task(answers())
    await apply_between_answers(records, lambda: catalog, contextlib.nullcontext)
    answering.cancel()
    assert live(catalog) == {"a", *(one.item_id for one in new)}
    assert 1 + AT_ONCE in seen, "no answer came between"
