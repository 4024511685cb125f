"""The generator's value head as a model of the harness: what was shown in order of the odds of a long watch, or what
the beams found in the order in which a slate is chosen.

The head learns from every act of the log whose play time is known: an exposure, good or not. Likes and orders are not
among a protocol's events, so only long watches count here.
"""

from typing import Final

import numpy as np
import torch

from benchmarks.quality.contexts import contexts
from benchmarks.quality.generative import Generative
from benchmarks.quality.split import Floats, Ints, Longs, Split, first_of_user
from core.errors import InputError
from models.generator import Generator
from models.train_value_head import Shown, ValueArguments, joined, shown_of, train_value_head
from models.values import SelectionWeights, Value, selection_scores

_CHUNK: Final = 4_096  # exposures whose contexts are held at once


class Values:
    """The value head over a trained generator.

    Args:
        weight: of the values in `models.values.selection_scores`; of no account where exposures are ordered.
    """

    def __init__(self, name: str, generative: Generative, weight: float) -> None:
        self.name = name
        self._generative, self._weight = generative, weight
        self._head: Generator | None = None

    def fit(self, split: Split, seed: int) -> None:
        """Trains the generator, or reads what an equal run has left; then the head.

        Raises:
            InputError: the protocol's log holds no exposures that were not good.
        """
        events = split.events
        known = split.learn & ~np.isnan(events.shares) & (first_of_user(events.users) < np.arange(len(events.users)))
        acts = np.flatnonzero(known)
        if events.good[acts].all() or not events.good[acts].any():
            raise InputError(
                f"{split.protocol}: found {len(acts)} acts of known play time that are all alike, expected good ones "
                "and others; ask a protocol with exposures"
            )
        self._generative.fit(split, seed)
        self._head = self._generative.with_value_head()
        chunks = [self._shown(split, acts[start : start + _CHUNK]) for start in range(0, len(acts), _CHUNK)]
        train_value_head(self._head, joined(chunks), self._generative.catalog.codes, ValueArguments(seed=seed))

    def scores(self, split: Split, asked: Longs) -> Floats:
        """Odds of a long watch of every item, or of what the beams found its score of selection; -inf otherwise."""
        acts = split.asked[asked]
        shown, items = self._shown(split, acts), len(split.items)
        if split.exposed:
            return self._odds_of_all(shown)
        beams = self._generative.beams(split, acts)
        values = np.zeros((*beams.items.shape, len(Value)), np.float32)
        values[..., Value.WATCHED] = self._odds(shown, beams.items)
        scores = np.full((len(acts), items), -np.inf, np.float32)
        rows, ranks = np.nonzero(beams.items >= 0)
        chosen_by = selection_scores(
            beams.log_probs[..., None], beams.item_logits, values, SelectionWeights(0.0, self._weight)
        )
        scores[rows, beams.items[rows, ranks]] = chosen_by[rows, ranks]
        return scores

    def _shown(self, split: Split, acts: Longs) -> Shown:
        assert self._head is not None, "fit comes first"
        codes, tokens = self._generative.catalog.codes, self._head.config.tokens
        outcomes = np.zeros((len(acts), len(Value)), np.bool_)
        outcomes[:, Value.WATCHED] = split.events.good[acts]
        context = contexts(split, acts, codes, tokens, ())
        return shown_of(self._head, context, split.events.items[acts], outcomes, split.events.at_s[acts] * 1000)

    def _odds(self, shown: Shown, items: Ints) -> Floats:
        """(q, K) of a long watch of (q, K) items, of which -1 is none."""
        assert self._head is not None, "fit comes first"
        part = np.maximum(items, 0)
        with torch.no_grad():
            codes = torch.from_numpy(self._generative.catalog.codes[part])
            return self._head.values(shown.states, torch.from_numpy(part), codes)[..., Value.WATCHED].numpy()

    def _odds_of_all(self, shown: Shown) -> Floats:
        """(q, I)"""
        assert self._head is not None, "fit comes first"
        with torch.no_grad():
            vectors = self._head.code_vectors(torch.from_numpy(self._generative.catalog.codes))
            return self._head.value_head.odds_of_all(shown.states, vectors)[..., Value.WATCHED].numpy()
