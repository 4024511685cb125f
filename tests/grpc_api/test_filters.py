"""Each filter takes what it names and nothing else; kept and removed add up."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from core.ids import item_key
from grpc_api.filters import SEEN_PLACE_S, SEEN_VIDEO_S, Circumstances, sieve
from models.catalog import Catalog
from protos.catalog.v1.catalog_pb2 import OpeningHours
from tests.grpc_api.world import HERE, NOW_MS, catalog_of, item
from tests.models.shelves import set_available

NEAR = (31.24, 121.48)
FAR = (32.5, 121.47)  # 141 km north
# NOW_MS is Wednesday 06:13 at HERE.
EARLY = [OpeningHours(weekday=3, open_minute=6 * 60, close_minute=10 * 60)]
LATE = [OpeningHours(weekday=3, open_minute=10 * 60, close_minute=22 * 60)]
NIGHT = [OpeningHours(weekday=2, open_minute=20 * 60, close_minute=7 * 60)]  # Tuesday evening past midnight


def about(
    *,
    here: tuple[float, float] | None = None,
    excluded: tuple[str, ...] = (),
    seen: tuple[tuple[str, int], ...] = (),
) -> Circumstances:
    return Circumstances(
        now_ms=NOW_MS,
        here=here,
        service_radius_m=30_000.0,
        excluded=np.array([item_key(name) for name in excluded], np.int64),
        seen=np.array([item_key(name) for name, _ in seen], np.int64),
        seen_at_s=np.array([NOW_MS // 1000 - age_s for _, age_s in seen], np.int64),
    )


def kept(
    catalog: Catalog, circumstances: Circumstances, codes: np.ndarray | None = None
) -> tuple[list[str], dict[str, int]]:
    sieved = sieve(np.arange(len(catalog), dtype=np.int32), catalog, circumstances, codes)
    return [catalog.items[i].item_id for i in sieved.kept], sieved.removed


def test_what_is_not_available_or_was_removed_is_never_kept() -> None:
    catalog = catalog_of([item("a"), item("b"), item("c")])
    set_available(catalog, "a", False)
    catalog.remove("b")
    assert kept(catalog, about()) == (["c"], {"not_live": 2})


def test_an_item_generated_under_another_path_is_not_live() -> None:
    catalog = catalog_of([item("a"), item("b")])
    codes = catalog.codes.copy()
    codes[1, 2] += 1
    assert kept(catalog, about(), codes) == (["a"], {"not_live": 1})


def test_named_items_are_excluded_and_unknown_names_ignored() -> None:
    catalog = catalog_of([item("a"), item("b")])
    assert kept(catalog, about(excluded=("b", "no such item"))) == (["a"], {"excluded": 1})


def test_a_video_stays_away_for_a_month_and_a_place_for_half_a_day() -> None:
    catalog = catalog_of([item("video"), item("old video"), item("place", HERE), item("old place", HERE)])
    seen = (
        ("video", SEEN_VIDEO_S - 1),
        ("old video", SEEN_VIDEO_S + 1),
        ("place", SEEN_PLACE_S - 1),
        ("old place", SEEN_PLACE_S + 1),
    )
    assert kept(catalog, about(seen=seen)) == (["old video", "old place"], {"just_seen": 2})


def test_opening_hours_are_those_of_the_place() -> None:
    catalog = catalog_of(
        [item("always", HERE), item("early", HERE, EARLY), item("late", HERE, LATE), item("night", HERE, NIGHT)]
    )
    assert kept(catalog, about()) == (["always", "early", "night"], {"closed": 1})


def test_a_place_beyond_the_radius_is_too_far_and_a_video_never_is() -> None:
    catalog = catalog_of([item("near", NEAR), item("far", FAR), item("video")])
    assert kept(catalog, about(here=HERE)) == (["near", "video"], {"too_far": 1})
    assert kept(catalog, about(here=None)) == (["near", "far", "video"], {})


@given(st.data())
def test_every_item_is_kept_or_counted_once(data: st.DataObject) -> None:
    shelf = catalog_of(
        [
            item(str(i), *data.draw(st.sampled_from([(None, ()), (NEAR, ()), (FAR, EARLY), (NEAR, LATE), (FAR, ())])))
            for i in range(8)
        ]
    )
    for name in data.draw(st.lists(st.integers(0, 7))):
        set_available(shelf, str(name), False)
    names = st.lists(st.integers(0, 9).map(str), max_size=4).map(tuple)
    circumstances = about(
        here=data.draw(st.sampled_from([None, HERE, FAR])),
        excluded=data.draw(names),
        seen=tuple((name, 60) for name in data.draw(names)),
    )
    items = np.array(data.draw(st.lists(st.integers(0, 7), unique=True)), np.int32)
    sieved = sieve(items, shelf, circumstances)
    assert len(sieved.kept) + sum(sieved.removed.values()) == len(items)
    assert (np.diff(sieved.kept) > 0).all()
    assert [position for position, name in enumerate(sieved.removed_by) if not name] == sieved.kept.tolist()
    assert Counter(name for name in sieved.removed_by if name) == sieved.removed
    again = sieve(items[sieved.kept], shelf, circumstances)
    assert len(again.kept) == len(sieved.kept)
