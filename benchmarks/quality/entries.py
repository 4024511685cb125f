"""The models by name, each with the settings that are tried for it at the valid stage.

What is counted has six settings. What is trained has fewer, since a trial is a training: networks over items two, their
field's usual one with its last weights and with averaged ones, and the generator two codebooks and two numbers of
passes, by which it is judged alone; what chooses among its beams takes both over. Rows tell the number, and a gain of
what had more trials is to be read so.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from benchmarks.quality.averaged import Averaged
from benchmarks.quality.models import Model
from benchmarks.quality.neighbours import Mixture, NeighbourScores, NewItems
from benchmarks.quality.places import Near, Visits, VisitWeights
from benchmarks.quality.popularity import PersonalPopularity, Popularity, Rate
from benchmarks.quality.traits import Traits

if TYPE_CHECKING:
    from benchmarks.quality.generative import GenerativeArgs

Setting = Mapping[str, float]


class Ground(Protocol):
    """What a model is built on."""

    weights: Path  # folder of trained weights

    def chosen(self, name: str) -> Model:
        """The model of that name with the setting that the valid stage chose for it."""

    def setting(self, name: str) -> Setting:
        """What the valid stage chose for the model of that name."""

    def best(self, names: Sequence[str]) -> str:
        """Which of the models reached most at the valid stage; of equals the first."""

    def cooccurrence(self, recency: float) -> NeighbourScores:
        """Over a table that is counted once for each split."""

    def lent(self, recency: float) -> NeighbourScores:
        """`cooccurrence`, where new items stand where those stand that they read like."""

    def text(self, recency: float) -> NeighbourScores:
        """Over a table that is counted once for each split."""

    def places(self, recency: float) -> NeighbourScores:
        """Over a table that is counted once for each split."""

    def say(self, line: str) -> None:
        """Tells a person how far it is."""


class Entry(NamedTuple):
    """A model by name."""

    build: Callable[[Ground, Setting], Model]
    settings: tuple[Setting, ...] = ({},)  # what is tried, of equals the first is taken; one = nothing to choose
    seeded: bool = False  # whether seeds make a difference


def _each(name: str, *values: float) -> tuple[Setting, ...]:
    return tuple({name: value} for value in values)


def _visits(ground: Ground, setting: Setting) -> Model:
    return Visits("visits", VisitWeights(popular=setting["popular"]))


def _visits_mixture(ground: Ground, setting: Setting) -> Model:
    weights = VisitWeights(
        visit=1.0, recent=setting["recent"], hour=setting["hour"], again=setting["again"], others=0.5
    )
    return Visits("visits-mixture", weights)


def _mixture(ground: Ground, setting: Setting) -> Model:
    parts = [ground.cooccurrence(setting["recency"]), ground.text(setting["recency"])]
    return Mixture("mixture", parts, [1.0, setting["text"]])


def _reader(name: str) -> Callable[[Ground, Setting], Model]:
    def build(ground: Ground, setting: Setting) -> Model:
        from benchmarks.quality.hstu import Hstu
        from benchmarks.quality.next_item import NextItem, NextItemArgs
        from benchmarks.quality.sasrec import Sasrec

        args = NextItemArgs(dropout=setting["dropout"], width=int(setting["width"]), averaged=setting["averaged"])
        return NextItem(name, {"sasrec": Sasrec, "hstu": Hstu}[name], args, ground.weights, ground.say)

    return build


def _mixture_new(ground: Ground, setting: Setting) -> Model:
    parts = [ground.lent(setting["recency"]), ground.text(setting["recency"])]
    return NewItems("mixture+new", Mixture("mixture", parts, [1.0, setting["text"]]), setting["new_items"])


def _generator(name: str) -> Callable[[Ground, Setting], Model]:
    def build(ground: Ground, setting: Setting) -> Model:
        from benchmarks.quality.generative import Generative

        args = _generative_args(ground, setting)
        config = replace(args.train.config, new_items=setting.get("new_items", 1.0))
        args = replace(args, train=replace(args.train, config=config))
        return Generative(name, args, ground.weights, setting.get("item_weight", 0.0), ground.say)

    return build


def _generative_args(ground: Ground, setting: Setting) -> "GenerativeArgs":
    from benchmarks.quality.generative import GenerativeArgs

    chosen = setting if "epochs" in setting else ground.setting("generator")
    args = GenerativeArgs(recency=ground.setting(ground.best(("cooccurrence", "text")))["recency"])
    config = replace(args.train.config, codebook_size=int(chosen["codebook"]))
    return replace(args, train=replace(args.train, epochs=chosen["epochs"], config=config))


def _averaged(name: str) -> Callable[[Ground, Setting], Model]:
    def build(ground: Ground, setting: Setting) -> Model:
        return Averaged(f"{name}-averaged", [ground.chosen(name), ground.chosen(name)])

    return build


def _values(name: str) -> Callable[[Ground, Setting], Model]:
    def build(ground: Ground, setting: Setting) -> Model:
        from benchmarks.quality.generative import Generative
        from benchmarks.quality.values import Values

        generative = Generative("generator", _generative_args(ground, {}), ground.weights, 0.0, ground.say)
        return Values(name, generative, setting.get("value_weight", 1.0))

    return build


def _fused(name: str, one: str, other: str, weights: Sequence[float], *, seeded: bool) -> Entry:
    def build(ground: Ground, setting: Setting) -> Model:
        return Mixture(name, [ground.chosen(one), ground.chosen(other)], [1.0, setting["weight"]], shares=True)

    return Entry(build, _each("weight", *weights), seeded=seeded)


# What new items gain the known ones lose, so neither measure may choose. Of the numbers tried at the valid stage of
# beauty-grown these have new items above text neighbours, and known ones above the mixture as it is where that can be.
_MIXTURE_NEW: Final[tuple[Setting, ...]] = ({"recency": 0.75, "text": 1.0, "new_items": 1.5},)  # of 1, 1.5, 2, 3
_GENERATOR_NEW: Final[tuple[Setting, ...]] = ({"item_weight": 4.0, "new_items": 5.0},)  # of 3, 4, 5, 6

# A training is ten to twenty minutes of one core: the last weights are tried, and the mean of the last half.
_TRAINED: Final[tuple[Setting, ...]] = tuple({"dropout": 0.5, "width": 64, "averaged": share} for share in (0.0, 0.5))

ENTRIES: Final[dict[str, Entry]] = {
    "popularity": Entry(lambda ground, setting: Popularity()),
    "popularity-recent": Entry(
        lambda ground, setting: Popularity(setting["half_life_days"]), _each("half_life_days", 0.25, 1, 4, 20, 100, 500)
    ),
    "popularity-personal": Entry(
        lambda ground, setting: PersonalPopularity(setting["recency"]), _each("recency", 0.8, 0.9, 0.95, 0.98, 0.99, 1)
    ),
    "cooccurrence": Entry(
        lambda ground, setting: ground.cooccurrence(setting["recency"]),
        _each("recency", 0.6, 0.3, 0.45, 0.7, 0.8, 0.9),
    ),
    "text": Entry(
        lambda ground, setting: ground.text(setting["recency"]), _each("recency", 0.3, 0.45, 0.6, 0.7, 0.8, 0.9)
    ),
    "mixture": Entry(
        _mixture,
        tuple({"recency": recency, "text": text} for recency, text in product((0.6, 0.75), (0.2, 0.5, 1.0))),
    ),
    "mixture+new": Entry(_mixture_new, _MIXTURE_NEW),
    "rate": Entry(lambda ground, setting: Rate(setting["prior"]), _each("prior", 1, 3, 10, 30, 100, 300)),
    "places": Entry(
        lambda ground, setting: ground.places(setting["recency"]), _each("recency", 0.01, 0.1, 0.3, 0.45, 0.6, 0.8)
    ),
    "near": Entry(lambda ground, setting: Near()),
    "visits": Entry(_visits, _each("popular", 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)),
    "visits-mixture": Entry(
        _visits_mixture,
        tuple(
            {"recent": recent, "hour": hour, "again": again}
            for recent, (hour, again) in product((0.3, 0.7), ((0.5, 0.2), (1.0, 0.2), (1.0, 0.5)))
        ),
    ),
    "visits-mixture+places": _fused(
        "visits-mixture+places", "visits-mixture", "places", (0.02, 0.05, 0.1, 0.2, 0.5, 1.0), seeded=False
    ),
    "sasrec": Entry(_reader("sasrec"), _TRAINED, seeded=True),
    "hstu": Entry(_reader("hstu"), _TRAINED, seeded=True),
    "sasrec+mixture": _fused("sasrec+mixture", "sasrec", "mixture", (0.5, 1.0, 1.5, 2.0, 3.0, 5.0), seeded=True),
    "popularity-traits": Entry(
        lambda ground, setting: Traits(setting["half_life_days"], setting["weight"]),
        tuple({"half_life_days": days, "weight": weight} for days, weight in product((1, 4), (0.1, 0.3, 1.0))),
    ),
    "mixture+traits": _fused(
        "mixture+traits", "mixture", "popularity-traits", (0.05, 0.1, 0.2, 0.5, 1.0, 2.0), seeded=False
    ),
    "mixture+popularity": _fused(
        "mixture+popularity", "mixture", "popularity-recent", (0.05, 0.1, 0.2, 0.5, 1.0, 2.0), seeded=False
    ),
    "generator": Entry(
        _generator("generator"),
        tuple({"codebook": codebook, "epochs": epochs} for codebook, epochs in product((256, 1024), (3.0, 12.0))),
        seeded=True,
    ),
    "generator+items": Entry(
        _generator("generator+items"), _each("item_weight", 0.5, 1.0, 1.5, 3.0, 4.0, 16.0), seeded=True
    ),
    "generator+new": Entry(_generator("generator+new"), _GENERATOR_NEW, seeded=True),
    "generator-averaged": Entry(_averaged("generator"), seeded=True),
    "generator+items-averaged": Entry(_averaged("generator+items"), seeded=True),
    "values": Entry(_values("values"), seeded=True),
    "generator+values": Entry(
        _values("generator+values"), _each("value_weight", 0.25, 0.5, 1.0, 1.5, 2.0, 3.0), seeded=True
    ),
}
