"""Items as rows: what makes one fit for the catalogue, and how it is kept in Parquet."""

from collections.abc import Sequence
from typing import Final

import pyarrow as pa

from core.validation import MAX_ID_BYTES, Fault, location_fault
from models.opening_hours import hours_fault
from protos.catalog.v1.catalog_pb2 import Item, OpeningHours
from protos.events.v1.interaction_pb2 import Location

ITEM_COLUMNS: Final = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("author_id", pa.string(), nullable=False),
        pa.field("tags", pa.list_(pa.string()), nullable=False),
        pa.field("title", pa.string(), nullable=False),
        pa.field("duration_ms", pa.int64()),
        pa.field("latitude", pa.float64()),
        pa.field("longitude", pa.float64()),
        pa.field("accuracy_m", pa.float32()),
        pa.field("price_micros", pa.int64()),
        pa.field("currency", pa.string(), nullable=False),
        pa.field("available", pa.bool_(), nullable=False),
        pa.field("opening_hours", pa.list_(pa.list_(pa.uint16(), 3)), nullable=False),  # weekday, open, close minute
    ]
)


def item_fault(item: Item) -> Fault | None:
    """The first fault of an item; None when the catalogue can hold it."""
    if not item.item_id:
        return Fault("item_id", "found nothing, expected a non-empty id")
    for field, text in (("item_id", item.item_id), ("author_id", item.author_id)):
        if len(text.encode()) > MAX_ID_BYTES:
            return Fault(field, f"found {len(text.encode())} bytes, expected at most {MAX_ID_BYTES}")
    for field in ("duration_ms", "price_micros"):
        if getattr(item, field) < 0:
            return Fault(field, f"found {getattr(item, field)}, expected 0 or more")
    if item.HasField("price_micros") and len(item.currency) != 3:
        return Fault("currency", f"found {item.currency!r}, expected an ISO 4217 code beside price_micros")
    return (location_fault(item.location) if item.HasField("location") else None) or hours_fault(item)


def table_of(items: Sequence[Item]) -> pa.Table:
    """The items in order, in ITEM_COLUMNS; nothing of an item is lost."""
    rows = []
    for item in items:
        place = item.location if item.HasField("location") else None
        rows.append(
            {
                "item_id": item.item_id,
                "author_id": item.author_id,
                "tags": list(item.tags),
                "title": item.title,
                "duration_ms": item.duration_ms if item.HasField("duration_ms") else None,
                "latitude": place.latitude if place else None,
                "longitude": place.longitude if place else None,
                "accuracy_m": place.accuracy_m if place else None,
                "price_micros": item.price_micros if item.HasField("price_micros") else None,
                "currency": item.currency,
                "available": item.available,
                "opening_hours": [[it.weekday, it.open_minute, it.close_minute] for it in item.opening_hours],
            }
        )
    return pa.Table.from_pylist(rows, schema=ITEM_COLUMNS)


def items_of(table: pa.Table) -> list[Item]:
    """The items that `table_of` wrote; further columns are left alone."""
    return [
        Item(
            item_id=row["item_id"],
            author_id=row["author_id"],
            tags=row["tags"],
            title=row["title"],
            duration_ms=row["duration_ms"],
            location=_location(row["latitude"], row["longitude"], row["accuracy_m"]),
            price_micros=row["price_micros"],
            currency=row["currency"],
            available=row["available"],
            opening_hours=[
                OpeningHours(weekday=day, open_minute=opens, close_minute=closes)
                for day, opens, closes in row["opening_hours"]
            ],
        )
        for row in table.select(ITEM_COLUMNS.names).to_pylist()
    ]


def _location(latitude: float | None, longitude: float | None, accuracy_m: float | None) -> Location | None:
    if latitude is None or longitude is None:
        return None
    return Location(latitude=latitude, longitude=longitude, accuracy_m=accuracy_m or 0.0)
