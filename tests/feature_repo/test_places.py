"""Laws of user_places."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.geo import cell_of, centre_of, distance_m
from feature_repo.folds.entries import LATE_MS
from feature_repo.folds.places import COUNT_MOST, MIN_ACTS
from feature_repo.layouts import PLACE_CELLS
from protos.events.v1.activity_pb2 import Activity
from tests.feature_repo.logs import CONTEXT, PARIS, START_MS, Entry, after, interaction, part, play

HOUR_MS = 3_600_000
MIDNIGHT_MS = 1_749_945_600_000  # 2025-06-15 00:00 UTC, the night before a Sunday
WORK = (48.90, 2.40)
RESOLUTION = 9


def places_after(*acts: Activity, resolution: int = RESOLUTION) -> np.ndarray:
    return part(after(*acts, context=CONTEXT._replace(location_resolution=resolution)), "places")


def here(event: str, at_ms: int, where: tuple[float, float]) -> Activity:
    return interaction(event, at_ms=at_ms, location=where)


def test_without_consent_nothing_is_kept() -> None:
    assert not any(places_after(interaction("a")).tobytes())


@given(st.floats(-89, 89), st.floats(-179, 179), st.integers(0, 9))
def test_nothing_finer_than_the_resolution_is_kept(latitude: float, longitude: float, resolution: int) -> None:
    row = places_after(here("e", START_MS, (latitude, longitude)), resolution=resolution)
    cell = cell_of(latitude, longitude, resolution)
    centre = tuple(np.float32(centre_of(cell)).tolist())
    assert row["last_cell"] == cell
    assert (row["last_latitude"], row["last_longitude"]) == centre
    assert (row["mean_latitude"], row["mean_longitude"]) == centre


def test_nights_name_home_and_working_hours_name_work() -> None:
    nights = [here(f"n{day}", MIDNIGHT_MS + (day * 24 + 2) * HOUR_MS, PARIS) for day in range(MIN_ACTS)]
    days = [here(f"d{day}", MIDNIGHT_MS + (day * 24 + 11) * HOUR_MS, WORK) for day in range(1, 1 + MIN_ACTS)]
    row = places_after(*nights, *days)
    assert row["home_cell"] == cell_of(*PARIS, RESOLUTION)
    assert row["work_cell"] == cell_of(*WORK, RESOLUTION)
    assert places_after(*nights[:-1])["home_cell"] == 0


def test_home_is_not_work_too() -> None:
    nights = [here(f"n{day}", MIDNIGHT_MS + (day * 24 + 2) * HOUR_MS, PARIS) for day in range(MIN_ACTS)]
    days = [here(f"d{day}", MIDNIGHT_MS + (day * 24 + 11) * HOUR_MS, PARIS) for day in range(1, 6)]
    assert places_after(*days)["work_cell"] == cell_of(*PARIS, RESOLUTION)
    row = places_after(*nights, *days)
    assert (row["home_cell"], row["work_cell"]) == (cell_of(*PARIS, RESOLUTION), 0)


def test_a_sunday_is_no_working_day() -> None:
    acts = [here(f"e{n}", MIDNIGHT_MS + 11 * HOUR_MS, WORK) for n in range(9)]
    assert places_after(*acts)["work_cell"] == 0


def test_the_hour_is_that_of_the_sun() -> None:
    sydney = (-33.87, 151.21)
    at_noon_utc = [here(f"e{n}", MIDNIGHT_MS + 13 * HOUR_MS, sydney) for n in range(MIN_ACTS)]  # 23 h in Sydney
    assert places_after(*at_noon_utc)["home_cell"] == cell_of(*sydney, RESOLUTION)


def test_an_older_act_does_not_move_the_last_place() -> None:
    row = places_after(here("a", START_MS, PARIS), here("b", START_MS - 1, WORK))
    assert row["last_cell"] == cell_of(*PARIS, RESOLUTION)
    assert row["updated_ms"] == START_MS


def test_a_late_act_is_no_habit() -> None:
    now_ms = START_MS + LATE_MS
    in_time = play([Entry(now_ms, (here("a", START_MS, PARIS),))])[0]
    late = play([Entry(now_ms, (here("a", START_MS - 1, PARIS),))])[0]
    assert part(in_time, "places")["last_cell"] == cell_of(*PARIS, RESOLUTION)
    assert not any(part(late, "places").tobytes())


def test_the_radius_is_zero_at_one_place_and_grows_with_distance() -> None:
    still = places_after(*(here(f"e{n}", START_MS, PARIS) for n in range(5)))
    assert still["radius_m"] == pytest.approx(0.0, abs=0.5)  # float32 degrees: a third of a metre
    moved = places_after(*(here(f"e{n}", START_MS, PARIS if n % 2 else WORK) for n in range(200)))
    half_way_m = distance_m(*PARIS, *WORK) / 2
    assert moved["radius_m"] == pytest.approx(half_way_m, rel=0.1)


def test_the_mean_crosses_the_antimeridian_the_short_way() -> None:
    row = places_after(*(here(f"e{n}", START_MS, (-17.0, 179.9 if n % 2 else -179.9)) for n in range(50)))
    assert abs(row["mean_longitude"]) > 179.0
    assert row["radius_m"] < 50_000


def test_the_cell_with_the_fewest_acts_gives_way() -> None:
    night = MIDNIGHT_MS + 2 * HOUR_MS
    home = [here(f"h{n}", night, PARIS) for n in range(5)]
    travel = [here(f"t{n}", night, (40.0 + n, 0.0)) for n in range(3 * PLACE_CELLS)]
    row = places_after(*home, *travel)
    assert row["length"] == PLACE_CELLS
    assert row["home_cell"] == cell_of(*PARIS, RESOLUTION)
    newest = [cell_of(40.0 + n, 0.0, RESOLUTION) for n in range(3 * PLACE_CELLS)][-1]
    assert row["cell"][-1] == newest


def test_counts_stay_bounded() -> None:
    full = [here(f"e{n}", MIDNIGHT_MS, PARIS) for n in range(COUNT_MOST)]
    assert places_after(*full[:-1])["night"][0] == COUNT_MOST - 1
    assert places_after(*full)["night"][0] == COUNT_MOST // 2
