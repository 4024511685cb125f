"""This project's generator as a model of the harness: tokenizer, training, export, and the exported graph's answers.

What is scored is what serves: the graph in ONNX Runtime, with its beams and its trie. Items that no beam found are
not ranked.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch

from benchmarks.quality.contexts import contexts, learnable, own_evidence
from benchmarks.quality.split import Floats, Ints, Longs, Split, good_sequences
from core.ids import item_key
from models.catalog import Catalog
from models.checkpoints import Checkpoints
from models.evidence import RECENCY, Lent, Neighbours
from models.examples import Examples
from models.export import export_generator
from models.generator import Generator, begun
from models.generator_config import GeneratorConfig
from models.neighbours import POPULARITY_POWER, neighbour_tables
from models.newcomers import Newcomers
from models.runtime import OnnxGenerator
from models.train_arguments import TrainArguments
from models.train_generator import Progress, train_generator
from models.train_semantic_ids import SemanticIdArgs, train_semantic_ids
from models.trie import Trie
from protos.catalog.v1.catalog_pb2 import CatalogRecord, Item

_MADE_BY: Final = 7  # raised with every change of the models that gives other graphs: older ones are not read again
_GOLDEN: Final = 64  # requests that the export is checked with
_WORDS: Final = 0.3  # what the words of new items count; chosen at the valid stage of beauty-cold, see docs/log.md


@dataclass(frozen=True)
class GenerativeArgs:
    """Everything that decides what a run gives, besides data and seed."""

    beam_width: int = 64
    recency: float = RECENCY  # of evidence
    train: TrainArguments = field(
        default_factory=lambda: TrainArguments(
            config=GeneratorConfig(
                codebook_size=256,
                d_model=96,
                layers=2,
                heads=4,
                kv_groups=4,
                tokens=20,
                context_blocks=1,
                item_head=True,
                prior=True,
                items=1,
                dropout=0.3,
            ),
            epochs=12.0,
            train_s=2400.0,
            batch_size=256,
            learning_rate=2e-3,
            weight_decay=0.05,
            token_dropout=0.1,
            item_loss=1.0,
            averaged=0.5,
        )
    )


class Found(NamedTuple):
    """What the beams of B requests found."""

    items: Ints  # (B, K) catalogue index, -1 = no beam
    log_probs: Floats  # (B, K)
    item_logits: Floats  # (B, K)


class Generative:
    """The exported graph.

    Args:
        kept: folder where graphs are kept, by what made them.
        item_weight: of the item head's logits, added to the log-probability of the beam; 0 = the generator alone.
        say: receives a line per step.
    """

    def __init__(
        self, name: str, args: GenerativeArgs, kept: Path, item_weight: float, say: Callable[[str], None]
    ) -> None:
        self.name = name
        self._args, self._kept, self._item_weight, self._say = args, kept, item_weight, say
        self._catalog: Catalog | None = None
        self._graph: OnnxGenerator | None = None
        self._folder: Path | None = None
        self._config = args.train.config
        self._tables: tuple[Neighbours, ...] = ()
        self._lent: Lent | None = None

    def fit(self, split: Split, seed: int) -> None:
        """Trains tokenizer and generator and exports them, or reads what an equal run has left. New items get their
        codes from the trained tokenizer, as in a catalogue that goes on."""
        sequences, known = good_sequences(split), split.items[: len(split.items) - split.new]
        self._catalog = _catalog_of(split, known, sequences, self._args.train.config.codebook_size, seed)
        self._tables, self._lent = neighbour_tables(known, sequences, self._args.recency), None
        train = self._args.train
        self._config = replace(train.config, items=len(known), words=_WORDS if split.new else 0.0)
        train = replace(train, seed=seed, config=self._config)
        self._folder = folder = self._kept / _digest(split, self._catalog, train, self._args)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "weights.pt").exists():
            self._train(split, train, folder)
        if not self._model.exists():
            self._export(split)
        if split.new:  # they join as they would where the graph serves
            newcomers = Newcomers(split.items, self._tables, len(split.items))
            self._tables, self._lent = newcomers.tables, newcomers.lent
        self._graph = OnnxGenerator.load(self._model, threads=1)

    @property
    def catalog(self) -> Catalog:
        """The items with their codes."""
        assert self._catalog is not None, "fit comes first"
        return self._catalog

    def with_value_head(self) -> Generator:
        """The trained weights, and a value head that knows nothing yet."""
        return self._generator(value_items=self._config.items)

    def scores(self, split: Split, asked: Longs) -> Floats:
        """Log-probability of the beam, with the item head's opinion by its weight; -inf without a beam."""
        beams = self.beams(split, split.asked[asked])
        scores = np.full((len(asked), len(split.items)), -np.inf, np.float32)
        rows, ranks = np.nonzero(beams.items >= 0)
        found = beams.log_probs + self._item_weight * beams.item_logits
        scores[rows, beams.items[rows, ranks]] = found[rows, ranks]
        return scores

    def beams(self, split: Split, acts: Longs) -> "Found":
        """The graph's answers for these acts; from disk when it was asked before, since only the weight differs."""
        assert self._graph is not None and self._folder is not None, "fit comes first"
        asked = hashlib.blake2b(self._model.name.encode() + acts.tobytes(), digest_size=8)
        if split.ranked is not None:
            asked.update(split.ranked.tobytes())
        if self._lent is not None:
            asked.update(self._lent.shares.tobytes())
        kept = self._folder / f"beams-{asked.hexdigest()}.npz"
        if kept.exists():
            with np.load(kept) as arrays:
                return Found(*(arrays[field] for field in Found._fields))
        tokens = self._args.train.config.tokens
        context = contexts(split, acts, self.catalog.codes, tokens, self._tables, lent=self._lent)
        beams = self._graph.generate(context, self._candidates(split))
        found = Found(beams.items, beams.masked_log_probs.sum(-1), beams.item_logits)
        partial = kept.with_suffix(".partial.npz")
        np.savez(partial, allow_pickle=False, **found._asdict())
        partial.replace(kept)
        return found

    def _candidates(self, split: Split) -> Trie:
        catalog = self.catalog
        return catalog.trie if split.ranked is None else catalog.trie_of(np.flatnonzero(split.ranked).astype(np.int32))

    def _train(self, split: Split, train: TrainArguments, folder: Path) -> None:
        assert self._catalog is not None, "the tokenizer comes first"
        catalog = self._catalog
        acts = learnable(split)
        own = own_evidence(split, acts, POPULARITY_POWER, self._args.recency)
        context = contexts(split, acts, catalog.codes, train.config.tokens, self._tables, own, split.learn)
        examples = Examples(context, split.events.items[acts][:, None])
        self._say(f"{self.name}: {len(acts):,} examples")

        def progress(at: Progress) -> None:
            self._say(f"{self.name}: {at.done:.0%}, step {at.step}, loss {at.loss:.3f}, {at.elapsed_s:.0f} s")

        trained = train_generator(
            examples,
            catalog.codes,
            train,
            trie=catalog.trie_of_targets(split.events.items[acts]),
            generator=begun(train.config, catalog.vectors[: train.config.items], train.seed),
            checkpoints=Checkpoints(folder / "checkpoint.pt", every_s=120.0),
            progress=progress,
        )
        partial = folder / "partial.pt"
        torch.save(trained.generator.state_dict(), partial)
        partial.replace(folder / "weights.pt")

    def _export(self, split: Split) -> None:
        catalog = self.catalog
        golden = contexts(split, split.asked[:_GOLDEN], catalog.codes, self._config.tokens, self._tables)
        partial = self._model.with_suffix(".partial.onnx")
        export_generator(self._generator(), partial, golden, catalog.trie, beam_width=self._args.beam_width)
        partial.replace(self._model)

    def _generator(self, value_items: int = 0) -> Generator:
        assert self._folder is not None, "fit comes first"
        generator = Generator(replace(self._config, value_items=value_items))
        generator.load_state_dict(torch.load(self._folder / "weights.pt", weights_only=True), strict=not value_items)
        return generator.eval()

    @property
    def _model(self) -> Path:
        assert self._folder is not None, "fit comes first"
        return self._folder / f"model-{self._config.new_items:g}.onnx"


