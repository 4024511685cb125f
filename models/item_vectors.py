"""Item -> unit vector, from what the item is: numpy only, so that serving can place a new item.

Letters used in this file
    I items   F hashed features   D = DIM, width of a vector   P width of the place features

A vector joins three parts and is projected to D numbers:

    content        hashed features of tags, author, length and title, TF-IDF, projected to D
    collaborative  what content says about who watches the item together with what, (D), see models/item_training.py
    place          random Fourier features of the position, (P); zero for an item without a place

Everything is linear after hashing, so an encoder is four matrices. The learned vectors of known items differ in the
collaborative part only, where what people did replaces what content predicts.

Source: OneLoc, arXiv:2508.14646: the residual that is quantised is the concatenation of content and location. Its
location embedding reads what stands around the place with a multimodal model; here it is the position itself at
several scales, since the platform has no such model. Random Fourier features: Rahimi and Recht, NIPS 2007.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from core.geo import EARTH_RADIUS_M
from protos.catalog.v1.catalog_pb2 import Item

FEATURES: Final = 4096  # F
WORDS: Final = 32  # hashed features that `words_of` keeps: tags and author first, then as much as fits of the title
NOTHING: Final = "nothing"  # the feature of an item that says nothing
_WORD: Final = re.compile(r"\w+")
_TITLE_WORDS: Final = 64  # a title is short; more is a description and would drown the tags

Floats = npt.NDArray[np.float32]


class ItemEncoder(NamedTuple):
    """Places any item among the known ones. Made by `models.item_training.fit_item_vectors`."""

    idf: Floats  # (F,)
    content: Floats  # (F, D) hashed features -> content part
    collaborative: Floats  # (D, D) content part -> predicted collaborative part
    waves: Floats  # (P / 2, 3) per kilometre, on coordinates in space
    mean: Floats  # (2 D + P,) of the joined parts
    projection: Floats  # (2 D + P, D)
    weights: Floats  # (3,) of content, collaborative and place part

    def encode(self, items: Sequence[Item]) -> Floats:
        """(I, D) float32 unit vectors, from content and place alone."""
        content = self.content_part(items)
        return self.join(content, self.place_part(items), content @ self.collaborative)

    def content_part(self, items: Sequence[Item]) -> Floats:
        """(I, D) unit rows."""
        parts = np.zeros((len(items), self.content.shape[1]), np.float32)
        for row, item in enumerate(items):
            columns, values = hashed_features(item)
            parts[row] = (values * self.idf[columns]) @ self.content[columns]
        return unit_rows(parts)

    def place_part(self, items: Sequence[Item]) -> Floats:
        """(I, P) unit rows; zero for items without a place."""
        parts = np.zeros((len(items), 2 * len(self.waves)), np.float32)
        placed = [row for row, item in enumerate(items) if item.HasField("location")]
        if placed:
            points = positions_km([items[row] for row in placed])
            phases = points @ self.waves.T.astype(np.float64)
            parts[placed] = np.concatenate([np.cos(phases), np.sin(phases)], axis=1) / np.sqrt(len(self.waves))
        return parts

    def weigh(self, content: Floats, place: Floats, collaborative: Floats) -> Floats:
        """(I, 2 D + P) the three parts side by side, weighted; what is projected."""
        weights = self.weights
        return np.concatenate([weights[0] * content, weights[1] * collaborative, weights[2] * place], axis=1)

    def join(self, content: Floats, place: Floats, collaborative: Floats) -> Floats:
        """(I, D) unit vectors of the three parts. An item in the very middle of all gets the first axis."""
        rows = unit_rows((self.weigh(content, place, collaborative) - self.mean) @ self.projection)
        rows[~rows.any(axis=1), 0] = 1.0
        return rows


def item_features(item: Item) -> Iterator[tuple[str, float]]:
    """What is known of an item as (feature, weight): tags, author, length in half octaves, words of the title."""
    for tag in item.tags:
        yield f"tag={tag}", 1.0
    if item.author_id:
        yield f"author={item.author_id}", 0.5  # says as much as two tags of three: many authors have one item
    if item.HasField("duration_ms") and item.duration_ms > 0:
        yield f"length={int(2 * np.log2(item.duration_ms / 1000 + 1))}", 0.5
    for word in _WORD.findall(item.title.lower())[:_TITLE_WORDS]:
        yield f"word={word}", 0.7


def hashed_features(item: Item) -> tuple[npt.NDArray[np.int64], Floats]:
    """Columns below F and their values, before TF-IDF; an item that says nothing has one feature that says so."""
    pairs = list(item_features(item)) or [(NOTHING, 1.0)]
    return np.array([column_of(name) for name, _ in pairs]), np.array([value for _, value in pairs], np.float32)


def words_of(item: Item) -> npt.NDArray[np.int32]:
    """(WORDS,) the columns of an item's hashed features, FEATURES = no more; for models.words, which learns what each
    is worth."""
    columns = [column_of(name) for name, _ in islice(item_features(item), WORDS)] or [column_of(NOTHING)]
    return np.array(columns + [FEATURES] * (WORDS - len(columns)), np.int32)


@lru_cache(maxsize=1 << 16)
def column_of(feature: str) -> int:
    """The column, 0 .. F - 1, that a feature is hashed to: the same in every process."""
    return int.from_bytes(hashlib.blake2b(feature.encode(), digest_size=8).digest(), "little") % FEATURES


def positions_km(items: Iterable[Item]) -> npt.NDArray[np.float64]:
    """(I, 3) positions in space, kilometres from the earth's centre: near is near everywhere, poles included."""
    angles = np.radians([(item.location.latitude, item.location.longitude) for item in items])
    latitude, longitude = angles[:, 0], angles[:, 1]
    around = np.cos(latitude)
    directions = np.stack([around * np.cos(longitude), around * np.sin(longitude), np.sin(latitude)], axis=1)
    return np.asarray(EARTH_RADIUS_M / 1000 * directions)


def unit_rows(rows: npt.NDArray[np.floating]) -> Floats:
    """Each row divided by its length; rows of zeros stay zero."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(lengths > 0, lengths, 1)).astype(np.float32)
