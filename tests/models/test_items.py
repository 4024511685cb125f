"""Laws of items and opening hours: nothing is lost in a file, and a week goes round."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.items import item_fault, items_of, table_of
from models.opening_hours import MAX_INTERVALS, WEEK, open_at, week_of
from protos.catalog.v1.catalog_pb2 import Item, OpeningHours
from protos.events.v1.interaction_pb2 import Location

MONDAY_MS = 1_700_438_400_000  # 2023-11-20 00:00 UTC
MINUTE_MS = 60_000

hours = st.builds(
    OpeningHours,
    weekday=st.integers(1, 7),
    open_minute=st.integers(0, 1439),
    close_minute=st.integers(0, 1440),
).filter(lambda it: it.open_minute != it.close_minute)
locations = st.builds(
    Location,
    latitude=st.floats(-90, 90),
    longitude=st.floats(-180, 180),
    accuracy_m=st.floats(0, 1e5, width=32),
)
items = st.builds(
    Item,
    item_id=st.text(min_size=1, max_size=20),
    author_id=st.text(max_size=20),
    tags=st.lists(st.text(max_size=10), max_size=4),
    title=st.text(max_size=20),
    duration_ms=st.none() | st.integers(0, 1 << 40),
    location=st.none() | locations,
    price_micros=st.none() | st.integers(0, 1 << 50),
    currency=st.just("CNY"),
    available=st.booleans(),
    opening_hours=st.lists(hours, max_size=3),
)


@given(st.lists(items, max_size=4))
def test_nothing_of_an_item_is_lost_in_a_table(listed: list[Item]) -> None:
    assert [item_fault(item) for item in listed] == [None] * len(listed)
    assert items_of(table_of(listed)) == listed


def _open_by_hand(item: Item, minute_of_week: int) -> bool:
    """Walk each interval minute by minute."""
    if not item.opening_hours:
        return True
    for it in item.opening_hours:
        minute = (it.weekday - 1) * 1440 + it.open_minute
        while True:
            if minute % WEEK == minute_of_week:
                return True
            minute += 1
            if minute % 1440 == it.close_minute % 1440:
                break
    return False


@given(st.lists(hours, max_size=3), st.integers(0, WEEK - 1), st.integers(-12, 14))
def test_open_is_what_a_clock_on_the_wall_says(intervals: list[OpeningHours], minute: int, offset_hours: int) -> None:
    item = Item(item_id="a", opening_hours=intervals)
    at_ms = MONDAY_MS + (minute - 60 * offset_hours) * MINUTE_MS
    assert bool(open_at(week_of(item), at_ms, 60 * offset_hours)) == _open_by_hand(item, minute)


def test_hours_past_midnight_on_sunday_run_into_monday() -> None:
    bar = week_of(Item(item_id="bar", opening_hours=[OpeningHours(weekday=7, open_minute=1200, close_minute=120)]))
    minutes = {1: True, 119: True, 120: False, 6 * 1440 + 1199: False, 6 * 1440 + 1200: True}
    assert {minute: bool(open_at(bar, MONDAY_MS + minute * MINUTE_MS, 0)) for minute in minutes} == minutes


@pytest.mark.parametrize(
    ("item", "field"),
    [
        (Item(), "item_id"),
        (Item(item_id="x" * 257), "item_id"),
        (Item(item_id="a", author_id="é" * 129), "author_id"),
        (Item(item_id="a", duration_ms=-1), "duration_ms"),
        (Item(item_id="a", price_micros=5), "currency"),
        (Item(item_id="a", location=Location(latitude=91)), "location.latitude"),
        (Item(item_id="a", opening_hours=[OpeningHours(weekday=8, close_minute=1)]), "opening_hours.weekday"),
        (Item(item_id="a", opening_hours=[OpeningHours(weekday=0, close_minute=1)]), "opening_hours.weekday"),
        (
            Item(item_id="a", opening_hours=[OpeningHours(weekday=1, open_minute=1440, close_minute=1)]),
            "opening_hours.open_minute",
        ),
        (
            Item(item_id="a", opening_hours=[OpeningHours(weekday=1, open_minute=9, close_minute=9)]),
            "opening_hours.close_minute",
        ),
        (
            Item(item_id="a", opening_hours=[OpeningHours(weekday=1, close_minute=1)] * (MAX_INTERVALS + 1)),
            "opening_hours",
        ),
    ],
)
def test_an_unfit_item_is_refused_by_the_field_at_fault(item: Item, field: str) -> None:
    fault = item_fault(item)
    assert fault is not None
    assert fault.field == field
    assert "expected" in fault.reason
