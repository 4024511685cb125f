"""Laws of user_places."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.geo import cell_of, centre_of, distance_m
from feature_repo.folds import places
from feature_repo.folds.act import Act
from feature_repo.folds.places import COUNT_MOST, MIN_ACTS, PlacesState
from feature_repo.layouts import PLACE_CELLS
from tests.feature_repo.logs import PARIS, START_MS, act

HOUR_MS = 3_600_000
MIDNIGHT_MS = 1_749_945_600_000  # 2025-06-15 00:00 UTC, the night before a Sunday
WORK = (48.90, 2.40)
RESOLUTION = 9


def after(*acts: Act, resolution: int = RESOLUTION) -> PlacesState:
    state = places.EMPTY
    for one in acts:
        state = places.fold(state, one, resolution)
    return state


def here(event: str, at_ms: int, where: tuple[float, float]) -> Act:
    return act(event, at_ms=at_ms, location=where)


def test_without_consent_nothing_is_kept() -> None:
    assert after(act()) is places.EMPTY


@given(st.floats(-89, 89), st.floats(-179, 179), st.integers(0, 9))
def test_nothing_finer_than_the_resolution_is_kept(latitude: float, longitude: float, resolution: int) -> None:
    state = after(here("e", START_MS, (latitude, longitude)), resolution=resolution)
    cell = cell_of(latitude, longitude, resolution)
    assert state.last_cell == cell
    assert (state.last_latitude, state.last_longitude) == centre_of(cell)
    assert (state.mean_latitude, state.mean_longitude) == centre_of(cell)


def test_nights_name_home_and_working_hours_name_work() -> None:
    nights = [here(f"n{day}", MIDNIGHT_MS + (day * 24 + 2) * HOUR_MS, PARIS) for day in range(MIN_ACTS)]
    days = [here(f"d{day}", MIDNIGHT_MS + (day * 24 + 11) * HOUR_MS, WORK) for day in range(1, 1 + MIN_ACTS)]
    state = after(*nights, *days)
    assert state.home_cell == cell_of(*PARIS, RESOLUTION)
    assert state.work_cell == cell_of(*WORK, RESOLUTION)
    assert after(*nights[:-1]).home_cell == 0


def test_a_sunday_is_no_working_day() -> None:
    assert after(*(here(f"e{n}", MIDNIGHT_MS + 11 * HOUR_MS, WORK) for n in range(9))).work_cell == 0


def test_the_hour_is_that_of_the_sun() -> None:
    sydney = (-33.87, 151.21)
    at_noon_utc = [here(f"e{n}", MIDNIGHT_MS + 13 * HOUR_MS, sydney) for n in range(MIN_ACTS)]  # 23 h in Sydney
    assert after(*at_noon_utc).home_cell == cell_of(*sydney, RESOLUTION)


def test_a_late_act_does_not_move_the_last_place() -> None:
    state = after(here("a", START_MS, PARIS), here("b", START_MS - 1, WORK))
    assert state.last_cell == cell_of(*PARIS, RESOLUTION)
    assert state.updated_ms == START_MS


def test_the_radius_is_zero_at_one_place_and_grows_with_distance() -> None:
    still = after(*(here(f"e{n}", START_MS, PARIS) for n in range(5)))
    assert still.radius_m == pytest.approx(0.0, abs=1e-6)
    moved = after(*(here(f"e{n}", START_MS, PARIS if n % 2 else WORK) for n in range(200)))
    half_way_m = distance_m(*PARIS, *WORK) / 2
    assert moved.radius_m == pytest.approx(half_way_m, rel=0.1)


def test_the_mean_crosses_the_antimeridian_the_short_way() -> None:
    fiji = [here(f"e{n}", START_MS, (-17.0, 179.9 if n % 2 else -179.9)) for n in range(50)]
    state = after(*fiji)
    assert abs(state.mean_longitude) > 179.0
    assert state.radius_m < 50_000


def test_the_cell_with_the_fewest_acts_gives_way() -> None:
    night = MIDNIGHT_MS + 2 * HOUR_MS
    home = [here(f"h{n}", night, PARIS) for n in range(5)]
    travel = [here(f"t{n}", night, (40.0 + n, 0.0)) for n in range(3 * PLACE_CELLS)]
    state = after(*home, *travel)
    assert len(state.cells) == PLACE_CELLS
    assert state.home_cell == cell_of(*PARIS, RESOLUTION)


def test_counts_stay_bounded() -> None:
    state = after(*(here(f"e{n}", MIDNIGHT_MS, PARIS) for n in range(3 * COUNT_MOST)))
    assert COUNT_MOST // 2 <= state.cells[0][1] < COUNT_MOST
