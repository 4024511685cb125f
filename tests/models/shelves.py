"""A small shop with an obvious answer: every item stands on one shelf, and everybody shops along one shelf."""

import numpy as np
import numpy.typing as npt

from core.ids import item_key
from models.catalog import Catalog
from models.tokenizer_health import HealthLimits
from models.train_semantic_ids import SemanticIdArgs, SemanticIds, train_semantic_ids
from protos.catalog.v1.catalog_pb2 import CatalogRecord, Item
from protos.events.v1.interaction_pb2 import Location

SHELVES = 4
EACH = 15
CODES = 8


def shop_item(name: str, shelf: int, *, available: bool = True, at: tuple[float, float] | None = None) -> Item:
    location = None if at is None else Location(latitude=at[0], longitude=at[1])
    return Item(
        item_id=name,
        author_id=f"maker-{shelf}-{len(name) % 3}",
        tags=[f"shelf-{shelf}"],
        duration_ms=10_000,
        location=location,
        available=available,
    )


def shop_items() -> list[Item]:
    """Item `shelf-n` for each shelf; neighbours in the list stand on different shelves."""
    return [shop_item(f"{shelf}-{number}", shelf) for number in range(EACH) for shelf in range(SHELVES)]


def shop_walks(seed: int = 0, walkers: int = 60) -> list[npt.NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    return [
        np.array([item_key(f"{walker % SHELVES}-{number}") for number in rng.permutation(EACH)[:8]], np.int64)
        for walker in range(walkers)
    ]


def shop(
    seed: int = 0,
    capacity: int | None = 100,
    items: list[Item] | None = None,
    limits: HealthLimits | None = None,
) -> SemanticIds:
    args = SemanticIdArgs(codebook_size=CODES, seed=seed, capacity=capacity, limits=limits or HealthLimits())
    return train_semantic_ids(shop_items() if items is None else items, shop_walks(), args)


def record_of(catalog: Catalog, item: Item) -> CatalogRecord:
    """What the one writer would put into catalog.v1."""
    return CatalogRecord(
        item=item, tokenizer_version=catalog.tokenizer.version, codes=catalog.assign([item])[0].tolist()
    )


def set_available(catalog: Catalog, item_id: str, available: bool) -> None:
    """The newest change of the item says whether it may be shown."""
    index = catalog.index_of(item_id)
    assert index is not None
    item = Item()
    item.CopyFrom(catalog.items[index])
    item.available = available
    catalog.apply([record_of(catalog, item)])


def walk(catalog: Catalog, path: npt.NDArray[np.int32]) -> int:
    """Where a beam that spells `path` ends: the item's index; -1 when a step may not be taken."""
    trie, node = catalog.trie, 0
    for code in path.tolist():
        edges = range(int(trie.row_start[node]), int(trie.row_start[node + 1]))
        taken = [int(trie.child[edge]) for edge in edges if trie.token[edge] == code]
        if len(taken) != 1 or trie.live[taken[0]] == 0:
            return -1
        node = taken[0]
    return int(trie.leaf_item[node])
