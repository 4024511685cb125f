"""May this version serve? Checks, each with what was found against what was expected, as a verdict.

    files       the candidate's files are whole and belong together
    parity      the graph answers the golden batch as the weights do, and as recorded
    legality    every item that it generates exists, is live, and lies on its own path
    reward      under the user model it is not worse than the serving version, beyond a stated margin
    coverage    it does not show far fewer different items

All are judged on contexts of held-out users, which the update has not seen. The reward is a statement
about the user model, not about people: it guards against damage, it does not prove a gain.
"""

from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from core.errors import ArtefactError, ContractError
from models.artefact import Artefact
from models.batches import Beams, Ints, beam_difference, take_rows
from models.catalog import Catalog
from models.catalog_files import load_catalog
from models.export import TOLERANCE, beams_of
from models.golden import load_golden
from models.registry import GOLDEN_FILE, MODEL_FILE
from models.runtime import Generator, OnnxGenerator
from models.values import SelectionWeights, selection_scores
from protos.registry.v1.manifest_pb2 import GateCheck, GateVerdict, ModelManifest
from rl.dataset import RolloutBatch
from rl.rewards import GlobalTable
from rl.update import load_weights
from rl.user_model import UserModel, Viewers, expected_rewards

SLOTS: Final = 5  # of the slates that are compared
MIN_CONTEXTS: Final = 50  # fewer held-out requests say nothing
MAX_CONTEXTS: Final = 1_000  # more would only narrow an interval that is narrow enough
REWARD_MARGIN: Final = 0.02  # two percentiles of watch time: below what people notice, above what sampling does
COVERAGE_FLOOR: Final = 0.7  # of the serving version's different items
_RESAMPLES: Final = 2_000
_BATCH: Final = 128


class Estimate(NamedTuple):
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float


class Judged(NamedTuple):
    """The verdict, and the estimates behind it (None where a check before them failed)."""

    verdict: GateVerdict
    serving_reward: float | None = None  # mean expected reward of a slot
    candidate_reward: float | None = None
    difference: Estimate | None = None  # candidate minus serving, paired by request


def judge(
    serving: Artefact,
    candidate: Path,
    manifest: ModelManifest,
    held_out: RolloutBatch,
    users: UserModel,
    table: GlobalTable,
    *,
    rng: np.random.Generator,
    weights: SelectionWeights,
    threads: int = 1,
) -> Judged:
    """The verdict on the candidate in a staging folder. Never raises because of what the candidate is.

    Args:
        manifest: the candidate's.
        held_out: requests that the update has not seen; their outcomes are not looked at.
        rng: of the bootstrap.
        weights: as scorers choose slates with.
    """
    checks: list[GateCheck] = []
    try:
        catalog = _whole(candidate, serving)
        generator = OnnxGenerator.load(candidate / MODEL_FILE, threads)
        checks.append(_check("files", True, "graph, weights, golden batch and the serving catalogue are there", 1, 1))
        checks.append(_parity(candidate, manifest, generator, catalog))
    except (ArtefactError, ContractError) as error:
        checks.append(_check("files", False, str(error), 0, 1))
        return Judged(_verdict(checks))
    count = len(held_out.user_ids)
    if count < MIN_CONTEXTS:
        checks.append(
            _check("contexts", False, f"found {count}, expected at least {MIN_CONTEXTS}", count, MIN_CONTEXTS)
        )
        return Judged(_verdict(checks))
    requests = held_out.take(np.sort(rng.permutation(count)[:MAX_CONTEXTS]))
    old, new = (_answers(model, requests, catalog) for model in (serving.generator, generator))
    checks.append(_legality(new, catalog))
    viewers = Viewers(requests.user_ids, requests.viewers, requests.at_ms, requests.locations)
    old_slates, new_slates = (slates(beams, viewers, catalog, weights) for beams in (old, new))
    old_reward, new_reward = (
        per_request(expected_rewards(users, viewers, shown, table)) for shown in (old_slates, new_slates)
    )
    difference = paired_difference(old_reward, new_reward, requests.user_ids, rng)
    checks.append(
        _check(
            "reward",
            difference.low >= -REWARD_MARGIN,
            f"found {difference.mean:+.4f} (95 % {difference.low:+.4f} .. {difference.high:+.4f}) against version "
            f"{serving.manifest.model_version}'s {_mean(old_reward):.4f} over {len(old_reward)} held-out requests, "
            f"expected the interval above {-REWARD_MARGIN}",
            difference.low,
            -REWARD_MARGIN,
        )
    )
    checks.append(_coverage(old_slates, new_slates))
    return Judged(_verdict(checks), _mean(old_reward), _mean(new_reward), difference)


def reasons(verdict: GateVerdict) -> list[str]:
    """One line per check."""
    return [f"{check.name}: {'passed' if check.passed else 'REFUSED'}: {check.reason}" for check in verdict.checks]


