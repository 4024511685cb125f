"""One function makes model input: newest first, the unknown masked, no user sees another."""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from core.geo import cell_of, distance_m
from feature_repo.layouts import HISTORY, HISTORY_ROW, INTERESTS, PLACES, POSITIVES, WATCH, UserRows
from models import visits
from models.batches import (
    AGE_BUCKETS,
    PLACE_FEATURES,
    TABLES,
    TOKENS,
    WATCH_SHARES,
    ContextBatch,
    take_rows,
)
from models.contexts import context_batch
from models.evidence import RECENCY, Lent, Neighbours
from tests.models.worlds import table_of

NOW_MS = 1_651_400_000_000
NAN = (math.nan, math.nan)


class TenItems(NamedTuple):
    """Item keys 100 .. 109; item i has the path (i, i + 1, i + 2)."""

    centre: tuple[float, float] | None = (30.0, 120.0)
    neighbours: tuple[Neighbours, ...] = ()
    lent: Lent | None = None
    places: tuple[int, ...] = ()

    @property
    def locations(self) -> npt.NDArray[np.float64]:
        return np.where(np.isin(np.arange(10), self.places)[:, None], [30.0, 120.0], np.nan)

    @property
    def codes(self) -> npt.NDArray[np.int32]:
        return (np.arange(10)[:, None] + np.arange(3)).astype(np.int32)

    def indices_of(self, keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        return np.where((keys >= 100) & (keys < 110), keys - 100, -1).astype(np.int32)


def rows_of(users: int) -> UserRows:
    return UserRows(
        *(np.zeros(users, dtype) for dtype in (INTERESTS, HISTORY_ROW, WATCH, PLACES)), found=np.ones(users, bool)
    )


def with_acts(
    rows: UserRows, user: int, keys: list[int], ages_s: list[int], actions: int = 0b10, watch: int = 80
) -> None:
    """Acts of one user, oldest first."""
    history, count = rows.history, len(keys)
    history["length"][user] = count
    history["item"][user, :count] = keys
    history["at_s"][user, :count] = [NOW_MS // 1000 - age for age in ages_s]
    history["actions"][user, :count] = actions
    history["watch"][user, :count] = watch


def test_the_newest_act_is_the_first_token() -> None:
    rows = rows_of(1)
    with_acts(rows, 0, [101, 102, 103], [300, 200, 100])
    batch = context_batch(rows, TenItems(), NOW_MS)
    assert batch.codes[0, :3].tolist() == [[3, 4, 5], [2, 3, 4], [1, 2, 3]]
    assert batch.mask[0].sum() == 3
    assert (np.diff(batch.age[0, :3]) > 0).all()


def test_positives_follow_the_history_newest_first() -> None:
    rows = rows_of(1)
    rows.history["positive_length"] = 2
    rows.history["positive_item"][0, :2] = [104, 105]
    rows.history["positive_at_s"][0, :2] = NOW_MS // 1000 - np.array([60, 30])
    batch = context_batch(rows, TenItems(), NOW_MS)
    assert batch.codes[0, HISTORY : HISTORY + 2, 0].tolist() == [5, 4]
    assert np.flatnonzero(batch.mask[0]).tolist() == [HISTORY, HISTORY + 1]
    assert (batch.watch[0, HISTORY : HISTORY + 2] == WATCH_SHARES - 1).all()


def test_an_unknown_item_is_a_masked_token_of_zeros() -> None:
    rows = rows_of(1)
    with_acts(rows, 0, [101, 999], [200, 100])
    batch = context_batch(rows, TenItems(), NOW_MS)
    assert batch.mask[0, :2].tolist() == [False, True]
    for values in (batch.codes, batch.actions, batch.watch, batch.age):
        assert not values[0, 0].any()


def test_what_lies_beyond_the_length_is_never_read() -> None:
    rows = rows_of(1)
    with_acts(rows, 0, [101, 102, 103], [300, 200, 100])
    clean = context_batch(rows, TenItems(), NOW_MS)
    rows.history["item"][0, 3:] = 105
    rows.history["at_s"][0, 3:] = 7
    rows.history["actions"][0, 3:] = 0xFFFF
    rows.history["positive_item"][0] = 106
    for before, after in zip(clean, context_batch(rows, TenItems(), NOW_MS), strict=True):
        assert np.array_equal(before, after)


def test_a_full_history_uses_every_token() -> None:
    rows = rows_of(1)
    with_acts(rows, 0, [100 + i % 10 for i in range(HISTORY)], list(range(HISTORY, 0, -1)))
    rows.history["positive_length"] = POSITIVES
    rows.history["positive_item"] = 107
    assert context_batch(rows, TenItems(), NOW_MS).mask.sum() == TOKENS


def test_of_a_long_list_of_positives_the_newest_are_tokens() -> None:
    rows = rows_of(1)
    rows.history["positive_length"] = POSITIVES
    rows.history["positive_item"][0] = 100 + np.arange(POSITIVES) % 10
    rows.history["positive_at_s"][0] = NOW_MS // 1000 - np.arange(POSITIVES)[::-1]
    batch = context_batch(rows, TenItems(), NOW_MS)
    newest = (np.arange(POSITIVES) % 10)[::-1][: TOKENS - HISTORY]
    assert batch.codes[0, HISTORY:, 0].tolist() == newest.tolist()
    assert (np.diff(batch.age[0, HISTORY:]) >= 0).all()


def test_ages_stay_inside_the_table_whatever_the_clock_says() -> None:
    rows = rows_of(1)
    with_acts(rows, 0, [101, 102, 103], [NOW_MS // 1000, 0, -3600])  # 1970, now, and an act ahead of the clock
    ages = context_batch(rows, TenItems(), NOW_MS).age[0, :3]
    assert ages.tolist() == [0, 0, AGE_BUCKETS - 1]


def test_watch_share_orders_its_buckets_and_unknown_stands_apart() -> None:
    rows = rows_of(1)
    shares = [0, 5, 20, 40, 60, 80, 100, 120, 250, 255]
    with_acts(rows, 0, [101] * len(shares), list(range(len(shares), 0, -1)))
    rows.history["watch"][0, : len(shares)] = shares
    buckets = context_batch(rows, TenItems(), NOW_MS).watch[0, : len(shares)][::-1]
    assert buckets.tolist() == list(range(WATCH_SHARES))


def test_a_user_does_not_see_the_batch() -> None:
    rng = np.random.default_rng(0)
    rows = rows_of(6)
    for user in range(6):
        count = int(rng.integers(0, HISTORY))
        with_acts(rows, user, rng.integers(95, 115, count).tolist(), rng.integers(0, 10**6, count).tolist())
    rows.interests["long_term"] = rng.standard_normal((6, 64))
    rows.places["home_cell"][2:4] = cell_of(30.1, 120.2, 9)
    rows.places["last_cell"][3:] = cell_of(30.2, 120.1, 9)
    rows.places["last_latitude"][3:], rows.places["last_longitude"][3:] = 30.2, 120.1
    locations = np.array([NAN, (30.3, 120.3), (30.0, 119.0), NAN, (31.0, 121.0), NAN])
    now = NOW_MS + 1000 * np.arange(6)
    whole = context_batch(rows, TenItems(), now, locations)
    one_by_one = [
        context_batch(UserRows(*(field[i : i + 1] for field in rows)), TenItems(), now[i], locations[i : i + 1])
        for i in range(6)
    ]
    for together, *alone in zip(whole, *one_by_one, strict=True):
        assert np.array_equal(together, np.concatenate(alone)) and {together.dtype} == {one.dtype for one in alone}
    for picked, field in zip(take_rows(whole, np.array([4, 1])), whole, strict=True):
        assert np.array_equal(picked, field[[4, 1]])


def test_a_stranger_has_no_tokens_and_no_interests() -> None:
    batch = context_batch(rows_of(2), TenItems(), NOW_MS)
    assert not batch.mask.any() and not batch.interests.any()
    assert batch.place.shape == (2, PLACE_FEATURES) and not batch.place[:, :7].any()


def test_distance_from_home_is_the_distance_on_earth() -> None:
    rows = rows_of(1)
    home = cell_of(30.1, 120.2, 9)
    rows.places["home_cell"] = home
    place = context_batch(rows, TenItems(), NOW_MS, [(30.2, 120.4)]).place[0]
    assert math.expm1(place[5]) == pytest.approx(distance_m(30.1, 120.2, 30.2, 120.4) / 1000, rel=0.01)
    assert place[2] == pytest.approx(2.22, abs=0.01)  # 0.2 degrees north of the centre = 22 km


def test_the_place_of_the_request_wins_over_the_last_one_stored() -> None:
    rows = rows_of(1)
    rows.places["last_cell"] = cell_of(29.0, 121.0, 9)
    rows.places["last_latitude"], rows.places["last_longitude"] = 29.0, 121.0
    stored = context_batch(rows, TenItems(), NOW_MS).place[0]
    named = context_batch(rows, TenItems(), NOW_MS, [(31.0, 119.0)]).place[0]
    assert stored[:2].tolist() == [0, 1] and named[:2].tolist() == [1, 1]
    assert stored[2] < 0 < named[2] and named[3] < 0 < stored[3]


@pytest.mark.parametrize(("longitude", "hour"), [(0.0, 12), (120.0, 20), (-90.0, 6), (180.0, 0)])
def test_the_hour_is_local_to_the_place(longitude: float, hour: int) -> None:
    noon_utc = 1_651_406_400_000 - 1_651_406_400_000 % 86_400_000 + 12 * 3_600_000
    place = context_batch(rows_of(1), TenItems(), noon_utc, [(10.0, longitude)]).place[0]
    assert math.atan2(place[7], place[8]) % (2 * math.pi) == pytest.approx(hour * math.pi / 12, abs=1e-3)


def test_across_the_antimeridian_is_near() -> None:
    place = context_batch(rows_of(1), TenItems(centre=(0.0, 179.9)), NOW_MS, [(0.0, -179.9)]).place[0]
    assert place[3] == pytest.approx(2.22, abs=0.01)


def test_without_located_items_there_is_no_offset() -> None:
    place = context_batch(rows_of(1), TenItems(centre=None), NOW_MS, [(50.0, 8.0)]).place[0]
    assert place[:4].tolist() == [1, 1, 0, 0]


def test_the_context_is_contiguous_where_the_runtime_wants_it() -> None:
    batch = context_batch(rows_of(2), TenItems(), NOW_MS)
    assert ContextBatch._fields == (
        "codes",
        "mask",
        "actions",
        "watch",
        "age",
        "interests",
        "place",
        "items",
        "near",
        "nearness",
    )
    assert all(field.flags["C_CONTIGUOUS"] for field in batch)


def test_evidence_is_that_of_the_newest_positives_and_without_tables_there_is_none() -> None:
    follows = table_of(np.eye(10, k=1))  # item i is near i + 1
    rows = rows_of(2)
    with_acts(rows, 0, [101], [300])  # an act that was not positive
    rows.history["positive_length"][0] = 2
    rows.history["positive_item"][0, :2] = [104, 106]
    batch = context_batch(rows, TenItems(neighbours=(follows,) * TABLES), NOW_MS)
    assert batch.near[0, :3].tolist() == [7, 5, -1]
    assert batch.nearness[0, :2, :TABLES].tolist() == [[1.0] * TABLES, [pytest.approx(RECENCY)] * TABLES]
    assert not batch.nearness[..., TABLES:].any()
    assert (batch.near[1] == -1).all()
    none = context_batch(rows, TenItems(), NOW_MS)
    assert (none.near == -1).all() and not none.nearness.any() and none.near.shape == batch.near.shape
    lent = Lent(9, np.array([[7, 5]], np.int32), np.array([[0.75, 0.25]], np.float32), np.zeros(1, np.float32))
    came = context_batch(rows, TenItems(neighbours=(follows,) * TABLES, lent=lent), NOW_MS)
    assert came.near[0, :3].tolist() == [7, 5, 9], "item 9 borrows and is not near"
    assert came.nearness[0, 2, 0] == pytest.approx(0.75 + 0.25 * RECENCY)


def test_evidence_names_no_video_that_was_had_but_places_are_worth_coming_back_to() -> None:
    before = table_of(np.eye(10, k=-1))  # item i is near i - 1
    rows = rows_of(1)
    with_acts(rows, 0, [104], [300])  # shown, and not taken
    rows.history["positive_length"][0] = 3
    rows.history["positive_item"][0, :3] = [106, 107, 105]
    videos = context_batch(rows, TenItems(neighbours=(before, before)), NOW_MS)
    assert videos.near[0].max() == -1  # 4, 5 and 6 were had
    places = TenItems(neighbours=(before, before), places=(6,))
    rows.history["positive_at_s"][0, :3] = NOW_MS // 1000 - np.array([86_400, 300, 200])
    one_place = context_batch(rows, places, NOW_MS)
    assert one_place.near[0, :2].tolist() == [6, -1]
    assert one_place.nearness[0, 0, TABLES:].tolist() == pytest.approx([100 * visits.RECENCY**2, 100.0, 0.0])
    later = context_batch(rows, places, NOW_MS + 12 * 3_600_000)
    assert later.nearness[0, 0, TABLES:].tolist() == pytest.approx([100 * visits.RECENCY**2, 0.0, 0.0], abs=1e-4)


def test_items_that_came_after_the_count_have_no_neighbours_and_are_none() -> None:
    rows = rows_of(1)
    rows.history["positive_length"][0] = 2
    rows.history["positive_item"][0, :2] = [101, 109]
    early = table_of(np.eye(4, k=1))
    assert context_batch(rows, TenItems(neighbours=(early, early)), NOW_MS).near[0, :2].tolist() == [2, -1]
