"""Figures that stand in for models that were not run here, or stand beside those that were; marked so in every table.

Sources: TIGER's table 1 (Rajput et al., NeurIPS 2023); phonism/genrec's logs of its own re-runs; for SASRec with
full-softmax cross-entropy a public re-run with intervals, ties of a day shuffled. All on Beauty, leave-one-out, seen
items not masked, learned without the valid acts.
"""

from typing import Final

from benchmarks.quality.rows import Row

_COMMAND: Final = "none: published"


def _rows(model: str, note: str, /, **figures: float) -> list[Row]:
    names = {"r5": "recall@5", "n5": "ndcg@5", "r10": "recall@10", "n10": "ndcg@10"}
    return [
        Row(
            protocol="leave-one-out",
            data="beauty",
            model=model,
            metric=names[name],
            mean=mean,
            low=None,
            high=None,
            seeds=0,
            command=_COMMAND,
            seen="ranked",
            asked=22_363,
            published=True,
            note=note,
        )
        for name, mean in figures.items()
    ]


PUBLISHED: Final[list[Row]] = [
    *_rows("tiger-paper", "Rajput et al. 2023, table 1", r5=0.0454, n5=0.0321, r10=0.0648, n10=0.0384),
    *_rows("tiger-rerun", "phonism/genrec", r10=0.0721),
    *_rows("hstu-rerun", "phonism/genrec", r10=0.0708),
    *_rows("sasrec-rerun", "full softmax; ± 0.0015 over users", r10=0.0859, n10=0.0503),
]
