"""user_interests: what a person likes, in the space of item vectors.

`long_term` and `short_term` are decayed means of the vectors of the items acted on, weighted by engagement,
with a half-life of days and of minutes. The weights count by magnitude while a dislike's vector counts
negative, so a mean stays inside the unit ball and its length says how much the acts agree. The sums behind
the means commute, so a late act takes its place by its own age.

`interest` holds INTERESTS_KEPT such means, each of the acts that were nearest to it: a person who cooks and
climbs is not the mean of both. A dislike belongs to none.

`tiers` is GLASS's statistical token (arXiv:2602.05663 §4): for each first-level code, how many of the items
liked fall into each tier of similarity to the code's prototype. Kept: the four tiers of the authors' code.
Changed: instead of an exact window, which needs the whole long history, all counts are halved when TIER_ITEMS
items are in, so old tastes fade.

Vectors are float16, rounded with every act. All of it belongs to one tokenizer: the first act under another
begins it anew, and a replay restores what was lost.
"""

from typing import Any, Final

import numpy as np

from feature_repo.folds.compiled import compiled
from feature_repo.folds.halves import bits_of, value_of
from feature_repo.layouts import DIM, FIRST_CODES, INTERESTS_KEPT, TIERS

LONG_HALF_LIFE_MS: Final = 7 * 24 * 3600 * 1000  # tastes hold for weeks; one week forgets a phase
SHORT_HALF_LIFE_MS: Final = 20 * 60 * 1000  # about one session
MOST_WEIGHT: Final = 1000.0  # behind a mean: with more, an act would move it by less than float16 can hold
NEAR: Final = 0.5  # cosine: while a place is free, an act farther from every interest begins a new one
FADED: Final = 0.05  # an interest whose weight has decayed below this gives its place free
TIER_ITEMS: Final = 255
TIER_EDGES: Final = (-0.1, 0.0, 0.1)  # cosines between the tiers


@compiled
def begin(row: Any, tokenizer: int) -> None:
    """Everything begins anew under `tokenizer`."""
    row.updated_ms = 0
    row.tokenizer = tokenizer
    row.weight = row.short_weight = 0.0
    row.long_term[:] = 0
    row.short_term[:] = 0
    row.interest_weight[:] = 0.0
    row.interest[:] = 0
    row.tier_items = 0
    row.tiers[:] = 0


@compiled
def fold(row: Any, vector: Any, weight: float, at_ms: int) -> None:
    """`row` (INTERESTS) after an act of engagement `weight` on an item with `vector` (DIM,)."""
    newest = max(row.updated_ms, at_ms)
    age_ms, act_age_ms = newest - row.updated_ms, newest - at_ms
    row.updated_ms = newest
    kept, counted = 0.5 ** (age_ms / LONG_HALF_LIFE_MS), weight * 0.5 ** (act_age_ms / LONG_HALF_LIFE_MS)
    row.weight = _mean(row.long_term, row.weight * kept, vector, counted)
    for place in range(INTERESTS_KEPT):
        decayed = row.interest_weight[place] * kept
        row.interest_weight[place] = decayed if decayed >= FADED else 0.0
    if counted > 0.0:
        place = _nearest(row, vector)
        if row.interest_weight[place] == 0.0:
            row.interest[place, :] = 0
        row.interest_weight[place] = _mean(row.interest[place], row.interest_weight[place], vector, counted)
    kept, counted = 0.5 ** (age_ms / SHORT_HALF_LIFE_MS), weight * 0.5 ** (act_age_ms / SHORT_HALF_LIFE_MS)
    row.short_weight = _mean(row.short_term, row.short_weight * kept, vector, counted)


@compiled
def count_tiers(row: Any, tiers: Any) -> None:
    """One more item liked; `tiers` (FIRST_CODES,) are those of its similarities."""
    for code in range(FIRST_CODES):
        row.tiers[code, tiers[code]] += 1
    row.tier_items += 1
    if row.tier_items == TIER_ITEMS:
        row.tier_items //= 2
        for code in range(FIRST_CODES):
            for tier in range(TIERS):
                row.tiers[code, tier] = row.tiers[code, tier] // 2


@compiled
def _mean(mean: Any, old: float, vector: Any, new: float) -> float:
    """`mean` (DIM,) float16 bits, with weight `old` behind it, takes in one act of weight `new`; the weight then."""
    total = old + abs(new)
    if total == 0.0:  # both have decayed to nothing
        return total
    kept, added = np.float32(old / total), np.float32(new / total)
    for place in range(DIM):
        mean[place] = bits_of(value_of(mean[place]) * kept + vector[place] * added)
    return min(total, MOST_WEIGHT)


@compiled
def _nearest(row: Any, vector: Any) -> int:
    """Where an act on `vector` belongs: the nearest interest, or a free place when it is near to none."""
    best, best_cosine, free = -1, -2.0, -1
    for place in range(INTERESTS_KEPT):
        if row.interest_weight[place] == 0.0:
            if free < 0:
                free = place
            continue
        product = length = np.float32(0.0)
        for at in range(DIM):
            value = value_of(row.interest[place, at])
            product += value * vector[at]
            length += value * value
        cosine = float(product / np.sqrt(length)) if length > 0.0 else 0.0
        if cosine > best_cosine:
            best, best_cosine = place, cosine
    return free if free >= 0 and best_cosine < NEAR else best
