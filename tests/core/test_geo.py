"""Places: distances on a sphere, at its awkward spots too, and cells with their neighbours."""

import math

import h3.api.basic_int as h3
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.geo import EARTH_RADIUS_M, cell_name, cell_of, centre_of, distance_m, distances_m, neighbours

HALF_WAY_ROUND_M = math.pi * EARTH_RADIUS_M
latitudes = st.floats(-90, 90)
longitudes = st.floats(-180, 180)


def test_a_degree_along_a_meridian_is_111_km() -> None:
    assert distance_m(10, 20, 11, 20) == pytest.approx(111_195, abs=1)


def test_shanghai_to_beijing() -> None:
    assert distance_m(31.2304, 121.4737, 39.9042, 116.4074) == pytest.approx(1_067_000, rel=0.006)


def test_the_antimeridian_is_no_border() -> None:
    assert distance_m(0, 179.9, 0, -179.9) == pytest.approx(distance_m(0, -0.1, 0, 0.1), rel=1e-9)
    assert distance_m(12, 180, 12, -180) == pytest.approx(0, abs=1e-6)


def test_at_a_pole_every_longitude_is_the_same_place() -> None:
    assert distance_m(90, 0, 90, 137) == pytest.approx(0, abs=1e-6)
    assert distance_m(-90, -50, -90, 130) == pytest.approx(0, abs=1e-6)
    assert distance_m(90, 12, -90, 77) == pytest.approx(HALF_WAY_ROUND_M)


@given(latitudes, longitudes)
def test_the_other_side_of_the_earth_is_half_way_round(latitude: float, longitude: float) -> None:
    assert distance_m(latitude, longitude, -latitude, longitude + 180) == pytest.approx(HALF_WAY_ROUND_M, rel=1e-7)


@given(latitudes, longitudes, latitudes, longitudes)
def test_distance_is_symmetric_and_at_most_half_way_round(a: float, b: float, c: float, d: float) -> None:
    there, back = distance_m(a, b, c, d), distance_m(c, d, a, b)
    assert there == pytest.approx(back, rel=1e-9, abs=1e-6)
    assert 0 <= there <= HALF_WAY_ROUND_M * (1 + 1e-12)


@given(latitudes, longitudes, st.lists(st.tuples(latitudes, longitudes), max_size=8))
def test_many_distances_are_the_single_ones(
    latitude: float, longitude: float, places: list[tuple[float, float]]
) -> None:
    many = distances_m(latitude, longitude, [place[0] for place in places], [place[1] for place in places])
    assert many == pytest.approx([distance_m(latitude, longitude, *place) for place in places], rel=1e-9, abs=1e-6)


def test_unknown_place_has_an_unknown_distance() -> None:
    found = distances_m(0, 0, [0, np.nan], [1, 1])
    assert np.isnan(found).tolist() == [False, True]


@given(latitudes, longitudes, st.integers(0, 15))
def test_every_point_of_the_earth_has_a_cell_that_contains_its_centre(lat: float, lng: float, resolution: int) -> None:
    cell = cell_of(lat, lng, resolution)
    assert 0 < cell < 2**63, "fits a column of signed 64-bit integers"
    assert cell_of(*centre_of(cell), resolution) == cell


@given(latitudes, longitudes)
def test_neighbours_are_mutual_and_leave_the_cell_out(latitude: float, longitude: float) -> None:
    cell = cell_of(latitude, longitude, 9)
    near = neighbours(cell)
    assert len(near) == 6
    assert near == sorted(set(near) - {cell})
    assert all(cell in neighbours(other) for other in near)


def test_pentagon_has_five_neighbours() -> None:
    assert [len(neighbours(cell)) for cell in h3.get_pentagons(7)] == [5] * 12


@given(latitudes, longitudes)
def test_a_cells_name_reads_back_as_the_cell(latitude: float, longitude: float) -> None:
    cell = cell_of(latitude, longitude, 9)
    assert int(cell_name(cell), 16) == cell
