"""What a fitted user model looks at: one row of numbers per (person, item).

Letters used in this file
    n exposures   B people   I items   F features

The person comes from the stored rows, the item from the catalogue and from the earlier days' averages.
Averages are pulled towards the whole by a stated number of imaginary exposures, so that one lucky play
is no reputation.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from feature_repo.layouts import HISTORY, WATCH_BUCKETS, UserRows
from models.catalog import Catalog
from protos.events.v1.interaction_pb2 import Action
from rl.rewards import duration_buckets

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

ITEM_PRIOR: Final = 10.0  # imaginary average exposures of an item or an author
USER_PRIOR: Final = 5.0  # the same for a person's own averages
TYPICAL_SHARE: Final = 0.35  # what an unknown person is taken to watch of an item, and
TYPICAL_LIKES: Final = 0.02  # how often to like it; only a start, the fit moves it
_WATCH_UNKNOWN: Final = 255
_LONGEST: Final = 1.5  # shares beyond say "replayed", not "liked ten times as much"

PERSON_FEATURES: Final = (
    "long_term",  # inner product of item vector and long-term interest
    "short_term",
    "agreement",  # length of the long-term interest: how much the person's acts agree
    "user_share",  # mean watch share of the person's history
    "user_bucket_share",  # the same in the item's duration bucket
    "user_likes",  # like rate of the person's history, per cent
    "user_length",  # log(1 + history)
    "author_met",  # the author is in the history
    "author_watched",  # mean share there, above the person's own mean
    "kind_met",  # share of the history with the item's first tag
    "kind_watched",
    "seen",  # the very item is in the history
    "duration",  # log2 seconds; 0 = unknown
)
ITEM_FEATURES: Final = (
    "item_share",  # mean watch share of the item
    "item_likes",  # like rate of the item, per cent
    "item_shown",  # log(1 + exposures)
    "author_share",
)
FEATURES: Final = PERSON_FEATURES + ITEM_FEATURES


class ItemFacts(NamedTuple):
    """What is known of I items without any person: from the catalogue."""

    keys: npt.NDArray[np.int64]
    vectors: npt.NDArray[np.float32]  # (I, D)
    duration_s: Floats  # -1 = unknown
    author: npt.NDArray[np.int64]  # number of the author; items without one have their own
    kind: npt.NDArray[np.int64]  # number of the first tag


class ItemAverages(NamedTuple):
    """What the earlier days say of I items."""

    share: Floats
    likes: Floats  # rate
    shown: Floats
    author_share: Floats


def item_facts(catalog: Catalog) -> ItemFacts:
    """The facts of the catalogue's items, by index."""
    authors = _numbers([item.author_id or f"\x00{index}" for index, item in enumerate(catalog.items)])
    kinds = _numbers([item.tags[0] if item.tags else "" for item in catalog.items])
    seconds = np.where(catalog.durations_ms > 0, catalog.durations_ms / 1000.0, -1.0)
    return ItemFacts(catalog.keys.copy(), catalog.vectors.copy(), seconds, authors, kinds)


def item_averages(facts: ItemFacts, items: Ints, share: Floats, liked: npt.NDArray[np.bool_]) -> ItemAverages:
    """Averages over the given exposures of items (n,) by index."""
    size, capped = len(facts.author), np.minimum(share, _LONGEST)
    whole, whole_likes = (float(capped.mean()), float(liked.mean())) if len(items) else (0.0, 0.0)
    shown = np.bincount(items, minlength=size).astype(np.float64)
    watched = np.bincount(items, capped, minlength=size)
    by_author = np.bincount(facts.author, shown)
    author_watched = np.bincount(facts.author, watched)
    author_share = (author_watched + ITEM_PRIOR * whole) / (by_author + ITEM_PRIOR)
    return ItemAverages(
        share=(watched + ITEM_PRIOR * author_share[facts.author]) / (shown + ITEM_PRIOR),
        likes=(np.bincount(items, liked, minlength=size) + ITEM_PRIOR * whole_likes) / (shown + ITEM_PRIOR),
        shown=shown,
        author_share=author_share[facts.author],
    )


