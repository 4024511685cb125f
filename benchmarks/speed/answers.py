"""What an answer costs, by codes of a level: the exported graph on one thread, when it reads all codes of a prefix and
when it reads as many as the widest prefix has children.

python -m benchmarks.speed.answers

Items have random paths and the generator is untrained: neither changes what is computed. Both readings are asked in
turn by one session, one request at a time.
"""

import tempfile
import time
from pathlib import Path
from typing import Final

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from feature_repo.layouts import DIM
from models.batches import AGE_BUCKETS, EVIDENCE_SOURCES, LEVELS, NEAR, PLACE_FEATURES, ContextBatch, take_rows
from models.export import export_generator
from models.generator import Generator
from models.generator_config import GeneratorConfig
from models.runtime import OnnxGenerator
from models.trie import Ints, Trie, build_trie

ITEMS: Final = 12_000
SIZES: Final = (64, 256, 1_024, 4_096)
BEAM_WIDTH: Final = 64
REPEATS: Final = 40  # answers by each reading, of which the median is shown
_WARM: Final = 3


def main() -> None:
    """The command above."""
    torch.set_num_threads(1)
    table = Table(title=f"One answer among {ITEMS:,} items, {BEAM_WIDTH} beams, one thread", title_justify="left")
    for name in ("codes of a level", "widest prefix", "all codes, ms", "its children, ms", "ratio"):
        table.add_column(name, justify="right")
    for size in SIZES:
        trie, every_ms, children_ms = measured(size)
        ratio = f"{every_ms / children_ms:.2f}"
        table.add_row(f"{size:,}", str(len(trie.slots)), f"{every_ms:.1f}", f"{children_ms:.1f}", ratio)
    Console().print(table)


def measured(size: int) -> tuple[Trie, float, float]:
    """The trie, and milliseconds of an answer by either reading."""
    rng = np.random.default_rng(size)
    codes = _paths(rng, size)
    trie = build_trie(codes, ITEMS, codebook_size=size)
    config = GeneratorConfig(
        codebook_size=size, d_model=96, layers=2, tokens=20, items=ITEMS, item_head=True, prior=True
    )
    torch.manual_seed(0)
    requests = _contexts(rng, codes, config.tokens)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        golden = take_rows(requests, slice(2))
        export_generator(Generator(config).eval(), path, golden, trie, beam_width=BEAM_WIDTH)
        graph = OnnxGenerator.load(path, threads=1)
    readings = (trie._replace(slots=np.arange(size, dtype=np.int32)), trie)
    taken_s: list[list[float]] = [[], []]
    for turn in range(_WARM + REPEATS):
        one = take_rows(requests, slice(turn % REPEATS, turn % REPEATS + 1))
        for place, reading in enumerate(readings):
            started_s = time.perf_counter()
            graph.generate(one, reading)
            taken_s[place].append(time.perf_counter() - started_s)
    every_s, children_s = (float(np.median(each[_WARM:])) for each in taken_s)
    return trie, 1000 * every_s, 1000 * children_s


def _paths(rng: np.random.Generator, size: int) -> Ints:
    numbers = np.unique(rng.integers(0, size**LEVELS, 2 * ITEMS))
    chosen = rng.permutation(numbers)[:ITEMS]
    return np.stack(np.unravel_index(chosen, (size,) * LEVELS), axis=1).astype(np.int32)


def _contexts(rng: np.random.Generator, codes: Ints, tokens: int) -> ContextBatch:
    """Full histories of random items, and as many near items as there may be."""
    items = rng.integers(0, ITEMS, (REPEATS, tokens)).astype(np.int32)
    flat = np.zeros((REPEATS, tokens), np.int32)
    return ContextBatch(
        codes=codes[items],
        mask=np.ones((REPEATS, tokens), np.bool_),
        actions=flat,
        watch=flat,
        age=rng.integers(0, AGE_BUCKETS, (REPEATS, tokens)).astype(np.int32),
        interests=np.zeros((REPEATS, 2, DIM), np.float32),
        place=np.zeros((REPEATS, PLACE_FEATURES), np.float32),
        items=items,
        near=np.stack([rng.choice(ITEMS, NEAR, replace=False) for _ in range(REPEATS)]).astype(np.int32),
        nearness=rng.random((REPEATS, NEAR, EVIDENCE_SOURCES)).astype(np.float32),
    )


if __name__ == "__main__":
    main()
