"""Places on the earth: H3 cells and distances.

A cell is H3's 64-bit index as an int; people and Feast entity keys see its hexadecimal form
(`cell_name`). Distances are great-circle metres on a sphere of mean radius: within 0.6 % of the
ellipsoid, which is far below what a phone's location is worth.
"""

import math
from typing import Final

import h3.api.basic_int as h3
import numpy as np
from numpy.typing import ArrayLike, NDArray

EARTH_RADIUS_M: Final = 6_371_008.8


def cell_of(latitude: float, longitude: float, resolution: int) -> int:
    """The H3 cell that holds a point. Resolution 7 is ~2.4 km across, 9 is ~350 m."""
    return int(h3.latlng_to_cell(latitude, longitude, resolution))


def neighbours(cell: int) -> list[int]:
    """The cells that touch `cell`, itself left out: six, or five around a pentagon; ascending."""
    return sorted(int(near) for near in h3.grid_disk(cell, 1) if near != cell)


def centre_of(cell: int) -> tuple[float, float]:
    """Latitude and longitude of the cell's centre, degrees."""
    latitude, longitude = h3.cell_to_latlng(cell)
    return float(latitude), float(longitude)


def cell_name(cell: int) -> str:
    """The cell as people and entity keys spell it."""
    return str(h3.int_to_str(cell))


def distance_m(latitude1: float, longitude1: float, latitude2: float, longitude2: float) -> float:
    """Great-circle distance in metres; degrees in, antimeridian and poles included."""
    phi1, phi2 = math.radians(latitude1), math.radians(latitude2)
    half_phi = (phi2 - phi1) / 2.0
    half_lambda = math.radians(longitude2 - longitude1) / 2.0
    chord = math.sin(half_phi) ** 2 + math.cos(phi1) * math.cos(phi2) * math.sin(half_lambda) ** 2
    return 2.0 * EARTH_RADIUS_M * math.asin(min(1.0, math.sqrt(chord)))


def distances_m(latitude: float, longitude: float, latitudes: ArrayLike, longitudes: ArrayLike) -> NDArray[np.float64]:
    """`distance_m` from one point to many; NaN where a coordinate is NaN."""
    phi1, phi2 = np.radians(latitude), np.radians(np.asarray(latitudes, dtype=np.float64))
    half_lambda = np.radians(np.asarray(longitudes, dtype=np.float64) - longitude) / 2.0
    chord = np.sin((phi2 - phi1) / 2.0) ** 2 + np.cos(phi1) * np.cos(phi2) * np.sin(half_lambda) ** 2
    return np.asarray(2.0 * EARTH_RADIUS_M * np.arcsin(np.sqrt(np.clip(chord, 0.0, 1.0))))
