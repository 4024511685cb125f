"""The words all model code speaks: what goes into a generator and what comes out.

Letters used in this file
    B requests   T item tokens = HISTORY + POSITIVES   K beams   L code levels   E items near the history   R outcomes

Stored rows become model input in `models.contexts`.

Source: OneRec-V2, arXiv:2508.20900 §3 (short and positive pathways, static features). Chosen here,
since the paper gives no feature lists: act kinds as bits, watch share and age in buckets, two
interest vectors, one token of place and hour.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from feature_repo.layouts import HISTORY

LEVELS: Final = 3
POSITIVES: Final = 30  # newest positive exposures that are tokens; a row keeps more
TOKENS: Final = HISTORY + POSITIVES
ACTIONS: Final = 11  # kinds of act: bit (Action - 1) of the stored actions
WATCH_EDGES: Final = (1, 10, 25, 50, 75, 95, 105, 150)  # percent of the item's length
WATCH_SHARES: Final = len(WATCH_EDGES) + 2  # the last = not known
AGE_BUCKETS: Final = 48  # half octaves of seconds: the last begins at 137 days
PLACE_FEATURES: Final = 10
NEAR: Final = 256  # E: items that a request's neighbour evidence may name
TABLES: Final = 3  # of neighbours: seen together, alike in text, near each other
EVIDENCE_SOURCES: Final = TABLES + 3  # and been there, at such an hour, from where the user is; see models.visits

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]


class ContextBatch(NamedTuple):
    """What a generator knows of B users at the moment of the request: its inputs, by name and order.

    Item tokens are the history, newest first, then the positives, newest first. A token whose item
    is not in the catalogue, or that is not used, is masked, and all its fields are 0.
    """

    codes: Ints  # (B, T, L) code path of the item
    mask: Flags  # (B, T) the token is there
    actions: Ints  # (B, T) bit (Action - 1) per kind of act; 0 for positives
    watch: Ints  # (B, T) bucket of the watch share
    age: Ints  # (B, T) bucket of the seconds since the act
    interests: Floats  # (B, 2, DIM) long term, short term; a zero vector is masked
    place: Floats  # (B, PLACE_FEATURES), see `models.contexts`
    items: Ints  # (B, T) catalogue index
    near: Ints  # (B, E) catalogue index of the neighbours of the history, -1 = none; see models.evidence
    nearness: Floats  # (B, E, EVIDENCE_SOURCES) how near, by each source of evidence; 0 where there is none


class Beams(NamedTuple):
    """What a generator answers, best first by the sum of `masked_log_probs`.

    A dead beam (fewer than K items can be reached) has item -1, codes -1 and log-probabilities -inf;
    dead beams come last.
    """

    items: Ints  # (B, K) catalogue index
    codes: Ints  # (B, K, L)
    masked_log_probs: Floats  # (B, K, L) renormalised over the children with live items: the serving policy
    log_probs: Floats  # (B, K, L) over the whole codebook
    item_logits: Floats  # (B, K) what the item head says of the item; 0 without one
    values: Floats  # (B, K, R) odds of each of models.values.Value if the item is shown; 0 without a value head


def beam_difference(expected: Beams, found: Beams) -> float:
    """The largest difference of a log-probability, item logit or value between two answers to the same requests.

    Beams are compared by item, not by rank, since two of nearly equal score may swap. An item that only
    one answer has counts by how far it stands above the last beam of the other, infinitely if the other
    still had a beam free.
    """
    worst = 0.0
    for ours, theirs in ((expected, found), (found, expected)):
        same = (ours.items[:, :, None] == theirs.items[:, None, :]) & (ours.items >= 0)[:, :, None]
        request, rank, other = np.nonzero(same)
        for mine, yours in zip(ours[2:], theirs[2:], strict=True):
            worst = max(worst, float(np.abs(mine[request, rank] - yours[request, other]).max(initial=0.0)))
        request, rank = np.nonzero((ours.items >= 0) & ~same.any(2))
        last = theirs.masked_log_probs.sum(-1).min(1)
        above = ours.masked_log_probs[request, rank].sum(-1) - last[request]
        worst = max(worst, float(above.max(initial=0.0)))
    return worst


def take_rows(batch: ContextBatch, rows: npt.NDArray[np.int64] | slice) -> ContextBatch:
    """The context of some requests of the batch, in the order of `rows`."""
    return ContextBatch._make(field[rows] for field in batch)
