"""Changes to the catalogue: which are good, and the catalog.v1 record of each. Pure rules.

A change is judged against the catalogue as the changes before it in the same call leave it. A removed
item is removed for good: its path is never given again, and neither is its name.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from core.validation import Fault
from models.catalog import Catalog
from models.items import item_fault
from protos.catalog.v1.catalog_pb2 import CatalogChange, CatalogRecord, Item


class Judged(NamedTuple):
    """One change: what is wrong with it, or what the item is afterwards."""

    item_id: str
    fault: Fault | None
    item: Item | None  # None when removed, or at fault


class _Known(NamedTuple):
    """What is known of an item when its change is judged."""

    item: Item | None  # None when removed or never heard of
    removed: bool


_NO_KIND: Final = Fault("kind", "found nothing, expected upsert, remove or availability")
_GONE: Final = Fault("item_id", "found an item that was removed for good; publish it under a new item_id")


def judge(changes: Sequence[CatalogChange], catalog: Catalog) -> list[Judged]:
    """Each change, in order."""
    after: dict[str, _Known] = {}  # what the changes so far have made of items
    room = catalog.capacity - len(catalog)
    judged: list[Judged] = []
    for change in changes:
        item_id = _item_of(change)
        known = after.get(item_id) or _known(item_id, catalog)
        fresh = known.item is None and not known.removed
        fault = _fault(change, known, fresh and room == 0)
        item = None if fault is not None else _afterwards(change, known)
        if fault is None:
            room -= fresh
            after[item_id] = _Known(item, item is None)
        judged.append(Judged(item_id, fault, item))
    return judged


def records_of(changes: Sequence[Judged], catalog: Catalog) -> list[CatalogRecord]:
    """The record of each good change, with the item's codes; a removal only names the item."""
    version = catalog.tokenizer.version
    codes = iter(catalog.assign([change.item for change in changes if change.item is not None]).tolist())
    return [
        CatalogRecord(item=Item(item_id=change.item_id), tokenizer_version=version, removed=True)
        if change.item is None
        else CatalogRecord(item=change.item, tokenizer_version=version, codes=next(codes))
        for change in changes
    ]


def _item_of(change: CatalogChange) -> str:
    kind = change.WhichOneof("kind")
    if kind == "upsert":
        return change.upsert.item_id
    return change.availability.item_id if kind == "availability" else change.remove


def _known(item_id: str, catalog: Catalog) -> _Known:
    index = catalog.index_of(item_id)
    if index is None:
        return _Known(None, False)
    removed = bool(catalog.removed[index])
    return _Known(None if removed else catalog.items[index], removed)


def _fault(change: CatalogChange, known: _Known, full: bool) -> Fault | None:
    kind = change.WhichOneof("kind")
    if kind is None:
        return _NO_KIND
    if kind == "upsert":
        fault = item_fault(change.upsert)
        if fault is not None:
            return fault
        full_fault = Fault("item_id", "found no room for a new item; publish a version with more") if full else None
        return _GONE if known.removed else full_fault
    if known.item is None and not known.removed:
        return Fault("item_id", f"found {_item_of(change)!r}, expected an item of the catalogue")
    return _GONE if kind == "availability" and known.removed else None


def _afterwards(change: CatalogChange, known: _Known) -> Item | None:
    kind = change.WhichOneof("kind")
    if kind == "upsert":
        return change.upsert
    if kind == "remove" or known.item is None:
        return None
    item = Item()
    item.CopyFrom(known.item)
    item.available = change.availability.available
    return item
