"""One policy update: from the weights that serve, a few steps on what people chose and what was shown.

    loss = NLL(what people chose by themselves) + policy_weight * GBPO(what was shown, and what it was worth)

where the NLL is that of the codes and, where there is an item head, by its weight that of the item among all.

The supervised loss stays on: reward alone lets legal tokens sink (OneRec, arXiv:2506.13695, on the
squeezing effect). Log-probabilities are those of the serving policy, renormalised over the tokens
that lead to a live item, as the logged ones are. No term pulls towards the old weights, since the
supervised loss does; how far the policy moved is measured and reported.

Source: OneRec-V2 (arXiv:2508.20900). Kept: GBPO, advantages +1 and -1, joint supervised loss. The
paper names neither learning rate nor weight nor period: the defaults below were chosen here.
"""

import copy
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from core.errors import ArtefactError, InputError
from models.batches import Ints
from models.beam import legal_tokens
from models.catalog import Catalog
from models.context_processor import ContextTensors, context_tensors
from models.examples import Examples
from models.generator import Generator
from models.generator_config import GeneratorConfig
from models.losses import generation_loss, item_loss, token_log_probs
from models.registry import WEIGHTS_FILE
from models.trie_tensors import TrieTensors, trie_tensors
from protos.registry.v1.manifest_pb2 import ModelManifest
from rl.dataset import RolloutBatch
from rl.objectives import gbpo

_PROBE: Final = 512  # examples, and requests, that an update is measured on


@dataclass(frozen=True)
class UpdateArguments:
    """Everything that decides what an update gives, besides its data; stored in the manifest."""

    steps: int = 60
    """Optimiser steps."""
    update_s: float = 40.0
    """Wall-clock limit; the steps that were made are the update."""
    requests: int = 64
    """Served requests in a step, each with all its slots."""
    examples: int = 128
    """Supervised examples in a step."""
    learning_rate: float = 1e-4
    """A sixtieth of the first training's peak: an update corrects, it does not retrain. At 3e-4 the same steps cost
    twice the expected reward and a tenth of the coverage."""
    item_loss: float = 0.3
    """Of the item head, nats an item, beside the loss of the codes; as in `TrainArguments`."""
    policy_weight: float = 0.1
    """GBPO beside the supervised loss. Advantages have no baseline: what is shown often is praised often, so a
    large weight narrows what is shown. At 2.0 the gate's coverage floor refused the update, at 0.1 it does not."""
    gradient_norm: float = 1.0
    """Gradients are clipped to this norm."""
    max_positives: int = 8_192
    """Supervised examples kept, the newest."""
    seed: int = 0
    """Of the order of samples, and of what is hidden at a step."""

    def __post_init__(self) -> None:
        if min(self.steps, self.requests, self.examples, self.max_positives) < 1 or self.update_s <= 0:
            raise InputError(f"found {self}, expected positive numbers")


class UpdateReport(NamedTuple):
    """What an update did. Every number goes into the manifest's metrics under its name."""

    steps: int
    seconds: float
    requests: int
    positives: int  # shown items with advantage +1
    negatives: int  # with -1
    examples: int  # supervised
    supervised_loss_before: float  # nats a code
    supervised_loss_after: float
    liked_log_prob_before: float | None  # mean of shown tokens with advantage +1, nats, masked; None when none
    liked_log_prob_after: float | None
    disliked_log_prob_before: float | None  # with -1; None when there are none
    disliked_log_prob_after: float | None
    gradient_norm: float  # mean over the steps, before clipping
    gradient_norm_max: float
    kl: float  # KL(serving || updated), nats a token, over the shown items' legal tokens
    ratio_max: float | None  # largest pi / pi_old of a shown token after the update; None where pi_old is unknown


class Updated(NamedTuple):
    """What an update gives."""

    generator: Generator
    report: UpdateReport


class _Shown(NamedTuple):
    """R requests as tensors."""

    context: ContextTensors
    codes: Tensor  # (R, k, L)
    legal: Tensor  # (R, k, L, V)
    logged: Tensor  # (R, k, L) NaN = unknown
    advantage: Tensor  # (R, k) 0 for padding and for items that the trie does not reach now
    trie: TrieTensors  # what a prior is spread over

    def take(self, rows: Tensor) -> "_Shown":
        return _Shown(
            self.context.take(rows),
            self.codes[rows],
            self.legal[rows],
            self.logged[rows],
            self.advantage[rows],
            self.trie,
        )


def load_weights(folder: Path, manifest: ModelManifest) -> Generator:
    """The generator of a version, as it was trained.

    Raises:
        ArtefactError: the version holds no weights, or none of the shape that its manifest names.
    """
    path = folder / WEIGHTS_FILE
    try:
        config = GeneratorConfig(**json.loads(manifest.training_arguments_json)["generator"]["config"])
        generator = Generator(config)
        generator.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ArtefactError(f"{path}: found no weights to go on from ({error}); train and publish a version") from None
    return generator.eval()


