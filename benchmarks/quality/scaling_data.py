"""Requests for the scaling runs: one long sequence a user, cut into requests of k items that share one context.

Letters used in this file
    N context tokens   k items of a request

    kuairand    the excerpt in data/: videos watched long, the list from before and then the log; no times
    movielens   latest-small in the folder of --data-home: films in the order they were rated, with times; 165 a user

The last tenth of a user's requests, at least one, is what a model is judged by; item vectors and codes are learned from
the rest. A context holds the acts before the request and nothing else.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from core.errors import InputError
from core.ids import item_key
from feature_repo.layouts import DIM
from models import kuairand
from models.batches import AGE_BUCKETS, EVIDENCE_SOURCES, NEAR, PLACE_FEATURES, WATCH_SHARES, ContextBatch, Ints
from models.examples import Examples
from models.train_semantic_ids import SemanticIdArgs, train_semantic_ids
from protos.catalog.v1.catalog_pb2 import Item

SOURCES: Final = ("kuairand", "movielens")
PER_REQUEST: Final = 5  # k, as in the paper
CODEBOOK: Final = 64
_JUDGED: Final = 10  # one request in so many, the latest

Ids = npt.NDArray[np.int64]


class Sequences(NamedTuple):
    """What users acted on, oldest first."""

    items: list[Ids]  # per user, catalogue index
    at_s: list[Ids] | None  # per user, when; None = not known
    codes: Ints  # (I, LEVELS) learned without the requests that are judged


class Asked(NamedTuple):
    """Requests: which user's, and at which act each begins."""

    users: Ids
    starts: Ids


def read_sequences(source: str, data_home: Path | None) -> Sequences:
    """Raises InputError when the data is not there."""
    if source == "kuairand":
        return _kuairand()
    if data_home is None or not (data_home / "movielens-latest-small").is_dir():
        raise InputError(
            f"found no movielens-latest-small in {data_home}, expected its Parquet files; name it by --data-home"
        )
    return _movielens(data_home / "movielens-latest-small")


def split_requests(sequences: Sequences, *, least: int) -> tuple[Asked, Asked]:
    """Requests to learn from and to judge by; each has at least `least` acts before it."""
    learn, judge = list[tuple[int, int]](), list[tuple[int, int]]()
    for user, items in enumerate(sequences.items):
        begins = _starts(len(items))
        late = _late(len(begins))
        learn += [(user, start) for start in begins[: len(begins) - late] if start >= least]
        judge += [(user, start) for start in begins[len(begins) - late :] if start >= least]
    return _asked(learn), _asked(judge)


def some(asked: Asked, count: int, seed: int = 0) -> Asked:
    """At most `count` of the requests; fewer are always among more."""
    rows = np.random.default_rng(seed).permutation(len(asked.users))[:count]
    return Asked(asked.users[rows], asked.starts[rows])


def examples_of(sequences: Sequences, asked: Asked, tokens: int) -> Examples:
    """The requests with the newest `tokens` acts before each; 0 makes strangers of all, of one token that is masked."""
    count, width = len(asked.users), max(tokens, 1)
    items = np.zeros((count, width), np.int64)
    mask = np.zeros((count, width), bool)
    age = np.zeros((count, width), np.int32)
    targets = np.empty((count, PER_REQUEST), np.int32)
    for row, (user, start) in enumerate(zip(asked.users.tolist(), asked.starts.tolist(), strict=True)):
        known = slice(max(start - tokens, 0), start)
        newest_first = sequences.items[user][known][::-1]
        items[row, : len(newest_first)] = newest_first
        mask[row, : len(newest_first)] = True
        targets[row] = sequences.items[user][start : start + PER_REQUEST]
        if sequences.at_s is not None:
            at_s = sequences.at_s[user]
            age_s = np.maximum(at_s[start] - at_s[known][::-1], 0)
            age[row, : len(age_s)] = np.minimum(2.0 * np.log2(1.0 + age_s), AGE_BUCKETS - 1)
    context = ContextBatch(
        codes=sequences.codes[items] * mask[:, :, None],
        mask=mask,
        actions=np.zeros((count, width), np.int32),
        watch=np.where(mask, np.int32(WATCH_SHARES - 1), np.int32(0)),
        age=age,
        interests=np.zeros((count, 2, DIM), np.float32),
        place=np.zeros((count, PLACE_FEATURES), np.float32),
        items=(items * mask).astype(np.int32),
        near=np.full((count, NEAR), -1, np.int32),
        nearness=np.zeros((count, NEAR, EVIDENCE_SOURCES), np.float32),
    )
    return Examples(context, targets)


def _starts(length: int) -> list[int]:
    """Where a user's requests begin, counted back from the end."""
    return list(range(length % PER_REQUEST, length - PER_REQUEST + 1, PER_REQUEST))


def _late(requests: int) -> int:
    return -(-requests // _JUDGED)


def _asked(pairs: list[tuple[int, int]]) -> Asked:
    users, starts = np.array(pairs, np.int64).reshape(-1, 2).T
    return Asked(users, starts)


def _kuairand() -> Sequences:
    excerpt = kuairand.read_excerpt()
    items = kuairand.items(excerpt)
    index = {item_key(item.item_id): row for row, item in enumerate(items)}
    keys = np.array(list(index))
    rows = np.array(list(index.values()))
    order = np.argsort(keys)
    found = []
    for sequence in kuairand.sequences(excerpt, 1 << 62):
        hashed = np.array([item_key(str(video)) for video in sequence.tolist()], np.int64)
        at = np.minimum(np.searchsorted(keys[order], hashed), len(keys) - 1)
        found.append(rows[order][at][keys[order][at] == hashed])
    return Sequences(found, None, _codes(items, found))


def _movielens(folder: Path) -> Sequences:
    films = pq.read_table(folder / "movies.parquet").to_pydict()
    items = [
        Item(item_id=str(film), title=title, tags=genres.split("|"), available=True)
        for film, title, genres in zip(films["movieId"], films["title"], films["genres"], strict=True)
    ]
    index = {film: row for row, film in enumerate(films["movieId"])}
    ratings = pq.read_table(folder / "ratings.parquet")
    users, at_s = ratings["userId"].to_numpy(), ratings["timestamp"].to_numpy().astype(np.int64)
    rated = np.array([index[film] for film in ratings["movieId"].to_pylist()])
    order = np.lexsort((at_s, users))
    cuts = np.flatnonzero(np.diff(users[order])) + 1
    sequences = np.split(rated[order], cuts)
    return Sequences(sequences, np.split(at_s[order], cuts), _codes(items, sequences))


def _codes(items: Sequence[Item], sequences: list[Ids]) -> Ints:
    """Paths that were learned without what is judged."""
    keys = np.array([item_key(item.item_id) for item in items], np.int64)
    known = []
    for sequence in sequences:
        begins = _starts(len(sequence))
        late = _late(len(begins))
        known.append(keys[sequence[: begins[-late] if late else len(sequence)]])
    learned = train_semantic_ids(items, known, SemanticIdArgs(codebook_size=CODEBOOK))
    return learned.catalog.codes[: len(items)]
