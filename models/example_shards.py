"""Examples on disk, read as a stream: written once, shuffled anew in every epoch, in bounded memory.

    examples.json      rows of each shard, and the facts of all; written last, so that a folder that has it is whole
    shard-00000.npz    `Examples` as arrays

The order of an epoch: shards are dealt at random into windows, a window's rows are shuffled. So memory holds one
window and one batch, a request may stand anywhere near the others of its window, and which windows it shares with
whom changes with every epoch. Windows that are skipped are not read.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple
from zipfile import BadZipFile

import numpy as np

from core.errors import ArtefactError, InputError
from models.batches import ContextBatch
from models.examples import ExampleFacts, Examples, facts_of, joined_examples, rows_of_examples

INDEX_FILE: Final = "examples.json"
SHARD_ROWS: Final = 4_096  # about 10 MB at 80 tokens
WINDOW_SHARDS: Final = 8

_CONTEXT: Final = "context_"
_ITEMS: Final = "items"


class _Index(NamedTuple):
    rows: list[int]  # of each shard
    facts: ExampleFacts


def write_shards(parts: Iterable[Examples], folder: Path, *, shard_rows: int = SHARD_ROWS) -> ExampleFacts:
    """`folder` holds the examples of all parts, in shards of `shard_rows` requests; the last may be smaller.

    Args:
        parts: of equal shapes but for n, a day each for example; empty ones are passed over. One part and one shard
            are in memory at a time.

    Raises:
        InputError: there is no example, parts differ in shape, or the folder holds examples already.
    """
    if (folder / INDEX_FILE).exists():
        raise InputError(f"{folder}: found examples there already, expected none; choose an empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[int] = []
    facts: ExampleFacts | None = None
    waiting: Examples | None = None
    for part in parts:
        if not len(part.items):
            continue
        found = facts_of(part)
        if waiting is not None and _shapes(part) != _shapes(waiting):
            raise InputError(
                f"found a part of shapes {_shapes(part)}, expected {_shapes(waiting)} as before; "
                "make all parts with one context and one number of targets"
            )
        facts = found if facts is None else facts.joined(found)
        waiting = part if waiting is None else joined_examples([waiting, part])
        while len(waiting.items) >= shard_rows:
            _write(rows_of_examples(waiting, slice(shard_rows)), folder / _shard(len(rows)))
            rows.append(shard_rows)
            waiting = rows_of_examples(waiting, slice(shard_rows, None))
    if facts is None or waiting is None:
        raise InputError("found no examples in any part, expected at least one; choose days with acts on known items")
    if len(waiting.items):
        _write(waiting, folder / _shard(len(rows)))
        rows.append(len(waiting.items))
    unfinished = folder / f"{INDEX_FILE}.tmp"
    unfinished.write_text(json.dumps({"rows": rows, "facts": facts._asdict()}), "utf-8")
    unfinished.replace(folder / INDEX_FILE)
    return facts


class ExampleShards:
    """The examples of a folder as a source; `window` shards are in memory at a time."""

    def __init__(self, folder: Path, *, window: int = WINDOW_SHARDS) -> None:
        """Raises ArtefactError when the folder holds no whole set of examples."""
        self._folder, self._window = folder, window
        self._index = _read_index(folder)

    @property
    def facts(self) -> ExampleFacts:
        return self._index.facts

    def batches(self, batch_size: int, *, seed: int, epoch: int, skip: int = 0) -> Iterator[Examples]:
        order = np.random.default_rng([seed, epoch]).permutation(len(self._index.rows))
        passed = skip * batch_size  # rows that need not be read
        waiting: list[Examples] = []  # fewer rows than a batch
        for number, start in enumerate(range(0, len(order), self._window)):
            shards = [int(shard) for shard in order[start : start + self._window]]
            size = sum(self._index.rows[shard] for shard in shards)
            if passed >= size:
                passed -= size
                continue
            rows = np.random.default_rng([seed, epoch, number]).permutation(size)[passed:]
            passed = 0
            window = joined_examples([_read(self._folder / _shard(shard)) for shard in shards])
            at, missing = 0, batch_size - sum(len(part.items) for part in waiting)
            while at + missing <= len(rows):
                yield joined_examples([*waiting, rows_of_examples(window, rows[at : at + missing])])
                at, missing, waiting = at + missing, batch_size, []
            if at < len(rows):
                waiting.append(rows_of_examples(window, rows[at:]))
            del window
        if waiting:
            yield joined_examples(waiting)


def _shard(number: int) -> str:
    return f"shard-{number:05d}.npz"


def _shapes(examples: Examples) -> list[tuple[int, ...]]:
    return [array.shape[1:] for array in (*examples.context, examples.items)]


def _write(examples: Examples, path: Path) -> None:
    arrays = {_CONTEXT + name: array for name, array in examples.context._asdict().items()}
    np.savez(path, allow_pickle=False, **{_ITEMS: examples.items}, **arrays)


def _read(path: Path) -> Examples:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            context = ContextBatch._make(arrays[_CONTEXT + name] for name in ContextBatch._fields)
            return Examples(context, arrays[_ITEMS])
    except (OSError, ValueError, KeyError, BadZipFile, EOFError) as error:
        raise ArtefactError(f"{path}: found no readable shard ({error}); write the examples again") from None


def _read_index(folder: Path) -> _Index:
    path = folder / INDEX_FILE
    try:
        read = json.loads(path.read_text("utf-8"))
        return _Index(read["rows"], ExampleFacts(**read["facts"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtefactError(f"{path}: found no whole set of examples ({error}); write the examples again") from None