def update(
    serving: Generator,
    shown: RolloutBatch,
    examples: Examples,
    catalog: Catalog,
    args: UpdateArguments,
    *,
    monotonic_s: Callable[[], float] = time.monotonic,
) -> Updated:
    """The weights after one update; `serving` is left as it is.

    Raises:
        InputError: there is nothing to learn from: no shown item with an advantage, or no example.
    """
    rollout, (targets, weights) = _shown(shown, catalog), _targets(examples.items, catalog.codes)
    useful = torch.nonzero((rollout.advantage != 0).any(dim=1)).flatten()
    if not len(useful) or not len(targets):
        raise InputError(
            f"found {len(useful)} requests with an advantage and {len(targets)} supervised examples, "
            "expected some of both; wait for more outcomes"
        )
    context = context_tensors(examples.context)
    generator = copy.deepcopy(serving).eval()
    optimizer = torch.optim.AdamW(generator.parameters(), lr=args.learning_rate, weight_decay=0.0)
    chance = torch.Generator().manual_seed(args.seed)

    items = torch.from_numpy(examples.items)
    known = torch.from_numpy(catalog.codes[: serving.config.items]) if serving.config.item_head else None

    def supervised_loss(rows: Tensor, catalogue: Tensor | None = None) -> Tensor:
        found = generator.decode(context.take(rows), targets[rows], rollout.trie, catalogue)
        loss = generation_loss(found.logits, targets[rows], weights=weights[rows])
        return loss if found.item_logits is None else loss + args.item_loss * item_loss(found.item_logits, items[rows])

    probe, seen = _some(len(targets), _PROBE, chance), rollout.take(useful[_some(len(useful), _PROBE, chance)])
    with torch.no_grad():
        loss_before, log_probs_before = float(supervised_loss(probe)), _advantage_log_probs(generator, seen)
    norms: list[float] = []
    generator.train()
    torch.manual_seed(args.seed)  # of what is hidden at a step
    started_s = monotonic_s()
    for _ in range(args.steps):
        rows = _some(len(targets), args.examples, chance)
        requests = useful[_some(len(useful), args.requests, chance)]
        loss = supervised_loss(rows, known) + args.policy_weight * _policy_loss(generator, rollout.take(requests))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norms.append(float(torch.nn.utils.clip_grad_norm_(generator.parameters(), args.gradient_norm)))
        optimizer.step()
        if monotonic_s() - started_s > args.update_s:
            break
    seconds = monotonic_s() - started_s
    generator.eval()
    with torch.no_grad():
        loss_after, log_probs_after = float(supervised_loss(probe)), _advantage_log_probs(generator, seen)
        kl, ratio_max = _movement(serving, generator, seen)
    report = UpdateReport(
        steps=len(norms),
        seconds=seconds,
        requests=len(useful),
        positives=int((rollout.advantage > 0).sum()),
        negatives=int((rollout.advantage < 0).sum()),
        examples=len(targets),
        supervised_loss_before=loss_before,
        supervised_loss_after=loss_after,
        liked_log_prob_before=log_probs_before[0],
        liked_log_prob_after=log_probs_after[0],
        disliked_log_prob_before=log_probs_before[1],
        disliked_log_prob_after=log_probs_after[1],
        gradient_norm=float(np.mean(norms)),
        gradient_norm_max=max(norms),
        kl=kl,
        ratio_max=ratio_max,
    )
    return Updated(generator, report)


def _shown(batch: RolloutBatch, catalog: Catalog) -> _Shown:
    codes = catalog.codes[np.where(batch.items >= 0, batch.items, 0)]
    legal = legal_tokens(catalog.trie, codes, catalog.tokenizer.codebook.size)
    reached = np.take_along_axis(legal, codes[..., None].astype(np.int64), axis=-1)[..., 0].all(axis=-1)
    return _Shown(
        context=context_tensors(batch.context),
        codes=torch.from_numpy(codes),
        legal=torch.from_numpy(legal),
        logged=torch.from_numpy(batch.log_probs),
        advantage=torch.from_numpy(np.where(reached, batch.advantage, np.float32(0.0))),
        trie=trie_tensors(catalog.trie),
    )


def _targets(items: Ints, codes: Ints) -> tuple[Tensor, Tensor]:
    """(n, k, L) codes and (n, k) weights; padding has weight 0."""
    real = items >= 0
    return torch.from_numpy(codes[np.where(real, items, 0)]), torch.from_numpy(real.astype(np.float32))


def _policy_loss(generator: Generator, shown: _Shown) -> Tensor:
    told = shown.advantage != 0
    return gbpo(_log_probs(generator, shown)[told], shown.logged[told], shown.advantage[told])


def _advantage_log_probs(generator: Generator, shown: _Shown) -> tuple[float | None, float | None]:
    """Mean log-probability of shown tokens with advantage +1, and with -1. GBPO moves these; its value is capped."""
    found = _log_probs(generator, shown)
    liked, disliked = found[shown.advantage > 0], found[shown.advantage < 0]
    return (float(liked.mean()) if len(liked) else None), (float(disliked.mean()) if len(disliked) else None)


def _log_probs(generator: Generator, shown: _Shown) -> Tensor:
    """(R, k, L) under the serving policy's mask."""
    return token_log_probs(generator(shown.context, shown.codes, shown.trie), shown.codes, shown.legal).masked


def _movement(serving: Generator, updated: Generator, shown: _Shown) -> tuple[float, float | None]:
    """Mean KL of a token's legal choices, and the largest ratio to a logged probability, over items with advantage."""
    told = shown.advantage != 0
    legal, codes = shown.legal[told], shown.codes[told].long()[..., None]
    old, new = (
        torch.log_softmax(model(shown.context, shown.codes, shown.trie)[told].masked_fill(~legal, -1e9), dim=-1)
        for model in (serving, updated)
    )
    kl = (old.exp() * (old - new)).masked_fill(~legal, 0.0).sum(dim=-1).mean()
    ratio = (new.gather(-1, codes).squeeze(-1) - shown.logged[told]).exp()
    known = ratio[~torch.isnan(ratio)]
    return float(kl), float(known.max()) if len(known) else None


def _some(count: int, wanted: int, chance: torch.Generator) -> Tensor:
    """Row numbers drawn without replacement, all of them when there are no more than wanted."""
    return torch.randperm(count, generator=chance)[:wanted]
