"""Which tokenizer carries best what people do next: vectors x quantizer x size, on the training part of Amazon Beauty.

Every combination is asked by the count model of models/tokenizer_recall.py which item comes next, at the validation
act. Rows are written as they come, and a run that was interrupted goes on where it ended.

python -m benchmarks.quality.tokenizers --data-home DIR
python -m benchmarks.quality.tokenizers --data-home DIR --vectors fused --quantizer plain --size 256
"""

import json
import time
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.quality.beauty import beauty
from benchmarks.quality.split import good_sequences, histories
from core.ids import item_key
from models.codebook_training import Variant, fit_codebook
from models.item_training import VectorArgs, fit_item_vectors
from models.k_means import Floats, Ints
from models.rq_vae import RqVaeArgs, fit_rq_vae
from models.semantic_ids import Codebook, assign_paths
from models.tokenizer_health import health_of
from models.tokenizer_recall import Questions, carried
from models.train_semantic_ids import categories
from protos.catalog.v1.catalog_pb2 import Item

SIZES: Final = (64, 128, 256, 512, 1024)
LEVELS: Final = 3
HISTORY: Final = 20
_PARTIAL: Final = Path("var/bench/tokenizers.jsonl")


class Vectors(StrEnum):
    """Where the items stand."""

    CONTENT = "content"
    COLLABORATIVE = "collaborative"
    FUSED = "fused"


class Quantizer(StrEnum):
    """What makes codes of it."""

    PLAIN = "plain"
    BALANCED = "balanced"
    RQ_VAE = "rq-vae"


_ARGS: Final = {
    Vectors.CONTENT: VectorArgs(collaborative_weight=0.0),
    Vectors.COLLABORATIVE: VectorArgs(content_weight=0.0, gate=0.0),
    Vectors.FUSED: VectorArgs(),
}


class Row(NamedTuple):
    """One tokenizer. Shares are between 0 and 1."""

    vectors: str
    quantizer: str
    size: int
    seed: int
    recall_at_10: float  # at the validation act, items of the history left out
    recall_unseen: float  # of next items that nobody took near any of the history's
    nats: float  # mean of -log p(next item)
    error: float  # squared, of the paths; latents of a quantizer that learns its space are not of unit length
    collisions: float  # items beyond the first on their nearest path
    entropy: float  # the lowest of the levels, over ln V
    purity: tuple[float, ...]  # by depth
    seconds: float  # for codebook and paths


class World(NamedTuple):
    """What is learned from, and what is asked."""

    items: list[Item]
    sequences: list[Ints]
    questions: Questions


def main(
    data_home: Annotated[Path, typer.Option(envvar="NEARFEED_DATA_HOME", help="Folder of the data sets.")],
    vectors: Annotated[list[Vectors] | None, typer.Option(help="Only these; may be repeated.")] = None,
    quantizer: Annotated[list[Quantizer] | None, typer.Option(help="Only these; may be repeated.")] = None,
    size: Annotated[list[int] | None, typer.Option(help="Only these; may be repeated.")] = None,
    seed: Annotated[int, typer.Option(help="Of every random choice.")] = 0,
    output: Annotated[
        Path, typer.Option(help="One JSON row a line; rows that it holds are not made again.")
    ] = _PARTIAL,
) -> None:
    """Measure how well tokenizers carry the next act. The test acts are not read."""
    world = read_world(data_home)
    output.parent.mkdir(parents=True, exist_ok=True)
    rows = list(_written(output))
    done = {(row.vectors, row.quantizer, row.size, row.seed) for row in rows}
    for placing in vectors or Vectors:
        placed: Floats | None = None
        for kind in quantizer or Quantizer:
            for codes in size or SIZES:
                if (placing, kind, codes, seed) in done:
                    continue
                placed = _vectors(world, placing, seed) if placed is None else placed
                rows.append(measure(world, placed, placing, kind, codes, seed))
                with output.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(rows[-1]._asdict()) + "\n")
                print(rows[-1])
    Console().print(_table(rows))


def read_world(home: Path) -> World:
    """Beauty, without anything from the validation act on among what is learned from."""
    split = beauty(home, "valid")
    history = histories(split.events, split.asked, HISTORY)
    past = np.where(history >= 0, split.events.items[history], -1).astype(np.int32)
    return World(list(split.items), good_sequences(split), Questions(past, split.events.items[split.asked]))


def measure(world: World, vectors: Floats, placing: str, kind: Quantizer, size: int, seed: int) -> Row:
    """One row."""
    began_s = time.perf_counter()
    space, codebook, codes = _paths(vectors, kind, size, seed)
    seconds = time.perf_counter() - began_s
    health = health_of(space, codebook, codes, categories=categories(world.items))
    found = carried(codes, world.sequences, world.questions)
    return Row(
        vectors=placing,
        quantizer=kind,
        size=size,
        seed=seed,
        recall_at_10=found.recall_at_10,
        recall_unseen=found.recall_unseen,
        nats=found.nats,
        error=health.error,
        collisions=health.collisions / health.items,
        entropy=min(health.entropy) / float(np.log(size)),
        purity=health.purity,
        seconds=seconds,
    )


def _vectors(world: World, placing: Vectors, seed: int) -> Floats:
    keys = np.array([item_key(item.item_id) for item in world.items], np.int64)
    acts = [keys[sequence] for sequence in world.sequences]
    return fit_item_vectors(world.items, acts, _ARGS[placing], np.random.default_rng(seed)).vectors


def _paths(vectors: Floats, kind: Quantizer, size: int, seed: int) -> tuple[Floats, Codebook, Ints]:
    """The space that paths are made in, the codebook, one path per item."""
    rng = np.random.default_rng(seed)
    if kind is Quantizer.RQ_VAE:
        learned = fit_rq_vae(vectors, rng, RqVaeArgs(), levels=LEVELS, size=size)
        return learned.latents, learned.codebook, assign_paths(learned.latents, learned.codebook)
    fitted = fit_codebook(vectors, rng, levels=LEVELS, size=size, variant=Variant(kind.value))
    return vectors, fitted.codebook, assign_paths(vectors, fitted.codebook, fitted.wanted)


def _written(path: Path) -> Iterator[Row]:
    if path.exists():
        for line in path.read_text("utf-8").splitlines():
            row = Row(**json.loads(line))
            yield row._replace(purity=tuple(row.purity))


def _table(rows: list[Row]) -> Table:
    table = Table(title="Tokenizers by recall@10 of the next act")
    for name in ("vectors", "quantizer"):
        table.add_column(name)
    for name in ("size", "recall@10", "unseen", "nats", "error", "collisions", "entropy", "purity", "s"):
        table.add_column(name, justify="right")
    for row in sorted(rows, key=lambda row: -row.recall_at_10):
        table.add_row(
            row.vectors,
            row.quantizer,
            f"{row.size}",
            f"{row.recall_at_10:.4f}",
            f"{row.recall_unseen:.4f}",
            f"{row.nats:.3f}",
            f"{row.error:.3f}",
            f"{row.collisions:.1%}",
            f"{row.entropy:.2f}",
            f"{row.purity[1]:.2f}",
            f"{row.seconds:.0f}",
        )
    return table


if __name__ == "__main__":
    typer.run(main)
