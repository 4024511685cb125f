"""No score knows what is newer than its sample: everything later is changed, the sample too, and no score moves.

Each protocol is built from tiny files of the data set's own columns, so this runs without the data. Leave-one-out
alone lets training see what others did later; there, what must not matter is the sample, and what its user did after.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.quality.beauty import beauty
from benchmarks.quality.contexts import contexts
from benchmarks.quality.entries import ENTRIES
from benchmarks.quality.foursquare import foursquare, foursquare_getnext
from benchmarks.quality.kuairand import kuairand_split
from benchmarks.quality.models import Model
from benchmarks.quality.movielens import movielens
from benchmarks.quality.split import Split, check_split, good_sequences
from benchmarks.quality.workshop import Workshop
from models.kuairand import Excerpt, day_start_ms
from models.neighbours import cooccurrence, text_neighbours

USERS, ITEMS, EACH = 12, 15, 12
# Sums of models know what their parts know; the generator and its values take a while to make: see test_generative.
COUNTED_AND_READ = [name for name in ENTRIES if "+" not in name and not name.startswith(("generator", "values"))]
BEGIN_S = 1_333_500_000
STEP_S = 7 * 3_600 + 11


class Log(NamedTuple):
    """Acts by time, that a test can change from one of them on."""

    users: np.ndarray
    items: np.ndarray
    at_s: np.ndarray
    marks: np.ndarray  # 0 .. 4

    def changed_from(self, at_s: int) -> "Log":
        rng = np.random.default_rng(9)
        later = self.at_s >= at_s
        items = np.where(later, (self.items + rng.integers(1, ITEMS, len(later))) % ITEMS, self.items)
        return self._replace(items=items, marks=np.where(later, 4 - self.marks, self.marks))


def some_log(seed: int = 0) -> Log:
    rng = np.random.default_rng(seed)
    count = USERS * EACH
    at_s = BEGIN_S + np.arange(count) * STEP_S
    return Log(
        rng.permutation(np.arange(count) % USERS), rng.integers(ITEMS, size=count), at_s, rng.integers(5, size=count)
    )


def write(folder: Path, name: str, **columns: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), folder / f"{name}.parquet")


def beauty_from(log: Log, home: Path, stage: str) -> Split:
    folder = home / "amazon-beauty-2014"
    order = np.lexsort((log.at_s, log.users))
    write(
        folder,
        "interactions",
        user_id=log.users[order] + 1,
        item_id=log.items[order] + 1,
        position=np.arange(len(order)),
        timestamp=log.at_s[order] // 86_400 * 86_400,
    )
    write(
        folder,
        "items",
        item_id=np.arange(ITEMS) + 1,
        title=[f"thing {n % 4}" for n in range(ITEMS)],
        category_paths=[[["Beauty", f"Shelf {n % 3}"]] for n in range(ITEMS)],
    )
    return beauty(home, stage)


def foursquare_files(log: Log, home: Path) -> None:
    folder = home / "foursquare-nyc"
    write(folder, "checkins", user_id=log.users, poi_idx=log.items, unix_s=log.at_s)
    write(
        folder,
        "pois",
        poi_idx=np.arange(ITEMS),
        category=[f"kind {n % 3}" for n in range(ITEMS)],
        latitude=40.7 + np.arange(ITEMS) / 1_000,
        longitude=np.full(ITEMS, -74.0),
    )


def foursquare_from(log: Log, home: Path, stage: str) -> Split:
    foursquare_files(log, home)
    return foursquare(home, stage)


def foursquare_without_time(log: Log, home: Path, stage: str) -> Split:
    foursquare_files(log, home)
    return foursquare(home, stage, time_known=False)


def getnext_from(log: Log, home: Path, stage: str) -> Split:
    foursquare_files(log, home)
    place = np.arange(len(log.users))
    split = np.where(place < 100, "train", np.where(place < 120, "val", "test"))
    kept = split != "train"
    write(
        home / "foursquare-nyc",
        "getnext_val_test",
        split=split[kept].tolist(),
        user_id=log.users[kept],
        poi_idx=log.items[kept],
        unix_s=log.at_s[kept] // 60 * 60,
        trajectory_id=[f"{log.users[row]}_{row // 20}" for row in place[kept]],
    )
    return foursquare_getnext(home, stage)


def movielens_from(log: Log, home: Path, stage: str) -> Split:
    folder = home / "movielens-latest-small"
    write(folder, "ratings", userId=log.users, movieId=log.items * 3, timestamp=log.at_s, rating=log.marks + 1.0)
    write(
        folder,
        "movies",
        movieId=np.arange(ITEMS) * 3,
        title=[f"Film {n} (19{n + 60})" for n in range(ITEMS)],
        genres=["Comedy|Drama" if n % 2 else "(no genres listed)" for n in range(ITEMS)],
    )
    return movielens(home, stage)


def kuairand_excerpt(log: Log) -> Excerpt:
    begin_ms = day_start_ms("2022-04-25")
    at_ms = begin_ms + (log.at_s - BEGIN_S) * (11 * 86_400_000 // (len(log.at_s) * STEP_S))
    play_ms = log.marks * 6_000
    return Excerpt(
        pa.table(
            {
                "user_id": log.users,
                "video_id": log.items,
                "time_ms": at_ms,
                "play_time_ms": play_ms,
                "duration_ms": np.full(len(at_ms), 20_000),
                "feedback": np.where(play_ms >= 18_000, 64, 0),
                "tab": np.zeros(len(at_ms), np.int64),
            }
        ),
        pa.table(
            {
                "video_id": np.arange(ITEMS),
                "author_id": np.arange(ITEMS) // 3,
                "video_type": ["NORMAL"] * ITEMS,
                "upload_type": ["LongImport"] * ITEMS,
                "video_duration": np.full(ITEMS, 20_000),
                "music_id": np.zeros(ITEMS, np.int64),
                "tag": [str(n % 4) for n in range(ITEMS)],
            }
        ),
        pa.table(
            {
                "user_id": np.arange(USERS),
                "last_time_ms": np.full(USERS, begin_ms - 3_600_000),
                "watch_seq": [[n % ITEMS, (n + 1) % ITEMS] for n in range(USERS)],
                "long_watch_seq": [[n % ITEMS] for n in range(USERS)],
            }
        ),
    )


def kuairand_next(log: Log, home: Path, stage: str) -> Split:
    return kuairand_split(kuairand_excerpt(log), stage, exposed=False)


def kuairand_exposed(log: Log, home: Path, stage: str) -> Split:
    return kuairand_split(kuairand_excerpt(log), stage, exposed=True)


BUILDERS = [
    beauty_from,
    foursquare_from,
    foursquare_without_time,
    getnext_from,
    movielens_from,
    kuairand_next,
    kuairand_exposed,
]
GLOBAL_TIME = BUILDERS[1:]
Builder = Callable[[Log, Path, str], Split]


def changed_after(split: Split, act: int) -> Split:
    """Another world in which nothing is known but what may be learned from and what stands before `act`."""
    events = split.events
    index = np.arange(len(events.users))
    known = split.learn | ((events.users == events.users[act]) & (index < act))
    items = np.where(known, events.items, (events.items + 1 + index % (ITEMS - 1)) % ITEMS)
    shares = np.where(known, events.shares, 1 - np.nan_to_num(events.shares))
    return split._replace(
        events=events._replace(
            items=items.astype(np.int32),
            shares=shares.astype(np.float32),
            good=np.where(known, events.good, ~events.good),
        )
    )


def with_traits(split: Split) -> Split:
    return split._replace(traits=np.arange(int(split.events.users.max()) + 1)[:, None] % 4 - 1)


def models_of(tmp_path: Path) -> list[Model]:
    workshop = Workshop("beauty", tmp_path, tmp_path / "runs", lambda line: None)
    made = [ENTRIES[name].build(workshop, ENTRIES[name].settings[0]) for name in COUNTED_AND_READ]
    return [model for model in made if model.name not in ("sasrec", "hstu")]


@pytest.mark.parametrize("build", BUILDERS, ids=lambda build: build.__name__)
@pytest.mark.parametrize("stage", ["valid", "test"])
def test_no_score_knows_its_sample_or_anything_newer(build: Builder, stage: str, tmp_path: Path) -> None:
    split = with_traits(build(some_log(), tmp_path, stage))
    check_split(split)
    for place in (0, len(split.asked) // 2):
        other = changed_after(split, int(split.asked[place]))
        assert not np.array_equal(split.events.items, other.events.items)
        for model in models_of(tmp_path):
            model.fit(split, 0)
            expected = model.scores(split, np.array([place]))
            model.fit(other, 0)
            np.testing.assert_array_equal(model.scores(other, np.array([place])), expected, err_msg=model.name)


@pytest.mark.parametrize("build", BUILDERS, ids=lambda build: build.__name__)
@pytest.mark.parametrize("stage", ["valid", "test"])
def test_nothing_that_the_generator_reads_knows_its_sample_or_anything_newer(
    build: Builder, stage: str, tmp_path: Path
) -> None:
    split = build(some_log(), tmp_path, stage)
    other = changed_after(split, int(split.asked[0]))
    read = []
    for each in (split, other):
        counted = cooccurrence(good_sequences(each), len(each.items))
        codes = np.arange(3 * len(each.items), dtype=np.int32).reshape(-1, 3)
        read.append(contexts(each, each.asked[:1], codes, 8, [counted, text_neighbours(each.items)]))
    for name, one, another in zip(read[0]._fields, *read, strict=True):
        np.testing.assert_array_equal(one, another, err_msg=name)


@pytest.mark.parametrize("build", GLOBAL_TIME, ids=lambda build: build.__name__)
@pytest.mark.parametrize("stage", ["valid", "test"])
def test_what_is_learned_from_is_older_than_whatever_is_asked(build: Builder, stage: str, tmp_path: Path) -> None:
    split = build(some_log(), tmp_path, stage)
    assert split.events.at_s[split.learn].max() < split.events.at_s[split.asked].min()
    assert not split.learn[split.events.at_s >= split.events.at_s[split.asked].min()].any()


@pytest.mark.parametrize("build", GLOBAL_TIME, ids=lambda build: build.__name__)
def test_no_statistic_of_the_files_counts_what_is_newer(build: Builder, tmp_path: Path) -> None:
    log = some_log()
    split = with_traits(build(log, tmp_path / "one", "test"))
    first = int(split.events.at_s[split.asked].argmin())
    newer = int((split.events.at_s >= split.events.at_s[split.asked[first]]).sum())
    other = build(log.changed_from(int(np.sort(log.at_s)[-newer])), tmp_path / "other", "test")
    other = other._replace(asked=split.asked, traits=split.traits)
    for model in models_of(tmp_path):
        model.fit(split, 0)
        expected = model.scores(split, np.array([first]))
        model.fit(other, 0)
        np.testing.assert_array_equal(model.scores(other, np.array([first])), expected, err_msg=model.name)
    learned = np.flatnonzero(split.learn)
    for name, column in split.events._asdict().items():
        np.testing.assert_array_equal(column[learned], getattr(other.events, name)[learned], err_msg=name)
