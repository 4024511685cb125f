"""Examples on disk in, weights and curve out; killed and started again, it goes on where it stood.

    python -m models.train_from_shards EXAMPLES --codes codes.npy --out FOLDER --preset small
    torchrun --nproc-per-node 2 -m models.train_from_shards EXAMPLES --codes codes.npy --out FOLDER --preset small

EXAMPLES is a folder of `models.example_shards`, codes.npy the (I, 3) paths of the catalogue. FOLDER then holds
weights.pt, curve.json, curve.png and checkpoint.pt. `--start weights.pt` goes on from the weights of another version.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Display

from core.errors import ArtefactError
from models.batches import Ints
from models.checkpoints import Checkpoints
from models.curves import plot_curve
from models.example_shards import ExampleShards
from models.examples import Examples, joined_examples
from models.generator import Generator
from models.generator_quality import mean_loss
from models.presets import PRESETS
from models.processes import joined_processes
from models.train_arguments import TrainArguments
from models.train_generator import Progress, train_generator


def main(words: Sequence[str] | None = None) -> None:
    """The command above."""
    asked = _parser().parse_args(words)
    codes: Ints = np.load(asked.codes)
    preset = PRESETS[asked.preset]
    source = ExampleShards(asked.examples)
    config = replace(preset.config, codebook_size=asked.codebook_size, tokens=source.facts.tokens)
    args = TrainArguments(
        config=config,
        epochs=asked.epochs,
        train_s=asked.seconds,
        batch_size=asked.batch_size,
        micro_batch=asked.micro_batch,
        learning_rate=asked.learning_rate or preset.learning_rate,
        averaged=asked.averaged,
        patience=asked.patience,
        precision=asked.precision,
        compiled=asked.compiled,
        seed=asked.seed,
    )
    later = None if asked.validation is None else _whole(ExampleShards(asked.validation))
    with joined_processes() as processes, progress_display(processes.first) as show:
        trained = train_generator(
            source,
            codes,
            args,
            generator=None if asked.start is None else _load(asked.start, args),
            validate=None if later is None else lambda generator: mean_loss(generator, later, codes),
            checkpoints=Checkpoints(asked.out / "checkpoint.pt", asked.every_s, asked.every_steps),
            processes=processes,
            progress=show,
        )
        if processes.first:
            torch.save(trained.generator.state_dict(), asked.out / "weights.pt")
            curve = [report._asdict() for report in trained.curve]
            told = {"arguments": asdict(args), "seconds": trained.seconds, "curve": curve}
            (asked.out / "curve.json").write_text(json.dumps(told, indent=1), "utf-8")
            plot_curve(trained.curve, asked.out / "curve.png", title=asked.preset)


@contextmanager
def progress_display(shown: bool) -> Iterator[Callable[[Progress], None]]:
    """A bar with loss, validation and the time that is left; on a file a line per report. Nothing when not `shown`."""
    console = Console(stderr=True, quiet=not shown)
    columns = (BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), TimeRemainingColumn())
    with Display(*columns, console=console, disable=not console.is_terminal) as display:
        task = display.add_task("training", total=1.0)

        def progress(at: Progress) -> None:
            said = f"step {at.step:,} of {at.steps:,}  loss {at.loss:.4f}"
            said += "" if at.validation is None else f"  validation {at.validation:.4f}"
            display.update(task, completed=at.done, description=said)
            if not console.is_terminal:
                console.print(f"{at.done:4.0%} {at.elapsed_s:7.1f} s  {said}", highlight=False)

        yield progress


def _parser() -> argparse.ArgumentParser:
    standard = {each.name: each.default for each in fields(TrainArguments)}
    parser = argparse.ArgumentParser(prog="python -m models.train_from_shards", description="Train a generator.")
    parser.add_argument("examples", type=Path, help="Folder of examples.")
    parser.add_argument("--codes", type=Path, required=True, help="Paths of the catalogue, .npy.")
    parser.add_argument("--out", type=Path, required=True, help="Where weights, curve and checkpoint go.")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="small", help="Shape and learning rate.")
    parser.add_argument("--codebook-size", type=int, default=64, help="Codes per level of the tokenizer.")
    parser.add_argument("--validation", type=Path, help="Folder of later examples; the best weights on them are kept.")
    parser.add_argument("--patience", type=int, help="Validations without a better one before training ends.")
    parser.add_argument("--start", type=Path, help="Weights to go on from.")
    parser.add_argument("--epochs", type=float, default=standard["epochs"])
    parser.add_argument("--seconds", type=float, default=standard["train_s"], help="Limit of the whole run.")
    parser.add_argument("--batch-size", type=int, default=standard["batch_size"])
    parser.add_argument("--micro-batch", type=int, help="Requests at once in one process.")
    parser.add_argument("--learning-rate", type=float, help="Peak; the preset's when left out.")
    parser.add_argument("--averaged", type=float, default=0.0, help="Share of the run whose weights are averaged.")
    parser.add_argument("--precision", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--compiled", action="store_true", help="torch.compile first; CUDA only.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every-s", type=float, default=60.0, help="Seconds between checkpoints.")
    parser.add_argument("--every-steps", type=int, default=1_000_000_000, help="Steps between checkpoints.")
    return parser


def _load(path: Path, args: TrainArguments) -> Generator:
    generator = Generator(args.config)
    try:
        generator.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError) as error:
        raise ArtefactError(
            f"{path}: found no weights of this shape ({error}); name those of the same preset"
        ) from None
    return generator


def _whole(source: ExampleShards) -> Examples:
    """All examples of a source, in memory."""
    return joined_examples(list(source.batches(1 << 16, seed=0, epoch=0)))


if __name__ == "__main__":
    main()
