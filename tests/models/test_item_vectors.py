"""Laws of item vectors: unit length, alike things near, place counts, new items land among their like."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InputError
from core.ids import item_key
from feature_repo.layouts import DIM
from models.item_training import ItemVectors, VectorArgs, fit_item_vectors
from models.item_vectors import FEATURES, column_of, positions_km
from protos.catalog.v1.catalog_pb2 import Item
from protos.events.v1.interaction_pb2 import Location
from tests.models.shelves import EACH, SHELVES, shop_item, shop_items, shop_walks

SHELF_OF = np.array([shelf for _ in range(EACH) for shelf in range(SHELVES)])


def fitted(items: list[Item], seed: int = 0) -> ItemVectors:
    return fit_item_vectors(items, shop_walks(), VectorArgs(), np.random.default_rng(seed))


def test_vectors_are_of_unit_length_and_of_the_stored_width() -> None:
    learned = fitted(shop_items())
    assert learned.vectors.shape == (SHELVES * EACH, DIM)
    assert learned.vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(learned.vectors, axis=1), 1, rtol=1e-5)


def test_items_bought_together_are_nearer_than_others_even_without_content() -> None:
    alike = [Item(item_id=item.item_id, available=True) for item in shop_items()]
    vectors = fitted(alike).vectors
    cosines = vectors @ vectors.T
    same = SHELF_OF[:, None] == SHELF_OF
    assert cosines[same].mean() > 0.5 + cosines[~same].mean()


def test_items_alike_in_content_are_near_without_anybody_acting() -> None:
    vectors = fit_item_vectors(shop_items(), [], VectorArgs(), np.random.default_rng(0)).vectors
    cosines = vectors @ vectors.T
    same = SHELF_OF[:, None] == SHELF_OF
    assert cosines[same].mean() > 0.5 + cosines[~same].mean()


def test_a_new_item_lands_on_its_shelf() -> None:
    learned = fitted(shop_items())
    new = learned.encoder.encode([shop_item("new", shelf) for shelf in range(SHELVES)])
    centres = np.stack([learned.vectors[shelf == SHELF_OF].mean(axis=0) for shelf in range(SHELVES)])
    assert (new @ centres.T).argmax(axis=1).tolist() == list(range(SHELVES))


def test_what_people_did_counts_more_the_more_they_did() -> None:
    """The gate: an item with many sequences leaves the place that content alone gives it, a rare one stays."""
    items = [*shop_items(), shop_item("stray-often", 0), shop_item("stray-once", 0)]
    walks = shop_walks(walkers=200)
    for walker in range(1, 160, SHELVES):  # people who shop along shelf 1
        walks[walker] = np.insert(walks[walker], 4, item_key("stray-often"))
    walks[1] = np.insert(walks[1], 4, item_key("stray-once"))
    learned = fit_item_vectors(items, walks, VectorArgs(), np.random.default_rng(0))
    by_content = learned.encoder.encode(items[-2:])
    kept = (learned.vectors[-2:] * by_content).sum(axis=1)
    assert kept[0] < kept[1]


def test_a_place_moves_the_vector_and_the_nearer_the_less() -> None:
    rng = np.random.default_rng(0)
    items = [
        shop_item(f"{number}", number % 2, at=(31.0 + rng.random() / 2, 121.0 + rng.random() / 2))
        for number in range(80)
    ]
    encoder = fit_item_vectors(items, [], VectorArgs(), rng).encoder
    here, near, far = encoder.encode([shop_item("x", 0, at=(31.2, longitude)) for longitude in (121.2, 121.202, 121.5)])
    assert here @ near > here @ far
    assert here @ near < 1 - 1e-6


def test_an_item_without_a_place_has_no_place_part() -> None:
    encoder = fitted(shop_items()).encoder
    parts = encoder.place_part([shop_item("a", 0), shop_item("b", 0, at=(0.0, 0.0))])
    assert not parts[0].any()
    assert np.linalg.norm(parts[1]) == pytest.approx(1.0, rel=1e-5)


def test_the_antimeridian_and_the_poles_are_places_like_others() -> None:
    places = [(0.0, 179.9995), (0.0, -179.9995), (90.0, 0.0), (90.0, 123.0)]
    points = positions_km(Item(location=Location(latitude=lat, longitude=lon)) for lat, lon in places)
    assert np.linalg.norm(points[0] - points[1]) == pytest.approx(0.111, abs=0.001)
    assert np.linalg.norm(points[2] - points[3]) == pytest.approx(0.0, abs=1e-6)


def test_an_item_that_says_nothing_still_has_a_vector() -> None:
    encoder = fitted(shop_items()).encoder
    assert np.linalg.norm(encoder.encode([Item(item_id="blank")])[0]) == pytest.approx(1.0, rel=1e-5)


def test_a_single_item_is_enough() -> None:
    learned = fit_item_vectors([shop_item("only", 0)], [], VectorArgs(), np.random.default_rng(0))
    assert np.linalg.norm(learned.vectors[0]) == pytest.approx(1.0, rel=1e-5)


def test_no_items_are_refused() -> None:
    with pytest.raises(InputError, match="found no items"):
        fit_item_vectors([], [], VectorArgs(), np.random.default_rng(0))


def test_sequences_may_name_items_that_nobody_knows() -> None:
    strange = [*shop_walks(), np.array([-5, 1 << 40], np.int64), np.zeros(0, np.int64)]
    learned = fit_item_vectors(shop_items(), strange, VectorArgs(), np.random.default_rng(0))
    np.testing.assert_array_equal(learned.vectors, fitted(shop_items()).vectors)


def test_the_same_seed_gives_the_same_vectors() -> None:
    np.testing.assert_array_equal(fitted(shop_items(), 4).vectors, fitted(shop_items(), 4).vectors)


@given(st.text(max_size=30))
def test_features_are_hashed_to_the_same_column_everywhere(feature: str) -> None:
    assert 0 <= column_of(feature) < FEATURES
    assert column_of("tag=a") == 3851


def test_serving_places_items_without_the_training_libraries() -> None:
    libraries = "{'scipy.sparse', 'scipy.linalg', 'sklearn', 'torch'}"  # numba asks for scipy's version, no more
    script = f"import sys, models.catalog; print(sorted({libraries} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