def item_features(items: Ints, averages: ItemAverages) -> Floats32:
    """(n, ITEM_FEATURES) float32."""
    columns = (averages.share, 100.0 * averages.likes, np.log1p(averages.shown), averages.author_share)
    return np.stack(columns, axis=1).astype(np.float32)[items]


def person_features(rows: UserRows, who: npt.NDArray[np.int64], items: Ints, facts: ItemFacts) -> Floats32:
    """(n, PERSON_FEATURES) float32.

    Args:
        rows: B people.
        who: (n,) row of the person.
        items: (n,) catalogue index.
    """
    vectors = facts.vectors[items]
    long_term = rows.interests["long_term"].astype(np.float32)
    short_term = rows.interests["short_term"].astype(np.float32)
    seconds = facts.duration_s[items]
    bucket = duration_buckets(seconds)

    history = rows.history
    used = np.arange(HISTORY) < history["length"][:, None]
    watch = np.minimum(history["watch"] / 100.0, _LONGEST)
    known = used & (history["watch"] != _WATCH_UNKNOWN)
    user_share = _pulled((watch * known).sum(1), known.sum(1), TYPICAL_SHARE)
    liked = used & (history["actions"] >> (Action.ACTION_LIKE - 1) & 1 == 1)
    user_likes = _pulled(liked.sum(1), used.sum(1), TYPICAL_LIKES)

    plays = rows.watch["length"].astype(np.float64)  # (B, WATCH_BUCKETS)
    middle_s = 1.5 * 2.0 ** np.arange(WATCH_BUCKETS)
    played = np.minimum(rows.watch["play_ds"] / 10.0 / middle_s[:, None], _LONGEST).sum(2)  # unused entries are 0
    bucket_share = (played + USER_PRIOR * user_share[:, None]) / (plays + USER_PRIOR)

    past = _indices(facts, history["item"])  # (B, HISTORY)
    unknown = -1
    author = np.where(used & (past >= 0), facts.author[past], unknown)[who]
    kind = np.where(used & (past >= 0), facts.kind[past], unknown)[who]
    above = ((watch - user_share[:, None]) * known)[who]
    same_author = author == facts.author[items][:, None]
    same_kind = kind == facts.kind[items][:, None]

    columns = (
        np.einsum("nd,nd->n", vectors, long_term[who]),
        np.einsum("nd,nd->n", vectors, short_term[who]),
        np.linalg.norm(long_term, axis=1)[who],
        user_share[who],
        np.where(bucket >= 0, bucket_share[who, bucket], user_share[who]),
        100.0 * user_likes[who],
        np.log1p(used.sum(1))[who],
        same_author.any(1),
        (above * same_author).sum(1) / (same_author.sum(1) + 1.0),
        same_kind.sum(1) / (used.sum(1)[who] + 1.0),
        (above * same_kind).sum(1) / (same_kind.sum(1) + 1.0),
        (used[who] & (past[who] == items[:, None])).any(1),
        np.log2(np.maximum(seconds, 1.0)),
    )
    return np.stack([np.asarray(column, np.float32) for column in columns], axis=1)


def _pulled(total: npt.ArrayLike, count: npt.ArrayLike, towards: float) -> Floats:
    return np.asarray((np.asarray(total) + USER_PRIOR * towards) / (np.asarray(count) + USER_PRIOR), np.float64)


def _indices(facts: ItemFacts, keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Index per key, -1 where unknown."""
    order = np.argsort(facts.keys)
    at = np.minimum(np.searchsorted(facts.keys, keys, sorter=order), len(order) - 1)
    return np.where(facts.keys[order[at]] == keys, order[at], -1)


def _numbers(names: list[str]) -> npt.NDArray[np.int64]:
    return np.unique(np.array(names, dtype=np.str_), return_inverse=True)[1].astype(np.int64)
