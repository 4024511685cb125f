"""From answers to figures: what is reported of a protocol, per user so that users can be resampled."""

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from benchmarks.quality.evaluation import Answers
from benchmarks.quality.exposures import exposure_measures
from benchmarks.quality.split import Flags, Longs, Split
from benchmarks.quality.statistics import Doubles, UserSums, by_user
from models.metrics import ndcg_gains

CHOSEN_BY: Final = "ndcg@10"  # of the protocol's own figures; settings are chosen by it at the valid stage


class Measured(NamedTuple):
    """One figure of one run."""

    metric: str
    seen: str  # "ranked", or "masked": what the user had before is left out; "" where that is no question
    group: str  # "all", or one of Split.groups
    users: UserSums


def measured(split: Split, answers: Answers) -> Iterator[Measured]:
    """Every figure of the protocol: the whole first, then groups."""
    if split.exposed:
        for metric, users in exposure_measures(split, answers.scores):
            yield Measured(metric, "", "all", users)
        return
    asked_users = split.events.users[split.asked]
    everyone = np.ones(len(split.asked), np.bool_)
    groups: dict[str, Flags] = {"all": everyone, **split.groups}
    for group, members in groups.items():
        if not members.any():
            continue
        for seen, ranks in (("ranked", answers.ranks), ("masked", answers.ranks_masked)):
            for metric, values in rank_values(ranks[members]).items():
                yield Measured(metric, seen, group, by_user(values, asked_users[members]))


def rank_values(ranks: Longs) -> dict[str, Doubles]:
    """Per asked act its part in each metric of ranks; recall at 1 is the accuracy at 1."""
    values: dict[str, Doubles] = {}
    for k in (1, 5, 10):
        values[f"recall@{k}"] = (ranks <= k).astype(np.float64)
    for k in (5, 10):
        values[f"ndcg@{k}"] = ndcg_gains(ranks, k)
    values["mrr@10"] = np.where(ranks <= 10, 1.0 / ranks, 0.0)
    return values


def headline(split: Split, answers: Answers) -> float:
    """The figure that settings are chosen by."""
    if split.exposed:
        users = dict(exposure_measures(split, answers.scores))["gauc long_view"]
        return float(users.sums.sum() / max(users.counts.sum(), 1.0))
    ranks = answers.ranks_masked if split.mask_seen else answers.ranks
    return float(rank_values(ranks)[CHOSEN_BY].mean())
