"""Laws of rows held in memory."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streams.row_cache import RowCache

ROW = np.dtype([("owner", "<i8")])
KEYS = st.lists(st.integers(0, 30).map(str), max_size=12, unique=True)


def used(cache: RowCache, keys: list[str]) -> list[str]:
    """As a driver does: slots for a batch, what is missing loaded, all of it changed; the missing keys."""
    slots = cache.slots(keys)
    for key in slots.missing:
        cache.rows["owner"][slots.of[key]] = int(key)
    for key in keys:
        assert cache.rows["owner"][slots.of[key]] == int(key)  # what was here is still here
    return slots.missing


@given(st.integers(0, 8), st.lists(KEYS, max_size=20))
def test_it_holds_the_keys_used_last_with_rows_of_their_own(size: int, batches: list[list[str]]) -> None:
    cache, last = RowCache(ROW, size), list[str]()  # oldest first
    for batch in batches:
        known = set(last)
        assert used(cache, batch) == [key for key in batch if key not in known]
        slots = [cache.get(key) for key in [*last, *batch]]
        assert len(set(slots)) == len({*last, *batch}) and None not in slots
        cache.trim()
        last = [key for key in last if key not in batch] + batch
        last = last[len(last) - size :] if len(last) > size else last
        assert [key for key in map(str, range(31)) if key in cache] == sorted(last, key=int)


def test_slots_come_in_the_order_of_the_keys() -> None:
    cache = RowCache(ROW, 4)
    cache.slots(["b"])
    slots = cache.slots(["a", "b", "c"])
    assert list(slots.of) == ["a", "b", "c"]
    assert slots.missing == ["a", "c"]
    assert slots.of["b"] == cache.get("b")
    assert cache.get("d") is None


def test_a_batch_larger_than_the_cache_has_room_until_it_is_trimmed() -> None:
    cache = RowCache(ROW, 2)
    cache.rows["owner"][cache.slots(["7"]).of["7"]] = 7
    slot = cache.get("7")
    keys = [str(number) for number in range(100)]
    assert len(used(cache, keys)) == 99
    assert cache.get("7") == slot and cache.rows["owner"][slot] == 7
    cache.trim()
    assert [key for key in keys if key in cache] == ["98", "99"]


def test_what_is_used_stays_when_others_leave() -> None:
    cache = RowCache(ROW, 2)
    used(cache, ["1", "2"])
    used(cache, ["1", "3"])
    cache.trim()
    assert "1" in cache and "3" in cache and "2" not in cache
    assert used(cache, ["2"]) == ["2"]  # its slot may hold another's row by now
