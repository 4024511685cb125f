"""How well paths carry what people do next: recall of a count model that sees items only through their prefixes.

Letters used in this file
    I items   L levels   q questions   H length of a history   d depth of a prefix

A codebook is chosen by this, not by its reconstruction error: a generator spells the next item code by code and knows
the history by its codes, and so does this model, in seconds and without training. Every code's probability, given
the codes before it and one item of the history, is counted, and backs off from the item itself to its prefixes:

    p_d(s) = (pairs(prefix_d(item), before + s) + STRENGTH * p_(d-1)(s)) / (pairs(prefix_d(item), before) + STRENGTH)

for d = 0 .. L, where p_(-1) is the same for all codes that some item has there. The product over the levels is a
probability of items; a history's items are mixed, the newest most. Since d = L counts the items themselves, no
tokenizer knows more pairs than another: they differ in what they lend to pairs that were never seen.

Source: class-based n-grams (Brown et al., 1992) with the smoothing of Bell and Witten. Chosen here, as TIGER and
OneRec choose by training the generator.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse

from models.k_means import Floats, Ints
from models.metrics import NOT_RANKED, recall_at

WINDOW: Final = 6  # places in a sequence that two acts may be apart to be a pair, weighing 1 / distance
BACKWARDS: Final = 0.8  # weight of a pair against the order of time
FADING: Final = 0.6  # weight of a history's item to the one after it
STRENGTHS: Final = (8.0, 64.0, 512.0)  # of the back-off: little for items that are known, much for those that are not
_ITEMS: Final = 256  # items whose probabilities are computed at once
_QUESTIONS: Final = 1_000  # questions that are answered at once


class Questions(NamedTuple):
    """What came next."""

    histories: Ints  # (q, H) item index, newest first; -1 = none
    targets: Ints  # (q,) item index


class Carried(NamedTuple):
    """How well paths carry it, each number at the STRENGTH that did best by it on other questions."""

    recall_at_10: float  # items of the history are not ranked; ties count against
    recall_unseen: float  # of targets that stood near no item of the history: what prefixes alone can lend
    nats: float  # mean of -log p(target), history included


def carried(codes: Ints, sequences: Sequence[Ints], questions: Questions) -> Carried:
    """The measure of `codes`: STRENGTH is chosen on every second question, the others are reported.

    Args:
        codes: (I, L), one path per item.
        sequences: item indices, oldest first, from before anything that is asked.
    """
    pairs = _pairs(sequences, len(codes))
    answers = [_answers(next_items(codes, pairs, strength), questions) for strength in STRENGTHS]
    unseen = ~_met(pairs, questions)
    chooses = np.arange(len(questions.targets)) % 2 == 0
    chosen, told = (
        [
            Carried(recall_at(ranks[half], 10), recall_at(ranks[half & unseen], 10), float(nats[half].mean()))
            for ranks, nats in answers
        ]
        for half in (chooses, ~chooses)
    )
    return Carried(
        told[np.argmax([one.recall_at_10 for one in chosen])].recall_at_10,
        told[np.argmax([one.recall_unseen for one in chosen])].recall_unseen,
        told[np.argmin([one.nats for one in chosen])].nats,
    )


def next_items(codes: Ints, pairs: sparse.csr_array, strength: float) -> Floats:
    """(I, I) probability of each item after each item.

    Args:
        pairs: (I, I) weight of the pairs (item, next item) that were seen.
    """
    prefixes, parents = _prefixes(codes)
    members = [sparse.csr_array((np.ones(len(ids)), (np.arange(len(ids)), ids))) for ids in prefixes]
    counts = [[(above.T @ pairs @ below).tocsr() for below in members] for above in members]
    chances = np.empty((len(codes), len(codes)), np.float32)
    by_path = np.argsort(prefixes[-1])
    for some in _slices(len(codes), _ITEMS):
        items = by_path[some]  # neighbours by path share prefixes, which are computed once
        joint = np.ones((len(items), 1), np.float32)
        for level, parent in enumerate(parents, start=1):
            fresh = (1.0 / np.bincount(parent))[parent].astype(np.float32)[None]
            above = np.zeros(len(items), np.int64)
            for ids, row in zip(prefixes, counts, strict=True):
                _, first, here = np.unique(ids[items], return_index=True, return_inverse=True)
                seen = row[level][ids[items[first]]].toarray().astype(np.float32)
                before = row[level - 1][ids[items[first]]].toarray().astype(np.float32)
                before += strength
                fresh = (seen + strength * fresh[above[first]]) / before[:, parent]
                above = here
            joint = joint[:, parent] * fresh[above]
        chances[items] = joint[:, prefixes[-1]]
    return chances


def _prefixes(codes: Ints) -> tuple[list[npt.NDArray[np.int64]], list[npt.NDArray[np.int64]]]:
    """Per depth 0 .. L the number of each item's prefix; per depth 1 .. L the number above each prefix."""
    prefixes, parents = [np.zeros(len(codes), np.int64)], []
    for depth in range(codes.shape[1]):
        joined = prefixes[-1] * (int(codes.max()) + 1) + codes[:, depth]
        _, first, ids = np.unique(joined, return_index=True, return_inverse=True)
        parents.append(prefixes[-1][first])
        prefixes.append(ids)
    return prefixes, parents


def _pairs(sequences: Sequence[Ints], items: int) -> sparse.csr_array:
    joined = np.concatenate(sequences)
    owner = np.repeat(np.arange(len(sequences)), [len(row) for row in sequences])
    rows, columns, weights = [], [], []
    for gap in range(1, WINDOW + 1):
        together = (owner[gap:] == owner[:-gap]) & (joined[gap:] != joined[:-gap])
        earlier, later = joined[:-gap][together], joined[gap:][together]
        rows += [earlier, later]
        columns += [later, earlier]
        weights += [np.full(len(earlier), 1 / gap), np.full(len(earlier), BACKWARDS / gap)]
    placed = (np.concatenate(rows), np.concatenate(columns))
    return sparse.coo_array((np.concatenate(weights), placed), shape=(items, items)).tocsr()


def _met(pairs: sparse.csr_array, questions: Questions) -> npt.NDArray[np.bool_]:
    """(q,) whether the target stood near an item of the history in some sequence."""
    asked, place = np.nonzero(questions.histories >= 0)
    weights = pairs[questions.histories[asked, place], questions.targets[asked]]
    return np.bincount(asked, weights=weights, minlength=len(questions.targets)) > 0


def _answers(chances: Floats, questions: Questions) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """(q,) rank of each target among the items outside its history, and -log of its probability."""
    ranks = np.empty(len(questions.targets), np.int64)
    nats = np.empty(len(questions.targets))
    for some in _slices(len(questions.targets), _QUESTIONS):
        history, targets = questions.histories[some], questions.targets[some]
        asked, place = np.nonzero(history >= 0)
        weights = FADING ** place.astype(np.float32)
        weights /= np.bincount(asked, weights=weights, minlength=len(targets))[asked]
        seen = history[asked, place]
        mixed = sparse.csr_array((weights.astype(np.float32), (asked, seen)), shape=(len(targets), len(chances)))
        scores = np.asarray(mixed @ chances)
        target = scores[np.arange(len(targets)), targets]
        nats[some] = -np.log(target.astype(np.float64))
        scores[asked, seen] = -1.0
        left_out = scores[np.arange(len(targets)), targets] < 0
        ranks[some] = np.where(left_out, NOT_RANKED, (scores >= target[:, None]).sum(axis=1))
    return ranks, nats


def _slices(count: int, step: int) -> Iterator[slice]:
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))
