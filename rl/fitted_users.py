"""The user model fitted on recorded days: watch share, like and dislike per exposure.

Stated as it is, since everything judged with it is judged under it:

* Watch share: multinomial logistic regression over the bins of `rl.user_model`, on the features of
  `rl.user_features`, each also bent at its quintiles, plus the duration bucket. Like and dislike: one
  logistic regression each on the same inputs. Nothing else is ever done: no click, no order.
* Fitted on earlier days only, on a seeded sample of whole users. An item's averages are taken from
  other users than the one they describe, in folds, so that no exposure explains itself.
* Exposures are independent given the features, and so are watching and liking: no boredom within a
  slate, no position. The recorded exposures were chosen by another recommender; how people respond
  to what it never shows is extrapolated.
"""

import logging
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from core.errors import ArtefactError, InputError
from core.ids import event_hash
from feature_repo.folds.context import FoldContext
from feature_repo.layouts import WATCH_BUCKETS
from models.catalog import Catalog
from protos.events.v1.interaction_pb2 import Action, Interaction
from rl.exposures import exposures
from rl.rewards import GlobalTable, duration_buckets, fit_global_table
from rl.user_features import (
    FEATURES,
    ITEM_FEATURES,
    Floats32,
    ItemAverages,
    ItemFacts,
    item_averages,
    item_facts,
    item_features,
    person_features,
)
from rl.user_model import ACTS, WATCH_BINS, Floats, Ints, Predicted, Viewers, watch_bins

KNOTS: Final = (0.2, 0.4, 0.6, 0.8)  # quantiles at which a feature's effect may bend
INPUTS: Final = len(FEATURES) * (1 + len(KNOTS)) + WATCH_BUCKETS
LIKE: Final = ACTS.index(Action.ACTION_LIKE)
DISLIKE: Final = ACTS.index(Action.ACTION_DISLIKE)
_FOLDS: Final = 5
_FEW_ACTS: Final = 20  # an act seen less often has a rate and no reasons
_NEVER: Final = -30.0  # log-odds of a bin that no recorded exposure fell into
_DURATION: Final = FEATURES.index("duration")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class UserModelArguments:
    """Everything that decides what the fit gives."""

    users: int = 12_000
    """Users whose days are folded; a sample by hash when there are more."""
    exposures: int = 40_000
    """Exposures that weights are fitted on; a seeded sample when there are more."""
    watch_strength: float = 0.3
    """C of the multinomial regression: smaller pulls weights harder towards 0."""
    act_strength: float = 0.05
    """C of like and dislike, which are rare."""
    iterations: int = 60
    """Of the optimiser; the last ones change nothing that matters."""
    seed: int = 0
    """Of the samples."""


class Weights(NamedTuple):
    """What was learned; P = INPUTS."""

    mean: Floats  # (F,)
    scale: Floats  # (F,)
    knots: Floats  # (KNOTS, F) standardised
    watch: Floats  # (P, WATCH_BINS)
    watch_bias: Floats  # (WATCH_BINS,)
    acts: Floats  # (P, 2) like, dislike
    acts_bias: Floats  # (2,)


class FittedUsers:
    """A fitted `rl.user_model.UserModel`, for one catalogue."""

    def __init__(self, weights: Weights, averages: ItemAverages, catalog: Catalog) -> None:
        self.weights, self.averages = weights, averages
        self._facts = item_facts(catalog)
        self._catalog_digest = catalog.digest()

    def predict(self, viewers: Viewers, who: npt.NDArray[np.int64], items: Ints) -> Predicted:
        """As in `rl.user_model.UserModel`."""
        person = person_features(viewers.rows, who, items, self._facts)
        return odds(np.concatenate([person, item_features(items, self.averages)], axis=1), self.weights)

    def durations_s(self, items: Ints) -> Floats:
        """As in `rl.user_model.UserModel`."""
        return np.asarray(self._facts.duration_s[items])

    def save(self, path: Path) -> None:
        """`path` (.npz) holds the model, for this catalogue only."""
        arrays = {f"weights_{name}": array for name, array in self.weights._asdict().items()}
        arrays |= {f"averages_{name}": array for name, array in self.averages._asdict().items()}
        np.savez(path, allow_pickle=False, catalog=np.array(self._catalog_digest), **arrays)

    @classmethod
    def load(cls, path: Path, catalog: Catalog) -> "FittedUsers":
        """The model that `save` wrote.

        Raises:
            ArtefactError: the file is missing, damaged, of other features, or for another catalogue.
        """
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                digest = str(arrays["catalog"])
                weights = Weights(*(arrays[f"weights_{name}"] for name in Weights._fields))
                averages = ItemAverages(*(arrays[f"averages_{name}"] for name in ItemAverages._fields))
        except (OSError, ValueError, KeyError, BadZipFile, EOFError) as error:
            raise ArtefactError(f"{path}: found no readable user model ({error}); fit it again") from None
        if digest != catalog.digest() or weights.watch.shape != (INPUTS, WATCH_BINS):
            raise ArtefactError(
                f"{path}: found a user model of catalogue {digest[:12]} with {len(weights.watch)} inputs, "
                f"expected {catalog.digest()[:12]} and {INPUTS}; fit it again"
            )
        return cls(weights, averages, catalog)


