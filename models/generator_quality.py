"""How good a generator is: where it ranks what came, and its loss.

Letters used in this file
    n requests
"""

import numpy as np
import torch

from models.batches import Ints, take_rows
from models.examples import Examples, ExamplesInMemory
from models.export import beams_of
from models.generator import Generator
from models.losses import generation_loss
from models.metrics import Ranks, ranks_in_beams
from models.training_step import batch_of
from models.trie import Trie
from models.trie_tensors import trie_tensors


def target_ranks(
    generator: Generator, examples: Examples, trie: Trie, *, beam_width: int, batch_size: int = 256
) -> Ranks:
    """(n,) rank of each request's first target among its beams, by the search that serves."""
    chunks = [slice(start, start + batch_size) for start in range(0, len(examples.items), batch_size)]
    ranks = [
        ranks_in_beams(
            beams_of(generator, take_rows(examples.context, chunk), trie, beam_width), examples.items[chunk, 0]
        )
        for chunk in chunks
    ]
    return np.concatenate(ranks) if ranks else np.zeros(0, np.int64)


def mean_loss(
    generator: Generator, examples: Examples, codes: Ints, trie: Trie | None = None, *, batch_size: int = 256
) -> float:
    """Nats a code, the mean over all targets: what to validate by. trie: where the generator has a prior."""
    device = next(generator.parameters()).device
    tensors = None if trie is None else trie_tensors(trie, device)
    total, targets = 0.0, 0.0
    with torch.no_grad():
        for each in ExamplesInMemory(examples).batches(batch_size, seed=0, epoch=0):
            batch = batch_of(each, codes).to(device)
            logits = generator(batch.context, batch.codes, tensors)
            share = float(batch.weights.sum())
            total += share * float(generation_loss(logits, batch.codes, weights=batch.weights))
            targets += share
    return total / max(targets, 1.0)
