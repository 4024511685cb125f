"""Items and sequences in, catalogue and tokenizer out.

A new tokenizer gives every item a new path and every stored vector a new meaning: states that were folded with the
old one begin anew as their users act, or are replayed. So its version is the caller's to raise.

    nearfeed train
    nearfeed train semantic-ids
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from core.errors import InputError, TooLarge
from core.ids import item_key
from models.catalog import Catalog
from models.codebook_training import Variant, fit_codebook
from models.item_training import Ids, VectorArgs, fit_item_vectors
from models.items import item_fault
from models.semantic_ids import assign_paths
from models.tokenizer import Tokenizer
from models.tokenizer_health import Health, HealthLimits, health_of, require_health, require_spread
from protos.catalog.v1.catalog_pb2 import Item


@dataclass(frozen=True)
class SemanticIdArgs:
    """Everything that decides the paths besides the data; stored in the manifest."""

    version: int = 1
    """Of the tokenizer; above every version that stored states may still name."""
    levels: int = 3
    """Codes in a path. The generator has a head for each."""
    codebook_size: int = 64
    """Codes of one level: 64 ** 3 paths leave a catalogue of ten thousand room to grow."""
    variant: Variant = Variant.PLAIN
    """How the clusters of a level are found."""
    capacity: int | None = None
    """Rows of the catalogue, spare ones for new items included; see `models.catalog.Catalog`."""
    vectors: VectorArgs = field(default_factory=VectorArgs)
    """How item vectors are learned."""
    limits: HealthLimits = field(default_factory=HealthLimits)
    """What refuses a build."""
    seed: int = 0
    """Of every random choice."""

    def __post_init__(self) -> None:
        if min(self.levels, self.codebook_size, self.version) < 1:
            raise InputError(f"found {self}, expected levels, codebook_size and version of at least 1")
        if self.codebook_size**self.levels >= 1 << 62:
            raise InputError(
                f"found {self.levels} levels of {self.codebook_size} codes, expected fewer than 2 ** 62 paths"
            )


class SemanticIds(NamedTuple):
    """What training gives."""

    catalog: Catalog  # holds the tokenizer; `models.catalog.save_catalog` writes both
    health: Health


def train_semantic_ids(
    items: Sequence[Item], sequences: Sequence[Ids], args: SemanticIdArgs, *, previous: Catalog | None = None
) -> SemanticIds:
    """What `build_semantic_ids` gives, within `args.limits`.

    Raises:
        ArtefactError: the result is beyond the limits.
        And all that `build_semantic_ids` raises.
    """
    built = build_semantic_ids(items, sequences, args, previous=previous)
    require_health(built.health, args.limits)
    return built


def build_semantic_ids(
    items: Sequence[Item], sequences: Sequence[Ids], args: SemanticIdArgs, *, previous: Catalog | None = None
) -> SemanticIds:
    """A catalogue of the items, one path each. On one machine, equal arguments give an equal catalogue.

    An item without title and tags lands among its like: whatever people take together with it, else the other items
    that say nothing. A codebook larger than the catalogue tells every item by its first code.

    Args:
        items: valid ones (`models.items.item_fault`), no id twice.
        sequences: per user, core.ids.item_key of what they engaged with, oldest first; from before any day that the
            result will be tested on. A user with one act teaches nothing and does no harm.
        previous: the catalogue of the version before; the health report tells the churn against it.

    Raises:
        InputError: there are no items, one is not valid, or two share an id; before any work.
        TooLarge: more items than paths, or than `capacity`; before any work.
        ArtefactError: the vectors are so alike that paths would mean nothing.
    """
    _require_items(items, args)
    rng = np.random.default_rng(args.seed)
    learned = fit_item_vectors(items, sequences, args.vectors, rng)
    codebook, wanted = fit_codebook(
        learned.vectors, rng, levels=args.levels, size=args.codebook_size, variant=args.variant
    )
    require_spread(learned.vectors, codebook, args.limits)
    codes = assign_paths(learned.vectors, codebook, wanted)
    tokenizer = Tokenizer(args.version, learned.encoder, codebook)
    catalog = Catalog(items, codes, learned.vectors, tokenizer, capacity=args.capacity)
    return SemanticIds(catalog, catalog_health(catalog, previous))


def catalog_health(catalog: Catalog, previous: Catalog | None = None) -> Health:
    """The health report of a catalogue's paths, purity by `categories`.

    Args:
        previous: tells the churn: items that both hold are compared.
    """
    before = None
    if previous is not None:
        here = previous.indices_of(catalog.keys)
        before = (previous.codes[here[here >= 0]], catalog.codes[here >= 0])
    return health_of(
        catalog.vectors,
        catalog.tokenizer.codebook,
        catalog.codes,
        categories=categories(catalog.items),
        before=before,
    )


def categories(items: Sequence[Item]) -> list[str]:
    """(I,) per item the first of its tags that most items do not have; "" where there is none."""
    counts = Counter(tag for item in items for tag in set(item.tags))
    return [next((tag for tag in item.tags if 2 * counts[tag] <= len(items)), "") for item in items]


def _require_items(items: Sequence[Item], args: SemanticIdArgs) -> None:
    if not items:
        raise InputError("found no items, expected at least one; load a catalogue before training semantic ids")
    seen: dict[int, str] = {}
    for item in items:
        if (fault := item_fault(item)) is not None:
            raise InputError(f"item {item.item_id!r}, {fault.field}: {fault.reason}; mend it or leave the item out")
        key = item_key(item.item_id)
        if key in seen:
            raise InputError(
                f"found items {seen[key]!r} and {item.item_id!r} under one key, expected one item per id; "
                "leave one of them out"
            )
        seen[key] = item.item_id
    room = min(args.codebook_size**args.levels, args.capacity or len(items))
    if len(items) > room:
        raise TooLarge(f"found {len(items)} items, expected at most {room}; use a larger codebook_size or capacity")
