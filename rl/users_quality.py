"""How well a user model describes days that it has not seen: what gates and slates are judged by is judged here."""

from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from feature_repo.folds.context import FoldContext
from models.catalog import Catalog
from protos.events.v1.interaction_pb2 import Interaction
from rl.fitted_users import DISLIKE, LIKE, Fitted, gather, odds
from rl.rewards import duration_buckets
from rl.user_features import item_facts, item_features
from rl.user_model import WATCH_EDGES, Floats, watch_bins

_WATCHED: Final = WATCH_EDGES.index(0.3) + 1  # the first bin above 30 %


class UsersQuality(NamedTuple):
    """How well a user model describes exposures it has not seen. Log losses in nats an exposure."""

    exposures: int
    watch_log_loss: float
    watch_base_log_loss: float  # of the rates by duration of the days that were fitted
    watched_predicted: float  # share of exposures watched beyond 30 %
    watched_found: float
    like_log_loss: float
    like_base_log_loss: float  # of the rate of the days that were fitted
    likes_predicted: float  # rate
    likes_found: float
    dislikes_predicted: float
    dislikes_found: float


def users_quality(
    fitted: Fitted,
    interactions: Iterable[Interaction],
    catalog: Catalog,
    context: FoldContext,
    *,
    since_ms: int,
    until_ms: int,
) -> UsersQuality:
    """How well the model describes the exposures of other days; arguments as in `fit_users`."""
    facts = item_facts(catalog)
    seen = gather(interactions, catalog, facts, context, since_ms, until_ms)
    raw = np.concatenate([seen.person, item_features(seen.items, fitted.users.averages)], axis=1)
    predicted, bins = odds(raw, fitted.users.weights), watch_bins(seen.share)
    buckets = duration_buckets(facts.duration_s[seen.items])
    liked, disliked = seen.acts[:, LIKE], seen.acts[:, DISLIKE]
    likes, dislikes = predicted.acts[:, LIKE], predicted.acts[:, DISLIKE]
    rows = np.arange(len(bins))
    return UsersQuality(
        exposures=len(bins),
        watch_log_loss=float(-np.log(predicted.watch[rows, bins]).mean()),
        watch_base_log_loss=float(-np.log(fitted.rates.watch[buckets, bins]).mean()),
        watched_predicted=float(predicted.watch[:, _WATCHED:].sum(axis=1).mean()),
        watched_found=float((bins >= _WATCHED).mean()),
        like_log_loss=_binary_log_loss(likes, liked),
        like_base_log_loss=_binary_log_loss(np.full(len(liked), fitted.rates.acts[LIKE]), liked),
        likes_predicted=float(likes.mean()),
        likes_found=float(liked.mean()),
        dislikes_predicted=float(dislikes.mean()),
        dislikes_found=float(disliked.mean()),
    )


def _binary_log_loss(predicted: Floats, found: npt.NDArray[np.bool_]) -> float:
    return float(-np.log(np.where(found, predicted, 1.0 - predicted).clip(1e-12)).mean())
