"""The catalogue: item <-> code path, what an item is, and whether it may be shown now.

Letters used in this file
    I items   L levels   V codes of one level   D width of a vector

An item's index is its place in the arrays. It never changes, and neither do its key, its path and its vector: they
are what a model was trained on and what stored states were folded with. Availability, place, price and hours follow
the newest change. A removed item keeps its row, since histories still name it, and its path is never given again.

The catalogue is written and read by one thread: arrays and trie are changed in place.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from core.errors import ContractError, TooLarge
from core.ids import ItemKey, item_key
from feature_repo.folds.act import UNKNOWN_PLACE, ItemTable
from models.evidence import Lent, Neighbours
from models.item_vectors import FEATURES, WORDS, words_of
from models.opening_hours import MAX_INTERVALS, open_at, week_of
from models.semantic_ids import code_groups, free_path
from models.tiers import item_table
from models.tokenizer import Tokenizer
from models.trie import Ints, Trie, build_trie, path_numbers, refill_trie, set_live
from protos.catalog.v1.catalog_pb2 import CatalogRecord, Item

if TYPE_CHECKING:
    from models.newcomers import Newcomers  # asks for scipy, which workers do without

_SPARE: Final = 2048  # rows kept free for new items, at least; more new items than that deserve a new tokenizer

Keys = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
_Scalar = TypeVar("_Scalar", bound=np.generic)


class Applied(NamedTuple):
    """What a run of catalogue records did."""

    added: int
    changed: int
    removed: int
    foreign: int  # new items whose codes belong to another tokenizer: skipped until the writer assigns them anew


class Catalog:
    """Every item that may be recommended, in arrays by index, with the trie over them."""

    def __init__(
        self, items: Sequence[Item], codes: Ints, vectors: Floats, tokenizer: Tokenizer, *, capacity: int | None = None
    ) -> None:
        """A catalogue of `items`.

        Args:
            codes: (I, L), one path per item.
            vectors: (I, D) unit vectors.
            capacity: rows to make room for; a quarter more than there are items, and 2,048 at least, when absent.

        Raises:
            ContractError: two items share an id, a key or a path.
            TooLarge: more items than `capacity`.
        """
        room = capacity if capacity is not None else len(items) + max(len(items) // 4, _SPARE)
        if len(items) > room:
            raise TooLarge(f"found {len(items)} items, expected at most {room}; give the catalogue more capacity")
        self.tokenizer = tokenizer
        self.items: list[Item] = []
        self.removed: npt.NDArray[np.bool_] = np.zeros(room, bool)
        self._index: dict[int, int] = {}
        self._paths: set[int] = set()
        self._keys: Keys = np.zeros(room, np.int64)
        self._codes: Ints = np.zeros((room, tokenizer.codebook.levels), np.int32)
        self._vectors: Floats = np.zeros((room, vectors.shape[1]), np.float32)
        self._words: Ints = np.full((room, WORDS), FEATURES, np.int32)
        self._available = np.zeros(room, bool)
        self._durations: Keys = np.full(room, -1, np.int64)
        self._locations = np.full((room, 2), np.nan)
        self._weeks = np.zeros((room, MAX_INTERVALS, 2), np.int16)
        self._table: ItemTable | None = None
        self.neighbours: tuple[Neighbours, ...] = ()
        """Of the items that were there when they were counted, by each source of models.evidence; none = no evidence.
        They are not part of the digest, for they may be counted anew; `models.artefact` loads them."""
        self._newcomers: Newcomers | None = None
        for item, path, vector in zip(items, codes, vectors, strict=True):
            self._append(item, path, vector)
        self._sort_keys()
        self.trie = self._trie(self.available)
        self.centre = _middle(self.locations)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def capacity(self) -> int:
        """Rows there is room for, removed items included."""
        return len(self._keys)

    @property
    def keys(self) -> Keys:
        """(I,) core.ids.item_key of every item."""
        return self._used(self._keys)

    @property
    def codes(self) -> Ints:
        """(I, L) code path of every item."""
        return self._used(self._codes)

    @property
    def vectors(self) -> Floats:
        """(I, D) unit vector of every item."""
        return self._used(self._vectors)

    @property
    def available(self) -> npt.NDArray[np.bool_]:
        """(I,) may be shown now; False for removed items."""
        return self._used(self._available)

    @property
    def durations_ms(self) -> Keys:
        """(I,) length of the item; -1 = unknown or not a video."""
        return self._used(self._durations)

    @property
    def locations(self) -> npt.NDArray[np.float64]:
        """(I, 2) latitude and longitude in degrees; NaN for items without a place."""
        return self._used(self._locations)

    @property
    def lent(self) -> Lent | None:
        """What newcomers borrow; None while none is welcome."""
        return None if self._newcomers is None else self._newcomers.lent

    def welcome(self, newcomers: "Newcomers") -> None:
        """The tables of neighbours are those of the newcomers, which must know every item; whoever comes later joins
        them at once."""
        self._newcomers = newcomers
        self.neighbours = newcomers.tables

    def indices_of(self, keys: npt.NDArray[np.int64]) -> Ints:
        """Index per item key, -1 where unknown; any shape."""
        if not self.items:
            return np.full(keys.shape, -1, np.int32)
        at = np.minimum(np.searchsorted(self._ranked_keys, keys), len(self._ranked_keys) - 1)
        return np.where(self._ranked_keys[at] == keys, self._ranks[at], np.int32(-1))

    def index_of(self, item_id: str) -> int | None:
        """Index of the item with this name; None when the catalogue does not know it."""
        return self._index.get(item_key(item_id))

    def open_at(
        self, indices: npt.NDArray[np.int32], at_ms: int, utc_offset_minutes: npt.ArrayLike
    ) -> npt.NDArray[np.bool_]:
        """Which of the items are open at an instant; items without hours always are. Any shape of valid indices."""
        return open_at(self._weeks[indices], at_ms, utc_offset_minutes)

    # What the folds ask of a catalogue (feature_repo.folds.act.ItemLookup).

    @property
    def table(self) -> ItemTable:
        """The items' numbers for the folds, by index; made when first asked for, and anew when items were added."""
        if self._table is None or len(self._table.vectors) != len(self.items):
            self._table = item_table(self.vectors, code_groups(self.codes[:, 0], self.tokenizer.codebook.size))
        return self._table

    def place(self, key: ItemKey) -> int:
        """Index of the item in `table`; -1 when the item is unknown."""
        return self._index.get(key, UNKNOWN_PLACE)

    def duration_ms(self, key: ItemKey) -> int:
        """Length of the item; -1 when unknown."""
        index = self._index.get(key)
        return -1 if index is None else int(self._durations[index])

    def location(self, key: ItemKey) -> tuple[float, float] | None:
        """Latitude and longitude in degrees; None when the item is unknown or has no place."""
        index = self._index.get(key)
        if index is None or np.isnan(self._locations[index, 0]):
            return None
        return float(self._locations[index, 0]), float(self._locations[index, 1])

    def trie_of(self, items: Ints) -> Trie:
        """A trie of its own, in which only these items, by index, may be reached, whether they are available or not."""
        live = np.zeros(len(self), np.bool_)
        live[items] = True
        return self._trie(live)

    def trie_of_targets(self, items: Ints) -> Trie:
        """As `trie_of`, and these items are all that it knows of: a generator with a prior is trained with that of its
        targets.

        Then nothing is learned against an item that could not be a target yet, and a new one is not buried below all
        that were there before it. What all items have alike (`NeighbourPrior.spread`) is shared among the targets in
        training and among the whole catalogue where it serves: an item that nobody took has no larger part of it.
        """
        trie = self.trie_of(items)
        others = np.ones(len(trie.leaf), np.bool_)
        others[items] = False
        trie.leaf[others] = -1
        return trie

    def assign(self, items: Sequence[Item]) -> Ints:
        """(n, L) the path of each item: its own when the catalogue knows it, else a free one; nothing changes.

        The free path follows the rule of `models.semantic_ids.free_path`, items in the order given, so that new
        items never meet each other either. Only the one writer of the catalogue may call this.
        """
        size = self.tokenizer.codebook.size
        taken = self._paths.copy()
        paths: dict[int, Ints] = {}
        for item in items:
            key = item_key(item.item_id)
            if key in self._index or key in paths:
                continue
            path = free_path(self.tokenizer.vector(item), self.tokenizer.codebook, taken.__contains__)
            paths[key] = path
            taken.add(_number(path, size))
        known = self._index
        rows = [self._codes[known[key]] if key in known else paths[key] for key in map(_key, items)]
        return np.array(rows, np.int32).reshape(len(items), self.tokenizer.codebook.levels)

    def apply(self, records: Iterable[CatalogRecord]) -> Applied:
        """The catalogue and its trie are as the records say, in order; a repeated record changes nothing.

        Raises:
            ContractError: a record puts a new item on a path that is taken, or brings a removed item back.
            TooLarge: there is no room for a new item.
            In both cases the records before it are applied, the trie included.
        """
        counts = dict.fromkeys(Applied._fields, 0)
        before = len(self)
        try:
            for record in records:
                counts[self._apply(record)] += 1
        finally:
            if len(self) > before:
                self._sort_keys()
                if self._newcomers is not None:
                    self._newcomers.join(self.items[before:])
                size = self.tokenizer.codebook.size
                self.trie = refill_trie(self.trie, self.codes, codebook_size=size, live=self.available)
        return Applied(**counts)

    def remove(self, item_id: str) -> bool:
        """The item may never be shown again. False when the catalogue does not know it."""
        index = self.index_of(item_id)
        if index is None:
            return False
        self.removed[index] = True
        self._open(index, False)
        return True

    def digest(self) -> str:
        """SHA-256 (hex) over item ids, codes, vectors and tokenizer: two catalogues with it answer alike.

        Availability, prices and hours are left out: they move on with the catalogue's topic.
        """
        sha = hashlib.sha256(self.tokenizer.digest().encode())
        for item in self.items:
            sha.update(item.item_id.encode() + b"\x00")
        sha.update(self.codes.astype("<i4").tobytes())
        sha.update(self.vectors.astype("<f4").tobytes())
        return sha.hexdigest()

    def _apply(self, record: CatalogRecord) -> str:
        item = record.item
        index = self.index_of(item.item_id)
        if record.removed:
            self.remove(item.item_id)
            return "removed"
        if index is not None:
            if self.removed[index]:
                raise ContractError(f"item {item.item_id!r} was removed for good; publish it under a new item_id")
            if record.tokenizer_version == self.tokenizer.version and list(record.codes) != self._codes[index].tolist():
                raise ContractError(
                    f"item {item.item_id!r}: found codes {list(record.codes)}, expected {self._codes[index].tolist()}; "
                    "a second process assigns codes"
                )
            self._describe(index, item)
            self._open(index, item.available)
            return "changed"
        if record.tokenizer_version != self.tokenizer.version:
            return "foreign"
        if len(self) == self.capacity:
            raise TooLarge(f"all {self.capacity} rows of the catalogue are used; publish a version with more room")
        self._append(item, np.array(record.codes, np.int32), self.tokenizer.vector(item))
        return "added"

    def _append(self, item: Item, path: Ints, vector: Floats) -> None:
        index, key = len(self.items), item_key(item.item_id)
        codebook = self.tokenizer.codebook
        if path.shape != (codebook.levels,) or not ((path >= 0) & (path < codebook.size)).all():
            raise ContractError(
                f"item {item.item_id!r}: found codes {path.tolist()}, "
                f"expected {codebook.levels} of 0 .. {codebook.size - 1}"
            )
        if key in self._index:
            other = self.items[self._index[key]].item_id
            raise ContractError(f"items {other!r} and {item.item_id!r} have one key; rename one of them")
        number = _number(path, codebook.size)
        if number in self._paths:
            raise ContractError(f"item {item.item_id!r}: the path {path.tolist()} is taken; assign it anew")
        self.items.append(item)
        self._index[key] = index
        self._paths.add(number)
        self._keys[index] = key
        self._codes[index] = path
        self._vectors[index] = vector
        self._words[index] = words_of(item)
        self._describe(index, item)
        self._available[index] = item.available

    def _describe(self, index: int, item: Item) -> None:
        self.items[index] = item
        self._durations[index] = item.duration_ms if item.HasField("duration_ms") else -1
        place = item.location
        self._locations[index] = (place.latitude, place.longitude) if item.HasField("location") else np.nan
        self._weeks[index] = week_of(item)

    def _trie(self, live: npt.NDArray[np.bool_]) -> Trie:
        size = self.tokenizer.codebook.size
        return build_trie(self.codes, self.capacity, codebook_size=size, live=live, words=self._words)

    def _open(self, index: int, available: bool) -> None:
        self._available[index] = available
        if self.trie.leaf[index] >= 0:  # else the item came in this very run, and the trie is filled at its end
            set_live(self.trie, index, available)

    def _sort_keys(self) -> None:
        self._ranks = np.argsort(self.keys, kind="stable").astype(np.int32)
        self._ranked_keys = self.keys[self._ranks]

    def _used(self, array: npt.NDArray[_Scalar]) -> npt.NDArray[_Scalar]:
        return array[: len(self.items)]


def _key(item: Item) -> ItemKey:
    return item_key(item.item_id)


def _number(path: Ints, codebook_size: int) -> int:
    return int(path_numbers(path[None], codebook_size)[0])


def _middle(locations: npt.NDArray[np.float64]) -> tuple[float, float] | None:
    """The point in the middle of all places, found in space so that the antimeridian does not cut it."""
    placed = np.radians(locations[~np.isnan(locations[:, 0])])
    if not len(placed):
        return None
    latitude, longitude = placed[:, 0], placed[:, 1]
    around = np.cos(latitude)
    x, y, z = (around * np.cos(longitude)).mean(), (around * np.sin(longitude)).mean(), np.sin(latitude).mean()
    return float(np.degrees(np.arctan2(z, np.hypot(x, y)))), float(np.degrees(np.arctan2(y, x)))