def slates(beams: Beams, viewers: Viewers, catalog: Catalog, weights: SelectionWeights) -> Ints:
    """(B, SLOTS) catalogue index, -1 = empty: the best of what was generated that a person could be shown.

    A video in the person's history and a place that is closed are passed over, as a scorer does.
    """
    items, history = beams.items, viewers.rows.history
    entries = np.arange(history["item"].shape[1]) < history["length"][:, None]
    seen = np.where(entries, catalog.indices_of(history["item"]), -2)
    longitudes = catalog.locations[items, 1]
    video = np.isnan(longitudes)
    kept = (items >= 0) & catalog.available[items] & ~((items[:, :, None] == seen[:, None, :]).any(axis=2) & video)
    zone_minutes = np.round(np.nan_to_num(longitudes) / 15.0).astype(np.int64) * 60
    for row, at_ms in enumerate(viewers.at_ms.tolist()):
        kept[row] &= catalog.open_at(items[row], at_ms, zone_minutes[row])
    scores = selection_scores(beams.masked_log_probs, beams.item_logits, beams.values, weights)
    order = np.argsort(np.where(kept, -scores, np.inf), axis=1, kind="stable")[:, :SLOTS]
    chosen = np.take_along_axis(np.where(kept, items, -1), order, axis=1)
    return np.asarray(chosen, np.int32)


def paired_difference(
    old: npt.NDArray[np.float64], new: npt.NDArray[np.float64], user_ids: list[str], rng: np.random.Generator
) -> Estimate:
    """Mean of new - old over requests, with a bootstrap interval over users: requests of one user are alike.

    A request without a slate under either version is left out; with none left the estimate is -inf, which
    passes no margin.
    """
    both = ~np.isnan(old) & ~np.isnan(new)
    if not both.any():
        return Estimate(float("-inf"), float("-inf"), float("-inf"))
    _, user = np.unique(np.asarray(user_ids)[both], return_inverse=True)
    total, count = np.bincount(user, (new - old)[both]), np.bincount(user)
    drawn = rng.integers(0, len(count), (_RESAMPLES, len(count)))
    means = total[drawn].sum(axis=1) / count[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(float(total.sum() / count.sum()), float(low), float(high))


def per_request(slots: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(B,) mean over the filled slots; NaN for an empty slate."""
    filled = (~np.isnan(slots)).sum(axis=1)
    return np.asarray(np.where(filled > 0, np.nansum(slots, axis=1) / np.maximum(filled, 1), np.nan))


def _mean(values: npt.NDArray[np.float64]) -> float:
    """Over requests with a slate; 0 when there are none, for then nothing was gained."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else 0.0


def _whole(candidate: Path, serving: Artefact) -> Catalog:
    catalog = load_catalog(candidate)
    if catalog.digest() != serving.catalog.digest():
        raise ArtefactError(
            f"found a catalogue of digest {catalog.digest()[:12]}, expected the serving version's "
            f"{serving.catalog.digest()[:12]}; an update changes weights only"
        )
    return catalog


def _parity(candidate: Path, manifest: ModelManifest, generator: OnnxGenerator, catalog: Catalog) -> GateCheck:
    golden = load_golden(candidate / GOLDEN_FILE)
    found = generator.generate(golden.batch, catalog.trie)
    torch_says = beams_of(load_weights(candidate, manifest), golden.batch, catalog.trie, generator.beam_width)
    worst = max(beam_difference(golden.beams, found), beam_difference(torch_says, found))
    return _check(
        "parity",
        worst <= TOLERANCE,
        f"graph differs from the weights and from the recorded golden answer by at most {worst:.1e}, "
        f"expected at most {TOLERANCE:.0e}",
        worst,
        TOLERANCE,
    )


def _answers(generator: Generator, requests: RolloutBatch, catalog: Catalog) -> Beams:
    parts = [
        generator.generate(take_rows(requests.context, slice(start, start + _BATCH)), catalog.trie)
        for start in range(0, len(requests.user_ids), _BATCH)
    ]
    return Beams._make(np.concatenate(fields) for fields in zip(*parts, strict=True))


def _legality(beams: Beams, catalog: Catalog) -> GateCheck:
    alive = beams.items >= 0
    items = np.where(alive, beams.items, 0)
    inside = items < len(catalog)
    items = np.where(inside, items, 0)
    own_path = (catalog.codes[items] == beams.codes).all(axis=-1)
    legal = alive & inside & catalog.available[items] & own_path & np.isfinite(beams.masked_log_probs).all(axis=-1)
    total, good = int(alive.sum()), int(legal.sum())
    answered = bool(alive.any(axis=1).all())
    share = good / total if total else 0.0
    return _check(
        "legality",
        answered and good == total,
        f"found {good} of {total} generated items to exist, live and on their own path"
        + ("" if answered else ", and requests without any item")
        + ", expected all",
        share,
        1.0,
    )


def _coverage(old: Ints, new: Ints) -> GateCheck:
    before, after = (len(np.unique(shown[shown >= 0])) for shown in (old, new))
    share = after / max(1, before)
    return _check(
        "coverage",
        share >= COVERAGE_FLOOR,
        f"found {after} different items in the slates against {before}, expected at least {COVERAGE_FLOOR:.0%}",
        share,
        COVERAGE_FLOOR,
    )


def _check(name: str, passed: bool, reason: str, value: float, bound: float) -> GateCheck:
    return GateCheck(name=name, passed=passed, reason=reason, value=value, bound=bound)


def _verdict(checks: list[GateCheck]) -> GateVerdict:
    return GateVerdict(passed=all(check.passed for check in checks), checks=checks)
