"""What items say, as TF-IDF rows: two items are as alike as their rows' product.

Letters used in this file
    I items
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import sparse

from protos.catalog.v1.catalog_pb2 import Item

_WORD: Final = re.compile(r"\w+")


class TextRows:
    """Rows of a catalogue's items, and of those that join it.

    A row holds, for each word, 1 + log of its count in the item, times 1 + log((1 + I) / (1 + items with the word)),
    and is of length 1 or, without text, 0. What a word counts is settled when the first items come; one that is new
    later counts as one that a single item has.
    """

    def __init__(self, items: Sequence[Item]) -> None:
        """Those of `items`."""
        self._columns: dict[str, int] = {}
        counts = _counts(items, self._columns)
        self._items = len(items)
        self._rarity = self._rarity_of(np.bincount(counts.indices, minlength=counts.shape[1]))
        self.rows = _weighted(counts, self._rarity)  # (I, words)

    def join(self, items: Sequence[Item]) -> sparse.csr_array:
        """(n, words) the rows of further items, which are the last of `rows` from now on."""
        counts = _counts(items, self._columns)
        new = self._rarity_of(np.ones(len(self._columns) - len(self._rarity)))
        self._rarity = np.concatenate([self._rarity, new])
        joined = _weighted(counts, self._rarity)
        self.rows.resize(self.rows.shape[0], counts.shape[1])
        self.rows = sparse.vstack([self.rows, joined], format="csr")
        return joined

    def _rarity_of(self, holders: npt.NDArray[np.number]) -> npt.NDArray[np.float64]:
        return np.asarray(1 + np.log((1 + self._items) / (1 + holders)), np.float64)


def item_words(item: Item) -> Iterator[str]:
    """The words of an item's title and tags, lower case, and as a whole each tag and the author."""
    yield from _WORD.findall(item.title.lower())
    for tag in item.tags:
        yield from _WORD.findall(tag.lower())
        yield f"tag={tag}"
    if item.author_id:
        yield f"author={item.author_id}"


def _counts(items: Sequence[Item], columns: dict[str, int]) -> sparse.csr_array:
    """(I, words) how often each item says each word; words without a column get the next ones."""
    places = [
        (row, columns.setdefault(word, len(columns))) for row, item in enumerate(items) for word in item_words(item)
    ]
    pairs = np.array(places, np.int64).reshape(-1, 2).T
    return sparse.coo_array((np.ones(pairs.shape[1]), (pairs[0], pairs[1])), shape=(len(items), len(columns))).tocsr()


def _weighted(counts: sparse.csr_array, rarity: npt.NDArray[np.float64]) -> sparse.csr_array:
    counts.data = (1 + np.log(counts.data)) * rarity[counts.indices]
    lengths = np.sqrt(np.asarray(counts.multiply(counts).sum(axis=1))).ravel()
    return (sparse.diags_array(1 / np.where(lengths > 0, lengths, 1)) @ counts).tocsr().astype(np.float32)
