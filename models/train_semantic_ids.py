"""Items and sequences in, catalogue and tokenizer out.

A new tokenizer gives every item a new path and every stored vector a new meaning: states that were folded with the
old one begin anew as their users act, or are replayed. So its version is the caller's to raise.

    nearfeed train
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from models.catalog import Catalog
from models.item_training import Ids, VectorArgs, fit_item_vectors
from models.semantic_ids import Health, assign_paths, fit_codebook
from models.tokenizer import Tokenizer
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
    capacity: int | None = None
    """Rows of the catalogue, spare ones for new items included; see `models.catalog.Catalog`."""
    vectors: VectorArgs = field(default_factory=VectorArgs)
    """How item vectors are learned."""
    seed: int = 0
    """Of every random choice."""


class SemanticIds(NamedTuple):
    """What training gives."""

    catalog: Catalog  # holds the tokenizer; `models.catalog.save_catalog` writes both
    health: Health


def train_semantic_ids(items: Sequence[Item], sequences: Sequence[Ids], args: SemanticIdArgs) -> SemanticIds:
    """A catalogue of the items, one path each. On one machine, equal arguments give an equal catalogue.

    Args:
        items: valid ones (`models.items.item_fault`), no id twice.
        sequences: per user, core.ids.item_key of what they engaged with, oldest first; from before any day that the
            result will be tested on.

    Raises:
        InputError: there are no items.
        TooLarge: more items than paths, or than `capacity`.
        ContractError: two items share an id.
    """
    rng = np.random.default_rng(args.seed)
    learned = fit_item_vectors(items, sequences, args.vectors, rng)
    codebook = fit_codebook(learned.vectors, rng, levels=args.levels, size=args.codebook_size)
    codes, health = assign_paths(learned.vectors, codebook)
    tokenizer = Tokenizer(args.version, learned.encoder, codebook)
    return SemanticIds(Catalog(items, codes, learned.vectors, tokenizer, capacity=args.capacity), health)
