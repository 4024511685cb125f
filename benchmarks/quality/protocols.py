"""The protocols by name. They are never mixed: a row says which it belongs to."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.quality.beauty import beauty
from benchmarks.quality.cold import hold_out_items
from benchmarks.quality.foursquare import foursquare, foursquare_getnext
from benchmarks.quality.kuairand import kuairand, kuairand_users
from benchmarks.quality.movielens import movielens
from benchmarks.quality.split import Split

Build = Callable[[Path, str], Split]  # (folder of data sets, "valid" | "test")


class Question(NamedTuple):
    """A protocol on a data set."""

    split: Build
    baseline: str  # the model that gains are against
    metrics: tuple[str, ...]
    seen: tuple[str, ...] = ("ranked",)  # "masked" too where people do not come back to what they had


_RECALL: Final = ("recall@5", "ndcg@5", "recall@10", "ndcg@10")
_BOTH: Final = ("ranked", "masked")
_PLACES: Final = ("recall@1", "recall@5", "recall@10", "mrr@10")
_ORDER: Final = ("gauc long_view", "ndcg long_view", "gauc play", "ndcg play")


def _cold(build: Build, *, grown: bool = False) -> Build:
    def cold(home: Path, stage: str) -> Split:
        return hold_out_items(build(home, stage), grown=grown)

    return cold


QUESTIONS: Final[dict[str, Question]] = {
    "beauty": Question(beauty, "mixture", _RECALL, _BOTH),
    "beauty-refit": Question(partial(beauty, learn_valid=True), "mixture", _RECALL, _BOTH),
    "beauty-shuffled": Question(partial(beauty, shuffle_seed=0), "mixture", _RECALL, _BOTH),
    "beauty-cold": Question(_cold(beauty), "text", _RECALL),
    "beauty-grown": Question(_cold(beauty, grown=True), "text", _RECALL, _BOTH),
    "kuairand-next": Question(partial(kuairand, exposed=False), "mixture", _RECALL),
    "kuairand-next-users": Question(kuairand_users, "mixture", _RECALL),
    "kuairand-exposed": Question(partial(kuairand, exposed=True), "rate", _ORDER, ("",)),
    "foursquare": Question(foursquare, "visits-mixture", _PLACES),
    "foursquare-no-time": Question(partial(foursquare, time_known=False), "visits-mixture", _PLACES),
    "foursquare-getnext": Question(foursquare_getnext, "visits-mixture", _PLACES),
    "foursquare-getnext-no-time": Question(partial(foursquare_getnext, time_known=False), "visits-mixture", _PLACES),
    "foursquare-cold": Question(_cold(foursquare), "near", _PLACES),
    "foursquare-grown": Question(_cold(foursquare, grown=True), "near", _PLACES),
    "movielens": Question(movielens, "mixture", _RECALL, _BOTH),
}
