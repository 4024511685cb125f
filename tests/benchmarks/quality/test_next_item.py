"""The trained baselines: their loss is the textbook's, every act is a target once, and they learn the obvious."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.optim.optimizer import register_optimizer_step_post_hook

from benchmarks.quality.evaluation import evaluate
from benchmarks.quality.hstu import Hstu
from benchmarks.quality.next_item import NextItem, NextItemArgs, Reader, SoftmaxLoss, training_windows
from benchmarks.quality.sasrec import Sasrec
from benchmarks.quality.split import Split, ordered
from models.metrics import recall_at
from tests.benchmarks.quality.worlds import ITEMS, walks

SMALL = NextItemArgs(width=16, dropout=0.0, length=5, epochs=40, batch=8, learning_rate=0.02)
READERS = [Sasrec, Hstu]


def test_the_loss_and_its_gradients_are_those_of_cross_entropy() -> None:
    torch.manual_seed(0)
    states = torch.randn(6, 4, requires_grad=True)
    table = torch.randn(9, 4, requires_grad=True)
    targets = torch.randint(9, (6,))
    (2 * F.cross_entropy(states @ table.T, targets)).backward()
    expected = states.grad, table.grad
    states.grad = table.grad = None
    loss = SoftmaxLoss.apply(states, table, targets)
    torch.testing.assert_close(loss, F.cross_entropy(states @ table.T, targets))
    (2 * loss).backward()
    torch.testing.assert_close((states.grad, table.grad), expected)


@pytest.mark.parametrize("length", [1, 3, 4, 50])
def test_every_learned_act_but_a_users_first_is_a_target_once(length: int) -> None:
    rng = np.random.default_rng(length)
    users = np.sort(rng.integers(9, size=60))
    events = ordered(users, rng.integers(5, size=60), np.arange(60), rng.random(60) < 0.8)
    learn = rng.random(60) < 0.7
    split = walks()._replace(events=events, learn=learn, asked=np.flatnonzero(~learn))
    windows = training_windows(split, length)
    assert windows.shape[1] == length + 1
    targets = windows[:, 1:][(windows[:, 1:] >= 0) & (windows[:, :-1] >= 0)]
    kept = np.flatnonzero(learn & events.good)
    expected = [act for place, act in enumerate(kept) if place and users[kept[place - 1]] == users[act]]
    assert sorted(targets.tolist()) == expected
    for window in windows:
        own = window[window >= 0]
        assert len(set(users[own])) == 1
        assert (np.diff(own) > 0).all()


@pytest.mark.parametrize("reader", READERS)
def test_people_who_walk_in_order_are_foreseen(reader: type[Reader], tmp_path: Path) -> None:
    split = walks()
    model = NextItem("walker", reader, SMALL, tmp_path)
    model.fit(split, 0)
    assert recall_at(evaluate(model, split).ranks, 1) > 0.9


@pytest.mark.parametrize("reader", READERS)
def test_trained_weights_are_found_again_and_only_for_equal_acts(reader: type[Reader], tmp_path: Path) -> None:
    split, few = walks(), NextItemArgs(width=8, epochs=1, length=5)
    lines: list[str] = []
    first = NextItem("walker", reader, few, tmp_path, lines.append)
    first.fit(split, 0)
    again = NextItem("walker", reader, few, tmp_path, lines.append)
    again.fit(split, 0)
    assert len(lines) == 1
    asked = np.arange(3)
    np.testing.assert_array_equal(first.scores(split, asked), again.scores(split, asked))
    again.fit(walks(seed=1), 0)
    again.fit(split, 1)
    assert len(lines) == 3


def test_averaged_weights_are_the_mean_of_those_after_each_of_the_last_steps(tmp_path: Path) -> None:
    after: list[list[torch.Tensor]] = []

    def keep(optimizer: torch.optim.Optimizer, *_: object) -> None:
        after.append([weight.detach().clone() for weight in optimizer.param_groups[0]["params"]])

    hook = register_optimizer_step_post_hook(keep)
    try:
        NextItem("walker", Sasrec, replace(SMALL, epochs=3, averaged=0.5), tmp_path).fit(walks(), 0)
    finally:
        hook.remove()
    (kept,) = tmp_path.glob("*.pt")
    last = after[len(after) // 2 :]
    assert len(last) > 2
    mean = [torch.stack(weights).mean(dim=0) for weights in zip(*last, strict=True)]
    torch.testing.assert_close(list(torch.load(kept, weights_only=True).values()), mean)


@pytest.mark.parametrize("reader", READERS)
def test_no_score_reads_the_sample_or_what_follows_it(reader: type[Reader], tmp_path: Path) -> None:
    split = walks()
    model = NextItem("walker", reader, NextItemArgs(width=8, epochs=1, length=5), tmp_path)
    model.fit(split, 0)
    expected = model.scores(split, np.arange(4))
    items = split.events.items.copy()
    items[split.asked] = (items[split.asked] + 1) % ITEMS
    np.testing.assert_array_equal(model.scores(_with_items(split, items), np.arange(4)), expected)


@pytest.mark.parametrize("reader", READERS)
def test_a_place_reads_only_what_stands_before_it(reader: type[Reader]) -> None:
    torch.manual_seed(0)
    network = reader(ITEMS, NextItemArgs(width=8, dropout=0.0)).eval()
    items, at_s = torch.randint(ITEMS, (2, 6)), torch.arange(12).view(2, 6) * 1_000
    changed = items.clone()
    changed[:, 4:] = (changed[:, 4:] + 1) % ITEMS
    torch.testing.assert_close(network(items, at_s)[:, :4], network(changed, at_s)[:, :4])
    assert not torch.allclose(network(items, at_s)[:, 4:], network(changed, at_s)[:, 4:])


def _with_items(split: Split, items: np.ndarray) -> Split:
    return split._replace(events=split.events._replace(items=items))
