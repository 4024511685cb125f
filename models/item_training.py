"""Item vectors learned from items and from what people did with them; the encoder for items to come.

Letters used in this file
    I items   F hashed features   D width of a vector   S sequences

Content: hashed features -> TF-IDF -> truncated SVD. Collaborative: co-occurrence within users' sequences -> shifted
positive PMI -> truncated SVD. A ridge regression predicts the collaborative part from content, and each item's own
collaborative part is trusted by the gate n / (n + GATE) for n sequences that hold it, the prediction by the rest. So
rare items lean on content, and a new item is placed where what it is suggests.

Source: Levy and Goldberg, NIPS 2014 (SVD of shifted PPMI is what skip-gram does). OneRec, arXiv:2506.13695, joins
content and collaborative signal by contrastive training of a multimodal encoder; left out: the platform sees no
pixels, and the same loss on the last projection here carried the next act no better (docs/log.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.utils.extmath import randomized_svd

from core.errors import InputError
from core.ids import item_key
from feature_repo.layouts import DIM
from models.item_vectors import FEATURES, Floats, ItemEncoder, hashed_features, unit_rows
from protos.catalog.v1.catalog_pb2 import Item

_SCALES_KM: Final = (1.0, 5.0, 25.0)  # a quarter, a district, a city
_WAVES: Final = 16  # random waves per scale
_RIDGE: Final = 1.0
_ROUNDS: Final = 4  # power iterations of the randomised SVD

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class VectorArgs:
    """How item vectors are learned."""

    window: int = 10
    """Two items of a sequence belong together when at most this many places apart."""
    shift: float = 0.0
    """log k of the shifted PMI: more cuts away chance encounters, and with them what little is known of rare items."""
    smoothing: float = 0.75
    """Exponent on context counts; below 1 it tempers the PMI of rare items."""
    gate: float = 3.0
    """GATE: sequences that make an item's own collaborative part count as much as the predicted one."""
    content_weight: float = 1.0
    collaborative_weight: float = 1.5
    place_weight: float = 1.0
    """Weights of the three parts before they are projected; each part is of unit length."""


class ItemVectors(NamedTuple):
    """What was learned."""

    vectors: Floats  # (I, D) unit rows, in the order of the items
    encoder: ItemEncoder


def fit_item_vectors(
    items: Sequence[Item], sequences: Sequence[Ids], args: VectorArgs, rng: np.random.Generator
) -> ItemVectors:
    """Vectors of `items`, and the encoder that places others among them.

    Args:
        items: at least one.
        sequences: (S) core.ids.item_key per act, oldest first; unknown keys are passed over. Training time only.
        rng: the only source of chance.
    """
    if not items:
        raise InputError("found no items, expected at least one; load a catalogue before training semantic ids")
    seed = int(rng.integers(1 << 31))
    waves = np.concatenate([rng.normal(size=(_WAVES, 3)) / scale for scale in _SCALES_KM]).astype(np.float32)
    features = _features(items)
    holders = np.bincount(features.indices, minlength=FEATURES)
    idf = (np.log((1 + len(items)) / (1 + holders)) + 1).astype(np.float32)
    joined_width = 2 * DIM + 2 * len(waves)
    encoder = ItemEncoder(
        idf=idf,
        content=_right_factors(_unit(features @ sparse.diags_array(idf)), seed),
        collaborative=np.zeros((DIM, DIM), np.float32),
        waves=waves,
        mean=np.zeros(joined_width, np.float32),
        projection=np.zeros((joined_width, DIM), np.float32),
        weights=np.array([args.content_weight, args.collaborative_weight, args.place_weight], np.float32),
    )
    content, place = encoder.content_part(items), encoder.place_part(items)

    indexed = _indexed(items, sequences)
    counts = np.bincount(np.concatenate([np.unique(row) for row in indexed]), minlength=len(items))
    learned = unit_rows(_left_factors(_sppmi(indexed, len(items), args), seed))
    trust = (counts / np.maximum(counts + args.gate, 1e-9)).astype(np.float32)  # no gate and no acts: no trust
    encoder = encoder._replace(collaborative=_ridge(content, learned, trust))
    own = trust[:, None] * learned + (1 - trust[:, None]) * (content @ encoder.collaborative)

    joined = encoder.weigh(content, place, own)
    mean = joined.mean(axis=0)
    encoder = encoder._replace(mean=mean, projection=_principal_axes(joined - mean))
    return ItemVectors(encoder.join(content, place, own), encoder)