class Rates(NamedTuple):
    """What people did in the days of a fit, whoever saw what: what a user model has to describe better."""

    watch: Floats  # (WATCH_BUCKETS + 1, WATCH_BINS) shares of each bin by duration bucket
    acts: Floats  # (A,) share of exposures


class Fitted(NamedTuple):
    """What a fit gives."""

    users: FittedUsers
    table: GlobalTable  # of the same days' plays
    rates: Rates  # of the same days
    exposures: int


def fit_users(
    interactions: Iterable[Interaction],
    catalog: Catalog,
    context: FoldContext,
    args: UserModelArguments,
    *,
    since_ms: int,
    until_ms: int,
) -> Fitted:
    """The user model and the reward table of the days since_ms <= time < until_ms.

    Args:
        interactions: valid ones, each user's in the order of the log. What is before the days is folded, so
            that people have a past; what is after is not looked at.

    Raises:
        InputError: the days hold no exposure of a known item of known length, or only one bin of watch share.
    """
    facts = item_facts(catalog)
    seen = gather(sample_of_users(interactions, args.users, args.seed), catalog, facts, context, since_ms, until_ms)
    by_others = np.empty((len(seen.items), len(ITEM_FEATURES)), np.float32)
    for fold in range(_FOLDS):
        inside = seen.fold == fold
        others = item_averages(facts, seen.items[~inside], seen.share[~inside], seen.acts[~inside, LIKE])
        by_others[inside] = item_features(seen.items[inside], others)
    raw = np.concatenate([seen.person, by_others], axis=1)
    chosen = np.random.default_rng(args.seed).permutation(len(raw))[: args.exposures]
    weights = _fit(raw[chosen], watch_bins(seen.share[chosen]), seen.acts[chosen][:, [LIKE, DISLIKE]], args)
    averages = item_averages(facts, seen.items, seen.share, seen.acts[:, LIKE])
    played = seen.play_s > 0
    table = fit_global_table(facts.duration_s[seen.items[played]], seen.play_s[played])
    logger.info("users.fitted exposures=%d of=%d reward_table=%s", len(chosen), len(raw), table.digest())
    return Fitted(FittedUsers(weights, averages, catalog), table, _rates(seen, facts), len(raw))


class Seen(NamedTuple):
    """n exposures of known items of known length."""

    person: Floats32  # (n, PERSON_FEATURES)
    items: Ints  # catalogue index
    share: Floats
    play_s: Floats
    acts: npt.NDArray[np.bool_]  # (n, A)
    fold: npt.NDArray[np.int64]  # of the user, 0 .. _FOLDS - 1