def _catalog_of(split: Split, known: Sequence[Item], sequences: list[Ints], codebook_size: int, seed: int) -> Catalog:
    """All items in their order; the tokenizer has learned from the known ones."""
    keys = np.array([item_key(item.item_id) for item in known], np.int64)
    ids = SemanticIdArgs(codebook_size=codebook_size, capacity=len(split.items), seed=seed)
    catalog = train_semantic_ids(known, [keys[sequence] for sequence in sequences], ids).catalog
    new, version = split.items[len(known) :], catalog.tokenizer.version
    paths = catalog.assign(new)
    catalog.apply(
        CatalogRecord(item=item, tokenizer_version=version, codes=path) for item, path in zip(new, paths, strict=True)
    )
    return catalog


def _digest(split: Split, catalog: Catalog, train: TrainArguments, args: GenerativeArgs) -> str:
    decided = asdict(train)
    for later in ("value_items", "new_items"):  # a head that is trained apart, and what evidence counts when it serves
        del decided["config"][later]
    told = [_MADE_BY, decided, args.beam_width, args.recency, split.mask_seen, split.time_known]
    made = hashlib.blake2b(json.dumps(told).encode(), digest_size=8)
    for column in (*split.events, split.learn, catalog.codes):
        made.update(np.ascontiguousarray(column).tobytes())
    return made.hexdigest()