def _features(items: Sequence[Item]) -> sparse.csr_array:
    """(I, F) hashed features."""
    columns, values = zip(*(hashed_features(item) for item in items), strict=True)
    ends = np.cumsum([len(row) for row in columns])
    joined = (np.concatenate(values), np.concatenate(columns), np.concatenate([[0], ends]))
    return sparse.csr_array(joined, shape=(len(items), FEATURES))


def _unit(matrix: sparse.csr_array) -> sparse.csr_array:
    lengths = np.sqrt(matrix.multiply(matrix).sum(axis=1))
    return sparse.csr_array(sparse.diags_array(1 / np.where(lengths > 0, lengths, 1)) @ matrix)


def _indexed(items: Sequence[Item], sequences: Sequence[Ids]) -> list[Ids]:
    """The sequences as positions in `items`; an empty one is added, so that there is always one."""
    keys = np.array([item_key(item.item_id) for item in items], np.int64)
    order = np.argsort(keys)
    ranked = keys[order]
    rows = [np.zeros(0, np.int64)]
    for sequence in sequences:
        at = np.minimum(np.searchsorted(ranked, sequence), len(ranked) - 1)
        rows.append(order[at][ranked[at] == sequence])
    return rows


def _sppmi(sequences: Sequence[Ids], items: int, args: VectorArgs) -> sparse.csr_array:
    """(I, I) symmetric shifted positive PMI of standing within `window` places of each other."""
    joined = np.concatenate(sequences)
    owner = np.repeat(np.arange(len(sequences)), [len(row) for row in sequences])
    left, right = [], []
    for gap in range(1, args.window + 1):
        together = (owner[gap:] == owner[:-gap]) & (joined[gap:] != joined[:-gap])
        left.append(joined[:-gap][together])
        right.append(joined[gap:][together])
    one, other = np.concatenate(left), np.concatenate(right)
    pairs = sparse.coo_array((np.ones(len(one), np.float32), (one, other)), shape=(items, items)).tocsr()
    pairs = sparse.coo_array(pairs + pairs.T)
    totals = np.asarray(pairs.sum(axis=1), np.float64)
    context = totals**args.smoothing
    chance = totals[pairs.row] * context[pairs.col] / max(context.sum(), 1.0)
    information = np.log(pairs.data / chance) - args.shift
    kept = information > 0
    kept_pairs = (pairs.row[kept], pairs.col[kept])
    return sparse.coo_array((information[kept].astype(np.float32), kept_pairs), shape=(items, items)).tocsr()


def _left_factors(matrix: sparse.csr_array, seed: int) -> Floats:
    """(rows, D) left singular vectors by the root of their singular values; missing columns are zero."""
    left, sizes, _ = _svd(matrix, seed)
    return _widened(left * np.sqrt(sizes))


def _right_factors(matrix: sparse.csr_array, seed: int) -> Floats:
    """(columns, D) right singular vectors; missing columns are zero."""
    return _widened(_svd(matrix, seed)[2].T)


def _svd(matrix: sparse.csr_array, seed: int) -> tuple[Floats, Floats, Floats]:
    rank = min(DIM, *matrix.shape)
    left, sizes, right = randomized_svd(matrix, n_components=rank, n_iter=_ROUNDS, random_state=seed)
    return left, sizes, right


def _widened(columns: Floats) -> Floats:
    wide = np.zeros((len(columns), DIM), np.float32)
    wide[:, : columns.shape[1]] = columns
    return wide


def _ridge(inputs: Floats, outputs: Floats, trust: Floats) -> Floats:
    """(D, D) the linear map from inputs to outputs with the least squared error, rows weighted by `trust`."""
    weighted = inputs * trust[:, None]
    gram = weighted.T @ inputs + _RIDGE * np.eye(inputs.shape[1], dtype=np.float32)
    return np.asarray(np.linalg.solve(gram, weighted.T @ outputs), np.float32)


def _principal_axes(rows: Floats) -> Floats:
    """(width, D) directions of most variance, the first the greatest; signs fixed by the largest entry."""
    _, axes = np.linalg.eigh(rows.T.astype(np.float64) @ rows)
    axes = axes[:, ::-1][:, :DIM]
    largest = axes[np.abs(axes).argmax(axis=0), np.arange(DIM)]
    return np.asarray(axes * np.sign(largest), np.float32)
