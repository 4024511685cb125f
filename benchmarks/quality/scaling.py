"""The lazy decoder beside its twin, and loss over size and data: a queue of runs, a row of results for each.

    python -m benchmarks.quality.scaling cost --data-home FOLDER      operations and latency, 20 to 1,000 tokens
    python -m benchmarks.quality.scaling twin --data-home FOLDER      both trained on the same requests, loss;
                                                                      --tokens 0 says what the context is worth
    python -m benchmarks.quality.scaling size                         4 sizes x 3 shares of the data, and the fit
    python -m benchmarks.quality.scaling table

A run whose row is there is passed over, and one that broke off goes on from its checkpoint: the same command again
does what is left. k = 5 items share a context. A request's loss is the mean over its items and codes.
"""

import argparse
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console

from benchmarks.quality.scaling_cost import (
    BEAM_WIDTH,
    counted_flops,
    first_requests,
    latency_ms,
    lazy_flops,
    made,
    twin_flops,
)
from benchmarks.quality.scaling_data import (
    CODEBOOK,
    PER_REQUEST,
    SOURCES,
    Sequences,
    examples_of,
    read_sequences,
    some,
    split_requests,
)
from benchmarks.quality.scaling_rows import Row, fit_losses, identity, put_row, read_rows
from benchmarks.quality.scaling_tables import draw, table_of
from models.batches import Ints
from models.checkpoints import Checkpoints
from models.examples import Examples, rows_of_examples
from models.generator import Generator
from models.generator_config import GeneratorConfig
from models.generator_quality import mean_loss, target_ranks
from models.metrics import recall_at
from models.train_arguments import TrainArguments
from models.train_generator import train_generator
from models.training_step import batch_of
from models.trie import Trie, build_trie

SCRATCH: Final = Path("var/bench/scaling")
CHART: Final = SCRATCH / "scaling.png"
COST_TOKENS: Final = (20, 64, 128, 256, 512, 1000)
TWIN_TOKENS: Final = (20, 64, 256, 512)
SIZES: Final = ((32, 2), (48, 3), (80, 4), (128, 4))  # d_model, layers
SHARES: Final = (0.25, 0.5, 1.0)
SIZE_TOKENS: Final = 50
SIZE_REQUESTS: Final = 24_000
TWIN_REQUESTS: Final = 12_000
CHOSEN_BY: Final = 500  # requests that choose the best weights
JUDGED: Final = 1_500  # others, that the rows tell of
LEAST: Final = 5  # acts before a request
BATCH: Final = 32
_RESAMPLES: Final = 2_000


class Ground(NamedTuple):
    """A data set, made ready."""

    sequences: Sequences
    trie: Trie

    @property
    def codes(self) -> Ints:
        return self.sequences.codes


def shape(d_model: int, layers: int, tokens: int) -> GeneratorConfig:
    """A lazy decoder that has a twin."""
    return GeneratorConfig(codebook_size=CODEBOOK, d_model=d_model, layers=layers, tokens=max(tokens, 1))


