"""RQ-VAE: the residual quantizer that learns its own space, beside residual k-means for comparison.

Letters used in this file
    I items   D width of a vector   Z width of the latent space   L levels   V codes of one level

Not published with a version: its encoder would have to be served. Paths are made in the latent space by the same
collision rule, so only the quantizers differ.

Source: TIGER, arXiv:2305.05065 §3.1. Kept: losses, k-means start of the codebooks. Changed: codes without an item
begin anew at a random residual after every pass (else most of a large codebook dies); smaller layers.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from core.errors import InputError
from models.codebook_training import fit_codebook
from models.k_means import Floats
from models.semantic_ids import Codebook


@dataclass(frozen=True)
class RqVaeArgs:
    """How it is trained."""

    hidden: int = 128
    """Width between vectors and latent space."""
    latent: int = 32
    """Z."""
    epochs: int = 60
    """Passes over the items."""
    batch: int = 1024
    """Items of a step."""
    learning_rate: float = 1e-3
    """Of AdamW."""
    commitment: float = 0.25
    """Weight of the loss that keeps latents at their codes."""


class Quantized(NamedTuple):
    """What was learned. `models.semantic_ids.assign_paths(latents, codebook)` gives the paths."""

    latents: Floats  # (I, Z)
    codebook: Codebook  # (L, V, Z)
    error: float  # mean squared distance of a vector and its decoded nearest path


class RqVae(nn.Module):
    """Encoder, residual codebooks, decoder."""

    def __init__(self, width: int, args: RqVaeArgs, *, levels: int, size: int) -> None:
        super().__init__()
        self.encoder = _layers(width, args.hidden, args.latent)
        self.decoder = _layers(args.latent, args.hidden, width)
        self.codebooks = nn.Parameter(torch.zeros(levels, size, args.latent))

    def quantize(self, latents: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Per level: (n, Z) the residual, (n, Z) its nearest code's vector, (n,) the code."""
        residual = latents
        for codes in self.codebooks:
            nearest = torch.cdist(residual.detach(), codes.detach()).argmin(dim=1)
            found = codes[nearest]
            yield residual, found, nearest
            residual = residual - found.detach()

    def loss(self, vectors: Tensor, commitment: float) -> Tensor:
        """Squared error of what is decoded, of the codes and of the latents, a mean over the vectors."""
        latents = self.encoder(vectors)
        spelled, loss = torch.zeros_like(latents), torch.zeros(())
        for residual, found, _ in self.quantize(latents):
            spelled = spelled + found
            loss = loss + _squared(residual.detach(), found) + commitment * _squared(residual, found.detach())
        through = latents + (spelled - latents).detach()  # gradients pass the quantizer by
        return loss + _squared(self.decoder(through), vectors)


def fit_rq_vae(vectors: Floats, rng: np.random.Generator, args: RqVaeArgs, *, levels: int, size: int) -> Quantized:
    """The quantizer of `vectors` (I, D), a function of them and the generator's state.

    Raises:
        InputError: there are no vectors, or one is not finite.
    """
    if not len(vectors) or not np.isfinite(vectors).all():
        raise InputError(f"found {len(vectors)} vectors, expected at least one and only finite numbers")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(1 << 31)))
        model = RqVae(vectors.shape[1], args, levels=levels, size=size)
        rows = torch.from_numpy(vectors)
        optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate)
        _start_codes(model, rows, rng)
        for _ in range(args.epochs):
            for batch in torch.split(torch.randperm(len(rows)), args.batch):
                optimizer.zero_grad(set_to_none=True)
                model.loss(rows[batch], args.commitment).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            _revive(model, rows)
    with torch.no_grad():
        latents = model.encoder(rows)
        spelled = torch.stack([found for _, found, _ in model.quantize(latents)]).sum(dim=0)
        error = float(_squared(model.decoder(spelled), rows))
        return Quantized(latents.numpy(), Codebook(model.codebooks.detach().numpy().copy()), error)


def _start_codes(model: RqVae, rows: Tensor, rng: np.random.Generator) -> None:
    with torch.no_grad():
        latents = model.encoder(rows).numpy()
        levels, size, _ = model.codebooks.shape
        started = fit_codebook(latents, rng, levels=levels, size=size).codebook
        model.codebooks.copy_(torch.from_numpy(started.centroids))


def _revive(model: RqVae, rows: Tensor) -> None:
    """Codes that no item has stand at residuals drawn at random."""
    with torch.no_grad():
        for level, (residual, _, nearest) in enumerate(model.quantize(model.encoder(rows))):
            used = torch.bincount(nearest, minlength=model.codebooks.shape[1])
            dead = torch.nonzero(used == 0).flatten()
            model.codebooks[level, dead] = residual[torch.randint(len(rows), (len(dead),))]


def _layers(*widths: int) -> nn.Sequential:
    steps: list[nn.Module] = []
    for before, after in pairwise(widths):
        steps += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*steps[:-1])


def _squared(one: Tensor, other: Tensor) -> Tensor:
    return functional.mse_loss(one, other, reduction="sum") / len(one)
