"""What the harness asks of a model, and how every model is asked."""

from typing import Protocol

from benchmarks.quality.split import Floats, Longs, Split


class Model(Protocol):
    """Something that scores items for acts."""

    @property
    def name(self) -> str:
        """As it stands in tables and file names."""

    def fit(self, split: Split, seed: int) -> None:
        """Afterwards `scores` answers. Learns from the acts in `split.learn` and from nothing newer."""

    def scores(self, split: Split, asked: Longs) -> Floats:
        """(b, I) score of every item for b of the acts that are asked for; higher is better, -inf = not ranked.

        Args:
            asked: (b,) positions in `split.asked`. Each answer may use the acts before its own, and, where the split
                says so, the time of its own.
        """