def main(words: Sequence[str] | None = None) -> None:
    """The commands above."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality.scaling", description=__doc__.split("\n")[0])
    parser.add_argument("part", choices=("cost", "twin", "size", "table"))
    parser.add_argument("--data", choices=SOURCES, help="movielens for cost and twin, kuairand for size.")
    parser.add_argument("--data-home", type=Path, default=os.environ.get("NEARFEED_DATA_HOME"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tokens", type=int, action="append", help="Context lengths; all when left out.")
    parser.add_argument("--requests", type=int, help="To learn from; else as many as the part takes.")
    asked = parser.parse_args(words)
    torch.set_num_threads(1)
    console = Console()
    if asked.part != "table":
        data = asked.data or ("kuairand" if asked.part == "size" else "movielens")
        sequences = read_sequences(data, asked.data_home)
        ground = Ground(sequences, build_trie(sequences.codes, len(sequences.codes), codebook_size=CODEBOOK))
        command = f"python -m benchmarks.quality.scaling {asked.part} --data {data} --seed {asked.seed}"
        command += "".join(f" --tokens {tokens}" for tokens in asked.tokens or ())
        command += f" --requests {asked.requests}" if asked.requests else ""
        rows = {"cost": cost_rows, "twin": twin_rows, "size": size_rows}[asked.part]
        for row in rows(ground, Row("", data, "", PER_REQUEST, asked.seed, command=command), asked):
            put_row(row)
            console.print(table_of([row]))
    console.print(table_of(read_rows()))
    draw(read_rows(), CHART)


def cost_rows(ground: Ground, row: Row, asked: argparse.Namespace) -> Iterator[Row]:
    """Operations and latency of both, d_model 64 and 4 layers, over context lengths."""
    requests, _ = split_requests(ground.sequences, least=LEAST)
    longest = np.argsort(-requests.starts, kind="stable")[: 4 * BATCH]
    requests = type(requests)(*(field[longest] for field in requests))
    for tokens in asked.tokens or COST_TOKENS:
        config = shape(64, 4, tokens)
        examples = first_requests(examples_of(ground.sequences, requests, tokens), 8)
        counted = {}
        for architecture, formula in (("twin", twin_flops), ("lazy", lazy_flops)):
            generator = made(architecture, config, row.seed)
            counted[architecture] = counted_flops(generator, examples, ground.codes, training=True) / 1e9
            p50, p95 = latency_ms(generator.eval(), examples, ground.trie)
            yield row._replace(
                part="cost",
                model=architecture,
                d_model=64,
                layers=4,
                weights=_block_weights(generator),
                tokens=tokens,
                gflops=counted[architecture],
                gflops_formula=3 * formula(config, tokens=tokens, targets=PER_REQUEST, requests=8) / 1e9,
                share_of_twin=counted[architecture] / counted["twin"],
                latency_p50_ms=p50,
                latency_p95_ms=p95,
                note="torch, one request, beam 32, one thread; operations of a batch of 8",
            )


def twin_rows(ground: Ground, row: Row, asked: argparse.Namespace) -> Iterator[Row]:
    """Both trained on the same requests in the same order; then the paired difference of their losses."""
    learn, judge = split_requests(ground.sequences, least=LEAST)
    learn, judge = some(learn, asked.requests or TWIN_REQUESTS), some(judge, CHOSEN_BY + JUDGED)
    for tokens in asked.tokens or TWIN_TOKENS:
        examples = examples_of(ground.sequences, learn, tokens)
        judged = examples_of(ground.sequences, judge, tokens)
        losses, counted = {}, {}
        for architecture in ("lazy", "twin"):
            config = shape(64, 4, tokens)
            wanted = row._replace(
                part="twin", model=architecture, d_model=64, layers=4, tokens=tokens, requests=len(examples.items)
            )
            generator = made(architecture, config, row.seed)
            wanted = wanted._replace(weights=_block_weights(generator))
            args = TrainArguments(
                config=generator.config,
                epochs=3,
                batch_size=BATCH,
                learning_rate=3e-3,
                patience=4,
                seed=row.seed,
            )
            counted[architecture] = (
                counted_flops(generator, first_requests(examples, BATCH), ground.codes, training=True) / 1e9
            )
            done, losses[architecture] = _run(ground, wanted, generator, examples, judged, args)
            yield done._replace(gflops=counted[architecture])
        difference = losses["lazy"] - losses["twin"]
        low, high = interval(difference)
        yield row._replace(
            part="difference",
            model="lazy",
            d_model=64,
            layers=4,
            tokens=tokens,
            requests=len(examples.items),
            loss=float(difference.mean()),
            low=low,
            high=high,
            share_of_twin=counted["lazy"] / counted["twin"],
            note="loss of lazy minus loss of twin, paired by request",
        )


def size_rows(ground: Ground, row: Row, asked: argparse.Namespace) -> Iterator[Row]:
    """The lazy decoder at each size and share of the data; then the curve through all of them."""
    learn, judge = split_requests(ground.sequences, least=LEAST)
    learn, judge = some(learn, asked.requests or SIZE_REQUESTS), some(judge, CHOSEN_BY + JUDGED)
    judged = examples_of(ground.sequences, judge, SIZE_TOKENS)
    for share in SHARES:
        examples = examples_of(ground.sequences, some(learn, round(share * len(learn.users))), SIZE_TOKENS)
        for d_model, layers in SIZES:
            generator = made("lazy", shape(d_model, layers, SIZE_TOKENS), row.seed)
            wanted = row._replace(
                part="size",
                model="lazy",
                d_model=d_model,
                layers=layers,
                weights=_block_weights(generator),
                tokens=SIZE_TOKENS,
                requests=len(examples.items),
            )
            args = TrainArguments(
                config=generator.config,
                epochs=3,
                batch_size=BATCH,
                learning_rate=4e-3 * (64 / d_model) ** 0.5,
                patience=4,
                seed=row.seed,
            )
            counted = counted_flops(generator, first_requests(examples, BATCH), ground.codes, training=True) / 1e9
            done, _ = _run(ground, wanted, generator, examples, judged, args)
            yield done._replace(gflops=counted)
    yield fit_row(row)


def fit_row(row: Row) -> Row:
    """The curve through the rows of part 'size' of the same data and seed."""
    sized = [each for each in read_rows() if (each.part, each.data, each.seed) == ("size", row.data, row.seed)]
    weights, requests, losses = (
        np.array([getattr(each, name) for each in sized], np.float64) for name in ("weights", "requests", "loss")
    )
    fit = fit_losses(weights, requests, losses)
    said = ", ".join(f"{name} {value:.4g}" for name, value in fit._asdict().items())
    return row._replace(part="fit", model="lazy", loss=fit.floor, note=f"{len(sized)} rows: {said}")


def _run(
    ground: Ground, wanted: Row, generator: Generator, examples: Examples, judged: Examples, args: TrainArguments
) -> tuple[Row, npt.NDArray[np.float64]]:
    """The row with what training gave, and the loss of each judged request; read when they were written before."""
    name = "-".join(str(value) for value in identity(wanted) if value is not None)
    kept = SCRATCH / f"{name}.npy"
    there = [row for row in read_rows() if identity(row) == identity(wanted)]
    if there and kept.exists():
        return there[0], np.load(kept)
    checkpoint = SCRATCH / f"{name}.checkpoint"
    choosing, judged = (rows_of_examples(judged, part) for part in (slice(CHOSEN_BY), slice(CHOSEN_BY, None)))
    trained = train_generator(
        examples,
        ground.codes,
        args,
        generator=generator,
        validate=lambda each: mean_loss(each, choosing, ground.codes),
        checkpoints=Checkpoints(checkpoint),
        progress=lambda at: print(f"{name} {at.done:4.0%} {at.loss:.3f} {at.validation:.3f} {at.elapsed_s:.0f} s"),
    )
    losses = request_losses(trained.generator, judged, ground.codes)
    low, high = interval(losses)
    ranks = target_ranks(trained.generator, judged, ground.trie, beam_width=BEAM_WIDTH)
    np.save(kept, losses)
    checkpoint.unlink()
    done = wanted._replace(
        loss=float(losses.mean()),
        low=low,
        high=high,
        recall_at_10=recall_at(ranks, 10),
        seconds=trained.seconds,
        epochs=args.epochs * trained.curve[-1].done,
    )
    return done, losses


def request_losses(generator: Generator, examples: Examples, codes: Ints) -> npt.NDArray[np.float64]:
    """(n,) nats a code, the mean over a request's items."""
    found = []
    with torch.no_grad():
        for start in range(0, len(examples.items), BATCH):
            batch = batch_of(rows_of_examples(examples, slice(start, start + BATCH)), codes)
            log_probs = torch.log_softmax(generator(batch.context, batch.codes), dim=-1)
            chosen = log_probs.gather(-1, batch.codes.long()[..., None]).squeeze(-1)
            found.append(-chosen.mean((1, 2)).double().numpy())
    return np.concatenate(found)


def interval(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """95 % bootstrap interval of the mean."""
    drawn = np.random.default_rng(0).integers(0, len(values), (_RESAMPLES, len(values)))
    low, high = np.quantile(values[drawn].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def _block_weights(generator: Generator) -> int:
    """Matrices of the decoder's and the encoder's blocks, keys and values included."""
    parts = [generator.blocks, getattr(generator.context, "blocks", None), getattr(generator.context, "w_kv", None)]
    found = [weight for part in parts if part is not None for weight in part.parameters() if weight.ndim > 1]
    return sum(weight.numel() for weight in found)


if __name__ == "__main__":
    main()