def gather(
    interactions: Iterable[Interaction],
    catalog: Catalog,
    facts: ItemFacts,
    context: FoldContext,
    since_ms: int,
    until_ms: int,
) -> Seen:
    """The exposures of since_ms <= time < until_ms, as a user model sees them; arguments as in `fit_users`.

    Raises:
        InputError: there is none of a known item of known length.
    """
    parts: list[Seen] = []
    for chunk in exposures(interactions, context, since_ms=since_ms, until_ms=until_ms):
        index = catalog.indices_of(chunk.items)
        kept = np.flatnonzero((index >= 0) & (facts.duration_s[index] > 0))
        items = index[kept]
        play_s = chunk.play_ms[kept] / 1000.0
        folds = np.array([event_hash(user_id) % _FOLDS for user_id in chunk.user_ids])
        parts.append(
            Seen(
                person_features(chunk.rows, kept, items, facts),
                items,
                play_s / facts.duration_s[items],
                play_s,
                chunk.acts[kept],
                folds[kept],
            )
        )
    if not parts or not sum(len(part.items) for part in parts):
        raise InputError("found no exposure of a known item of known length, expected some; name other days")
    return Seen(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def sample_of_users(interactions: Iterable[Interaction], most: int, seed: int) -> list[Interaction]:
    """The acts of `most` users, drawn by hash; of all when there are no more."""
    events = list(interactions)
    users = {event.user_id for event in events}
    if len(users) <= most:
        return events
    kept = set(sorted(users, key=lambda user_id: event_hash(f"{seed}\x00{user_id}"))[:most])
    return [event for event in events if event.user_id in kept]


def _rates(seen: Seen, facts: ItemFacts) -> Rates:
    """One of each is added, so that nothing is impossible."""
    watch = np.ones((WATCH_BUCKETS + 1, WATCH_BINS))
    np.add.at(watch, (duration_buckets(facts.duration_s[seen.items]), watch_bins(seen.share)), 1.0)
    return Rates(watch / watch.sum(axis=1, keepdims=True), (seen.acts.sum(axis=0) + 1.0) / (len(seen.acts) + 2.0))


def _fit(raw: Floats32, bins: npt.NDArray[np.int64], acts: npt.NDArray[np.bool_], args: UserModelArguments) -> Weights:
    mean, scale = raw.mean(axis=0, dtype=np.float64), raw.std(axis=0, dtype=np.float64) + 1e-6
    knots = (np.quantile(raw, KNOTS, axis=0) - mean) / scale
    inputs = _inputs(raw, mean, scale, knots)
    found = np.unique(bins)
    if len(found) < 3:
        raise InputError(f"found watch shares in {len(found)} bins only, expected several; name days with plays")
    watch, watch_bias = np.zeros((INPUTS, WATCH_BINS)), np.full(WATCH_BINS, _NEVER)
    watch[:, found], watch_bias[found] = _regression(inputs, bins, args.watch_strength, args.iterations)
    columns = [_rare_act(inputs, acts[:, column], args) for column in range(acts.shape[1])]
    return Weights(
        mean,
        scale,
        knots,
        watch,
        watch_bias,
        np.stack([one[0] for one in columns], 1),
        np.array([one[1] for one in columns]),
    )


def _rare_act(inputs: Floats32, done: npt.NDArray[np.bool_], args: UserModelArguments) -> tuple[Floats, float]:
    """Weights and bias of one act; only the frequency where it was seen fewer than _FEW_ACTS times."""
    if min(done.sum(), (~done).sum()) < _FEW_ACTS:
        rate = (done.sum() + 0.5) / (len(done) + 1.0)
        return np.zeros(INPUTS), float(np.log(rate / (1.0 - rate)))
    weights, bias = _regression(inputs, done, args.act_strength, args.iterations)
    return weights[:, 0], float(bias[0])


def _regression(inputs: Floats32, classes: npt.NDArray[Any], strength: float, iterations: int) -> tuple[Floats, Floats]:
    """Weights (P, classes) and biases; one column when there are two classes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the iterations are bounded on purpose
        regression = LogisticRegression(C=strength, max_iter=iterations).fit(inputs, classes)
    return regression.coef_.T.astype(np.float64), regression.intercept_.astype(np.float64)


def _inputs(raw: Floats32, mean: Floats, scale: Floats, knots: Floats) -> Floats32:
    """(n, P): standardised features, the part of each beyond each knot, the duration bucket one-hot."""
    standard = (raw - mean) / scale
    beyond = [np.maximum(standard - knot, 0.0) for knot in knots]
    bucket = np.clip(np.floor(raw[:, _DURATION]), 0, WATCH_BUCKETS - 1).astype(np.int64)
    return np.concatenate([standard, *beyond, np.eye(WATCH_BUCKETS)[bucket]], axis=1).astype(np.float32)


def odds(raw: Floats32, weights: Weights) -> Predicted:
    """What is expected of n exposures.

    Args:
        raw: (n, F) features of person and item, in the order of `rl.user_features.FEATURES`.
    """
    inputs = _inputs(raw, weights.mean, weights.scale, weights.knots)
    logits = inputs @ weights.watch + weights.watch_bias
    likely = np.exp(logits - logits.max(axis=1, keepdims=True))
    acts = np.zeros((len(raw), len(ACTS)))
    acts[:, [LIKE, DISLIKE]] = 1.0 / (1.0 + np.exp(-(inputs @ weights.acts + weights.acts_bias)))
    return Predicted(likely / likely.sum(axis=1, keepdims=True), acts)
