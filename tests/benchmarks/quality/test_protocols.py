"""What each protocol asks, on files small enough to see through, and on the real ones where they are."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.quality.beauty import beauty
from benchmarks.quality.protocols import QUESTIONS
from benchmarks.quality.split import check_split, good_sequences, local_s
from core.errors import InputError
from core.settings import DATA_HOME_VARIABLE

DAY_S = 86_400
HOME = Path(os.environ.get(DATA_HOME_VARIABLE, "nowhere"))
ACTS = [  # user, item, day; user 2 has one act, user 3 two
    (1, 1, 0), (1, 2, 0), (1, 3, 5), (1, 4, 5), (1, 5, 5),
    (2, 1, 1),
    (3, 2, 2), (3, 3, 9),
]  # fmt: skip


def write_beauty(home: Path, acts: list[tuple[int, int, int]]) -> None:
    folder = home / "amazon-beauty-2014"
    folder.mkdir(parents=True)
    users, items, days = (np.array(column) for column in zip(*acts, strict=True))
    first = np.searchsorted(users, users)
    columns = {"user_id": users, "item_id": items, "position": np.arange(len(users)) - first, "timestamp": days * DAY_S}
    pq.write_table(pa.table(columns), folder / "interactions.parquet")
    shelf = {
        "item_id": np.arange(1, 6),
        "title": ["a", None, "c", "d", "e"],
        "category_paths": [[["x", "y"], ["x"]]] * 5,
    }
    pq.write_table(pa.table(shelf), folder / "items.parquet")


def asked(home: Path, stage: str, seed: int | None = None) -> list[tuple[int, int]]:
    split = beauty(home, stage, shuffle_seed=seed)
    check_split(split)
    events = split.events
    return list(zip(events.users[split.asked].tolist(), (events.items[split.asked] + 1).tolist(), strict=True))


def test_the_last_act_is_the_test_and_the_one_before_it_valid(tmp_path: Path) -> None:
    write_beauty(tmp_path, ACTS)
    assert asked(tmp_path, "test") == [(1, 5), (3, 3)]
    assert asked(tmp_path, "valid") == [(1, 4)]
    for stage in ("valid", "test"):
        assert [row.tolist() for row in good_sequences(beauty(tmp_path, stage))] == [[0, 1, 2]]
    refit = beauty(tmp_path, "test", learn_valid=True)
    assert [row.tolist() for row in good_sequences(refit)] == [[0, 1, 2, 3], [1]]


def test_targets_of_the_day_of_the_act_before_stand_apart(tmp_path: Path) -> None:
    write_beauty(tmp_path, ACTS)
    groups = beauty(tmp_path, "test").groups
    assert groups["same day"].tolist() == [True, False]
    assert groups["later day"].tolist() == [False, True]


def test_shuffling_stays_within_a_day_and_depends_on_the_seed_alone(tmp_path: Path) -> None:
    write_beauty(tmp_path, ACTS)
    found = {seed: asked(tmp_path, "test", seed) for seed in range(12)}
    assert {targets[0] for targets in found.values()} == {(1, 3), (1, 4), (1, 5)}
    assert {targets[1] for targets in found.values()} == {(3, 3)}
    assert asked(tmp_path, "test", 3) == found[3]


def test_titles_that_are_missing_are_empty_and_categories_are_named_once(tmp_path: Path) -> None:
    write_beauty(tmp_path, ACTS)
    item = beauty(tmp_path, "test").items[1]
    assert (item.title, list(item.tags)) == ("", ["x", "y"])


def test_data_in_which_nothing_can_be_asked_is_refused(tmp_path: Path) -> None:
    write_beauty(tmp_path, [(1, 1, 0), (2, 1, 1)])
    with pytest.raises(InputError, match="no act to ask for"):
        check_split(beauty(tmp_path, "test"))


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "amazon-beauty-2014"
    folder.mkdir()
    pq.write_table(pa.table({"user_id": [1], "item_id": [1], "position": [0]}), folder / "interactions.parquet")
    with pytest.raises(InputError, match="timestamp"):
        beauty(tmp_path, "test")


def test_hours_are_read_on_the_clocks_of_the_zone_summer_and_winter() -> None:
    noon_utc = np.array([[1_340_884_800, 1_356_782_400]])  # 2012-06-28 12:00, 2012-12-29 12:00
    assert ((local_s(noon_utc, "America/New_York") % DAY_S) // 3_600).tolist() == [[8, 7]]
    np.testing.assert_array_equal(local_s(noon_utc, "UTC"), noon_utc)


@pytest.mark.skipif(not HOME.is_dir(), reason=f"{DATA_HOME_VARIABLE} names no folder of data sets")
@pytest.mark.parametrize(
    ("name", "count"),
    [("beauty", 22_363), ("foursquare", 29_581), ("foursquare-getnext", 1_570), ("movielens", 4_088)],
)
def test_the_real_files_ask_as_many_as_they_should(name: str, count: int) -> None:
    for stage in ("valid", "test"):
        split = QUESTIONS[name].split(HOME, stage)
        check_split(split)
    assert len(split.asked) == count
