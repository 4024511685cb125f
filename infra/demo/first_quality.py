"""How good version 1 is, on the first live day, which nothing was learned from.

Four questions, kept apart: does the generator name the next good item, do the values foresee what follows, does the
user model describe what people do, and what does choosing by values change under it.
"""

from collections.abc import Iterator
from itertools import chain
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from feature_repo.folds.context import FoldContext
from feature_repo.layouts import UserRows
from infra.demo.recorded import Recorded
from models.batches import Beams, Ints, take_rows
from models.catalog import Catalog
from models.dataset import Samples, example_contexts, folded_samples
from models.export import beams_of
from models.generator import Generator
from models.metrics import popularity, ranks_in_beams, ranks_in_scores, recall_at
from models.train_value_head import foresight, odds_of
from models.values import BEAM_ALONE, SelectionWeights, Value
from rl.fitted_users import Fitted, sample_of_users
from rl.gate import paired_difference, per_request, slates
from rl.shown import shown_of_log
from rl.user_model import Viewers, expected_rewards
from rl.users_quality import users_quality

TEST_EXPOSURES: Final = 2_000
RESAMPLES: Final = 1_000
DAY_MS: Final = 24 * 3600 * 1000
_BATCH: Final = 256
_HALF_LIVES_H: Final = (12.0, 24.0, 72.0, float("inf"))  # tried for the popularity baseline, as any dial of ours


class Asked(NamedTuple):
    """n good exposures of the first live day, and what the generator finds in the moment before each."""

    viewers: Viewers
    targets: Ints  # (n,) catalogue index
    beams: Beams


def asked(recorded: Recorded, context: FoldContext, catalog: Catalog, generator: Generator, beam_width: int) -> Asked:
    """At most TEST_EXPOSURES of them, drawn from all."""
    day = recorded.live_start_ms, recorded.live_start_ms + DAY_MS
    samples = folded_samples(chain(recorded.imported, recorded.live), context, since_ms=day[0], until_ms=day[1])
    known = np.flatnonzero(catalog.indices_of(samples.items) >= 0)
    batch, targets = example_contexts(samples, catalog)
    drawn = np.random.default_rng(0).permutation(len(targets))[:TEST_EXPOSURES]
    rows = known[drawn]
    parts = [
        beams_of(generator, take_rows(batch, drawn[start : start + _BATCH]), catalog.trie, beam_width)
        for start in range(0, len(drawn), _BATCH)
    ]
    return Asked(
        Viewers(
            [samples.users[row] for row in rows],
            UserRows._make(view[rows] for view in samples.rows),
            samples.at_ms[rows],
            samples.locations[rows],
        ),
        targets[drawn, 0],
        Beams._make(np.concatenate(fields) for fields in zip(*parts, strict=True)),
    )


def generator_quality(question: Asked, recorded: Recorded, catalog: Catalog, before: Samples) -> dict[str, float]:
    """Recall@10 of the next good item: the generator's beams against popularity.

    Popularity counts good exposures before the live day; its half-life is the one that did best on the last
    day before. Both see every item of the catalogue.
    """
    ranks = ranks_in_beams(question.beams, question.targets)
    items = catalog.indices_of(before.items)
    good = items >= 0
    counts = _popularity(items[good], before.at_ms[good], len(catalog), recorded.live_start_ms)
    theirs = ranks_in_scores(counts, question.targets)
    low, high = _interval((ranks <= 10).astype(np.float64) - (theirs <= 10))
    return {
        "recall_at_10": recall_at(ranks, 10),
        "recall_at_10_popularity": recall_at(theirs, 10),
        "recall_difference_low": low,
        "recall_difference_high": high,
        "test_exposures": float(len(ranks)),
    }


def value_quality(
    recorded: Recorded, context: FoldContext, catalog: Catalog, generator: Generator, most_users: int
) -> dict[str, float]:
    """How well the odds of each outcome describe what was shown: log loss beside that of the day's own rate, AUC and
    calibration, on at most `most_users` users."""
    people = sample_of_users(chain(recorded.imported, recorded.live), most_users, 0)
    day = recorded.live_start_ms, recorded.live_start_ms + DAY_MS
    shown = shown_of_log(people, generator, catalog, context, since_ms=day[0], until_ms=day[1])
    odds = odds_of(generator, shown, catalog.codes)
    return dict(_foresights(odds, shown.outcomes))


def selection_quality(question: Asked, catalog: Catalog, fitted: Fitted, weights: SelectionWeights) -> dict[str, float]:
    """What choosing slates by the item head, and by values too, changes: expected reward of a slot under the user
    model, and recall@10.

    The user model was fitted on the days that the values were learned from: it is another model, not another truth.
    """
    ways = {"by_beam": BEAM_ALONE, "by_item": weights._replace(value=0.0), "by_value": weights}
    found = {}
    for name, chosen_by in ways.items():
        shown = slates(question.beams, question.viewers, catalog, chosen_by)
        found[name] = per_request(expected_rewards(fitted.users, question.viewers, shown, fitted.table))
    people = list(question.viewers.user_ids)
    gain = paired_difference(found["by_beam"], found["by_value"], people, np.random.default_rng(0))
    rewards = {f"reward_{name}": float(np.nanmean(reward)) for name, reward in found.items()}
    recalls = {
        f"recall_at_10_{name}": recall_at(ranks_in_beams(question.beams, question.targets, chosen_by), 10)
        for name, chosen_by in ways.items()
    }
    intervals = {"reward_gain_low": gain.low, "reward_gain_high": gain.high}
    return {"item_weight": weights.item, "value_weight": weights.value, **rewards, **recalls, **intervals}


def user_model_quality(
    recorded: Recorded, context: FoldContext, catalog: Catalog, fitted: Fitted, most_users: int
) -> dict[str, float]:
    """How well the user model, which slates and updates are judged by, describes what the day's people did."""
    people = sample_of_users(chain(recorded.imported, recorded.live), most_users, 0)
    day = recorded.live_start_ms, recorded.live_start_ms + DAY_MS
    found = users_quality(fitted, people, catalog, context, since_ms=day[0], until_ms=day[1])
    return {f"user_model_{name}": float(number) for name, number in found._asdict().items()}


def _foresights(odds: npt.NDArray[np.float32], outcomes: npt.NDArray[np.bool_]) -> Iterator[tuple[str, float]]:
    for value in Value:
        for name, number in foresight(odds[:, value], outcomes[:, value])._asdict().items():
            if np.isfinite(number):  # an outcome that never came has no AUC
                yield f"{value.name.lower()}_{name}", float(number)


def _interval(differences: npt.NDArray[np.float64]) -> tuple[float, float]:
    """95 % bootstrap interval of the mean of paired differences."""
    drawn = np.random.default_rng(0).integers(0, len(differences), (RESAMPLES, len(differences)))
    low, high = np.quantile(differences[drawn].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def _popularity(items: Ints, at_ms: npt.NDArray[np.int64], count: int, now_ms: int) -> npt.NDArray[np.float64]:
    last_day = at_ms >= now_ms - DAY_MS

    def recall(half_life_h: float) -> float:
        scores = popularity(items, at_ms, count=count, now_ms=now_ms - DAY_MS, half_life_h=half_life_h)
        return recall_at(ranks_in_scores(scores, items[last_day]), 10)

    best = max(_HALF_LIVES_H, key=recall)
    return popularity(items, at_ms, count=count, now_ms=now_ms, half_life_h=best)
