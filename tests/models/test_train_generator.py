"""Training learns what can be learned, is a function of its arguments, and ends in time."""

import numpy as np
import numpy.typing as npt
import pytest
import torch

from core.errors import InputError
from models.metrics import NOT_RANKED, recall_at
from models.train_generator import Examples, Progress, TrainArguments, target_ranks, train_generator
from models.trie import Trie, build_trie
from tests.models.worlds import random_context, random_paths, small_config

SIZE, ITEMS = 5, 30
CODES = random_paths(np.random.default_rng(0), ITEMS, SIZE)


def next_is_the_last(requests: int, seed: int) -> Examples:
    """The item to find is the newest one of the history: the clearest rule there is."""
    rng = np.random.default_rng(seed)
    context = random_context(rng, requests, SIZE)
    items = rng.integers(0, ITEMS, requests)
    mask = np.zeros_like(context.mask)
    mask[:, 0] = True
    context.codes[:, 0] = CODES[items]
    return Examples(context._replace(mask=mask), items[:, None].astype(np.int32))


def arguments(**changes: float) -> TrainArguments:
    shape = small_config(SIZE, d_model=32)
    return TrainArguments(**{"config": shape, "epochs": 12, "token_dropout": 0.0, "weight_decay": 0.0} | changes)  # type: ignore[arg-type]


def whole_trie() -> Trie:
    return build_trie(CODES, ITEMS, codebook_size=SIZE)


def test_it_learns_that_the_next_item_is_the_last_one() -> None:
    trained = train_generator(next_is_the_last(400, 0), CODES, arguments(epochs=15, batch_size=32))
    ranks = target_ranks(trained.generator, next_is_the_last(100, 1), whole_trie(), beam_width=10, batch_size=64)
    assert recall_at(ranks, 1) > 0.9
    assert trained.curve[-1].loss < 0.5 * trained.curve[0].loss


def test_equal_arguments_give_equal_weights_and_another_seed_gives_others() -> None:
    examples = next_is_the_last(200, 0)
    first, second, other = (
        train_generator(examples, CODES, arguments(epochs=1, seed=seed, token_dropout=0.3)).generator.state_dict()
        for seed in (0, 0, 1)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["code_tables"], other["code_tables"])


def test_the_time_limit_ends_training_with_the_schedule_at_its_end() -> None:
    clock = iter(np.arange(0.0, 1e6, 0.5))
    trained = train_generator(
        next_is_the_last(64, 0),
        CODES,
        arguments(epochs=1000, train_s=10.0, batch_size=32),
        monotonic_s=lambda: float(next(clock)),
    )
    last = trained.curve[-1]
    assert (trained.seconds, last.step, last.steps, last.done) == (10.0, 20, 2000, 1.0)
    assert len(trained.curve) == 20


def test_progress_is_told_at_every_twentieth() -> None:
    told: list[Progress] = []
    trained = train_generator(next_is_the_last(100, 0), CODES, arguments(epochs=4, batch_size=10), progress=told.append)
    assert told == trained.curve
    assert [report.step for report in told] == list(range(2, 41, 2))
    assert [report.done for report in told] == pytest.approx(np.arange(1, 21) / 20)


def test_padding_targets_are_not_learned_from() -> None:
    examples = next_is_the_last(64, 0)
    padded = Examples(examples.context, np.concatenate([examples.items, np.full((64, 2), -1, np.int32)], axis=1))
    plain, wide = (
        train_generator(each, CODES, arguments(epochs=2, batch_size=32)).generator.state_dict()
        for each in (examples, padded)
    )
    assert all(torch.allclose(plain[name], wide[name], atol=1e-4) for name in plain)


def test_no_examples_is_said() -> None:
    nothing = Examples(random_context(np.random.default_rng(0), 0, SIZE), np.zeros((0, 1), np.int32))
    with pytest.raises(InputError, match="found no examples"):
        train_generator(nothing, CODES, arguments())


@pytest.mark.parametrize("changes", [{"epochs": 0}, {"train_s": 0.0}, {"batch_size": 0}])
def test_arguments_that_cannot_be_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(InputError, match="expected positive numbers"):
        arguments(**changes)


def test_a_target_that_may_not_be_shown_is_not_ranked() -> None:
    examples = next_is_the_last(20, 2)
    live: npt.NDArray[np.bool_] = np.arange(ITEMS) % 2 == 0
    trie = build_trie(CODES, ITEMS, codebook_size=SIZE, live=live)
    trained = train_generator(examples, CODES, arguments(epochs=1))
    ranks = target_ranks(trained.generator, examples, trie, beam_width=ITEMS)
    assert ((ranks == NOT_RANKED) == ~live[examples.items[:, 0]]).all()
