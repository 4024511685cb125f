"""Examples on disk: each once an epoch, in an order of the seed alone, in bounded memory; whole or refused."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import ArtefactError, InputError
from models.example_shards import INDEX_FILE, ExampleShards, write_shards
from models.examples import ExamplesInMemory, ExampleSource, facts_of, joined_examples, rows_of_examples
from tests.models.example_worlds import numbers_of, random_examples


def order(source: ExampleSource, batch_size: int, *, seed: int = 0, epoch: int = 0, skip: int = 0) -> list[list[int]]:
    return [numbers_of(batch) for batch in source.batches(batch_size, seed=seed, epoch=epoch, skip=skip)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    examples = random_examples(53)
    parts = [rows_of_examples(examples, slice(start, start + 11)) for start in range(0, 53, 11)]
    write_shards(parts, tmp_path / "examples", shard_rows=8)
    return tmp_path / "examples"


@settings(max_examples=30, deadline=None)
@given(batch_size=st.integers(1, 60), skip=st.integers(0, 5), window=st.integers(1, 9), epoch=st.integers(0, 3))
def test_every_request_once_in_full_batches_and_skipping_only_skips(
    batch_size: int, skip: int, window: int, epoch: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    write_shards([random_examples(53)], folder, shard_rows=8)
    for source in (ExampleShards(folder, window=window), ExamplesInMemory(random_examples(53))):
        batches = order(source, batch_size, epoch=epoch)
        assert sorted(number for batch in batches for number in batch) == list(range(53))
        assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
        assert order(source, batch_size, epoch=epoch, skip=skip) == batches[skip:]


def test_the_order_depends_on_seed_and_epoch_and_on_nothing_else(folder: Path) -> None:
    for source in (ExampleShards(folder, window=3), ExamplesInMemory(random_examples(53))):
        first = order(source, 7)
        np.random.seed(1)
        assert order(source, 7) == first
        assert order(source, 7, seed=1) != first
        assert order(source, 7, epoch=1) != first


def test_a_shard_gives_back_what_was_written(folder: Path) -> None:
    examples = random_examples(53)
    read = joined_examples(list(ExampleShards(folder).batches(20, seed=0, epoch=0)))
    back = rows_of_examples(read, np.argsort(read.context.place[:, 0]))
    assert all((one == other).all() for one, other in zip(back.context, examples.context, strict=True))
    assert (back.items == examples.items).all()
    assert ExampleShards(folder).facts[:-1] == facts_of(examples)[:-1]  # a digest is of the parts


def test_memory_does_not_grow_with_the_examples(tmp_path: Path) -> None:
    peaks = []
    for times in (4, 32):
        parts = (random_examples(100, seed) for seed in range(times))
        tracemalloc.start()
        write_shards(parts, tmp_path / str(times), shard_rows=64)
        for _ in ExampleShards(tmp_path / str(times), window=2).batches(32, seed=0, epoch=0):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_windows_that_are_skipped_are_not_read(folder: Path) -> None:
    source = ExampleShards(folder, window=1)
    first = numbers_of(next(source.batches(8, seed=0, epoch=0)))
    number = next(n for n in range(7) if first[0] in range(8 * n, 8 * n + 8))
    rest = order(source, 8, skip=1)
    (folder / f"shard-{number:05d}.npz").unlink()
    assert order(source, 8, skip=1) == rest


def test_an_empty_day_is_passed_over_and_only_empty_ones_are_refused(tmp_path: Path) -> None:
    facts = write_shards([random_examples(0), random_examples(5), random_examples(0)], tmp_path / "some")
    assert facts.requests == 5
    with pytest.raises(InputError, match="found no examples in any part"):
        write_shards([random_examples(0)], tmp_path / "none")


def test_a_folder_is_whole_or_refused(tmp_path: Path, folder: Path) -> None:
    def broken() -> Iterator[object]:
        yield random_examples(20)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shards(broken(), tmp_path / "half", shard_rows=8)  # type: ignore[arg-type]
    with pytest.raises(ArtefactError, match="found no whole set"):
        ExampleShards(tmp_path / "half")
    (folder / "shard-00001.npz").write_bytes(b"nothing")
    with pytest.raises(ArtefactError, match="found no readable shard"):
        order(ExampleShards(folder), 8)
    with pytest.raises(InputError, match="choose an empty folder"):
        write_shards([random_examples(3)], folder)
    assert (folder / INDEX_FILE).exists()


def test_parts_of_other_shapes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected"):
        write_shards([random_examples(5), random_examples(5, targets=3)], tmp_path)
