"""Runs of models on one question, kept on disk as they end: an interrupted queue goes on where it was.

    <folder>/weights/                     trained networks, by a digest of what made them
    <folder>/<data>/<model>/chosen.json   the setting that the valid stage chose, and what each one reached
    <folder>/<data>/<model>/seed-<n>.npz  the test stage: rank and score of each asked act

What is kept is used again when it was made for equal events; after a change of a model's code, remove its folder.
(Of the generator's networks, which are dear, `generative` knows by which code they were made.)
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.quality.entries import ENTRIES, Entry, Setting
from benchmarks.quality.evaluation import Answers, evaluate
from benchmarks.quality.measures import headline
from benchmarks.quality.models import Model
from benchmarks.quality.neighbours import NeighbourScores, Once
from benchmarks.quality.protocols import QUESTIONS
from benchmarks.quality.split import Split, check_split, good_sequences
from core.errors import InputError
from models.evidence import Neighbours
from models.neighbours import cooccurrence, lend, near_places, text_neighbours


class Chosen(NamedTuple):
    """What the valid stage said of one model."""

    setting: Setting
    trials: int
    reached: list[float]  # per setting, in the order of the entry


class Workshop:
    """One question, and the models that are asked it. Is the `Ground` that they are built on.

    Args:
        data: a name of protocols.QUESTIONS.
        home: the folder of data sets.
        folder: where runs are kept.
        say: receives a line per step.
    """

    def __init__(self, data: str, home: Path, folder: Path, say: Callable[[str], None]) -> None:
        if data not in QUESTIONS:
            raise InputError(f"found --data {data}, expected one of {', '.join(QUESTIONS)}")
        self.data, self.weights, self.say = data, folder / "weights", say
        self._home, self._folder = home, folder / data
        self._cooccurrence = Once(lambda split: cooccurrence(good_sequences(split), len(split.items), keep=400))
        self._text = Once(lambda split: text_neighbours(split.items))
        self._lent = Once(_lent)
        self._places = Once(lambda split: near_places(split.items, keep=400))

    def check(self, models: Sequence[str]) -> None:
        """Raises:
        InputError: a model is unknown, or the data is not there.
        """
        for name in models:
            _entry(name)
        check_split(self.valid)
        check_split(self.test)

    @cached_property
    def valid(self) -> Split:
        """What settings are chosen by."""
        return QUESTIONS[self.data].split(self._home, "valid")

    @cached_property
    def test(self) -> Split:
        """What is reported."""
        return QUESTIONS[self.data].split(self._home, "test")

    def cooccurrence(self, recency: float) -> NeighbourScores:
        """Over a table that is counted once for each split."""
        return NeighbourScores("cooccurrence", self._cooccurrence, recency)

    def lent(self, recency: float) -> NeighbourScores:
        """`cooccurrence`, where new items stand where those stand that they read like."""
        return NeighbourScores("lent", self._lent, recency)

    def text(self, recency: float) -> NeighbourScores:
        """Over a table that is counted once for each split."""
        return NeighbourScores("text", self._text, recency)

    def places(self, recency: float) -> NeighbourScores:
        """Over a table that is counted once for each split."""
        return NeighbourScores("places", self._places, recency)

    def chosen(self, name: str) -> Model:
        """The model with the setting that the valid stage chose for it."""
        return _entry(name).build(self, self.setting(name))

    def setting(self, name: str) -> Setting:
        """What the valid stage chose for the model."""
        return self.choose(name).setting

    def best(self, names: Sequence[str]) -> str:
        """Which of the models, with more than one setting each, reached most at the valid stage; of equals the
        first."""
        return max(names, key=lambda name: max(self.choose(name).reached))

    def choose(self, name: str) -> Chosen:
        """Tries every setting on the valid stage, once."""
        entry = _entry(name)
        if len(entry.settings) == 1:
            return Chosen(entry.settings[0], 1, [])
        path = self._folder / name / "chosen.json"
        if path.exists():
            kept = json.loads(path.read_text("utf-8"))
            if kept["tried"] == [dict(setting) for setting in entry.settings] and kept["split"] == _digest(self.valid):
                return Chosen(kept["setting"], len(kept["reached"]), kept["reached"])
        reached = []
        for setting in entry.settings:
            model = entry.build(self, setting)
            model.fit(self.valid, 0)
            reached.append(headline(self.valid, evaluate(model, self.valid)))
            self.say(f"{self.data}, {name}: {dict(setting)} reached {reached[-1]:.4f} at the valid stage")
        setting = entry.settings[int(np.argmax(reached))]
        tried = [dict(setting) for setting in entry.settings]
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = {"setting": dict(setting), "reached": reached, "tried": tried, "split": _digest(self.valid)}
        path.write_text(json.dumps(kept, indent=1), "utf-8")
        return Chosen(setting, len(reached), reached)

    def run(self, name: str, seed: int) -> Answers:
        """The chosen model's answers at the test stage, from disk where they are."""
        path = self._folder / name / f"seed-{seed}.npz"
        chosen = self.choose(name)
        made_of = json.dumps([_digest(self.test), dict(chosen.setting)])
        if path.exists():
            with np.load(path) as kept:
                if str(kept["made_of"]) == made_of:
                    return Answers(*(kept[field] for field in Answers._fields))
        model = _entry(name).build(self, chosen.setting)
        model.fit(self.test, seed)
        answers = evaluate(model, self.test)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npz")
        np.savez_compressed(partial, made_of=np.array(made_of), **answers._asdict())
        partial.replace(path)
        self.say(f"{self.data}, {name}, seed {seed}: {headline(self.test, answers):.4f} at the test stage")
        return answers

    def seeds_of(self, name: str, seeds: int) -> range:
        """The seeds that make a difference."""
        return range(seeds if _entry(name).seeded else 1)


def _lent(split: Split) -> Neighbours:
    sequences = good_sequences(split)
    taken = np.arange(len(split.items)) < len(split.items) - split.new
    return lend(cooccurrence(sequences, len(split.items), keep=400), text_neighbours(split.items), taken)


def _entry(name: str) -> Entry:
    if name not in ENTRIES:
        raise InputError(f"found --model {name}, expected one of {', '.join(ENTRIES)}")
    return ENTRIES[name]


def _digest(split: Split) -> str:
    made = hashlib.blake2b(digest_size=8)
    for column in (*split.events, split.learn, split.asked):
        made.update(np.ascontiguousarray(column).tobytes())
    return made.hexdigest()
