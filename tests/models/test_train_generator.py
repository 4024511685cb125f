"""Training learns what can be learned, is a function of its arguments, and ends in time."""

import copy
import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from core.errors import InputError
from models.checkpoints import Checkpoints
from models.examples import Examples, ExamplesInMemory
from models.generator import Generator
from models.generator_quality import mean_loss, target_ranks
from models.losses import generation_loss
from models.metrics import NOT_RANKED, recall_at
from models.train_arguments import TrainArguments
from models.train_generator import Progress, Trained, train_generator
from models.training_step import Batch
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


def test_examples_without_a_target_are_no_examples() -> None:
    examples = next_is_the_last(8, 0)
    with pytest.raises(InputError, match="found no examples with a target among 8"):
        train_generator(examples._replace(items=np.full((8, 2), -1, np.int32)), CODES, arguments())


def test_strangers_alone_can_be_learned_from() -> None:
    examples = next_is_the_last(16, 0)
    strangers = examples._replace(context=examples.context._replace(mask=np.zeros_like(examples.context.mask)))
    assert np.isfinite(train_generator(strangers, CODES, arguments(epochs=2)).curve[-1].loss)


def test_what_does_not_fit_is_found_before_the_first_step() -> None:
    examples = next_is_the_last(8, 0)
    noisy = examples.context._replace(place=np.full_like(examples.context.place, np.nan))
    short = dataclasses.replace(arguments().config, tokens=examples.context.mask.shape[1] - 1)
    for found, codes, args, words in (
        (examples._replace(context=noisy), CODES, arguments(), "found NaN"),
        (examples._replace(items=examples.items + ITEMS), CODES, arguments(), "expected items below 30"),
        (examples, CODES + 1, arguments(), "expected 0 to 4"),
        (examples, CODES, dataclasses.replace(arguments(), config=short), "expected at most 79"),
    ):
        with pytest.raises(InputError, match=words):
            train_generator(found, codes, args)
    with pytest.raises(InputError, match="found weights of"):
        train_generator(examples, CODES, arguments(), generator=Generator(short))


def test_the_best_weights_are_kept_and_patience_ends_the_run() -> None:
    examples = next_is_the_last(64, 0)
    said = iter([3.0, 2.0, 2.5, 2.6, 2.7, 0.0])
    seen: list[dict[str, torch.Tensor]] = []

    def validate(generator: Generator) -> float:
        seen.append({name: weight.clone() for name, weight in generator.state_dict().items()})
        return next(said)

    trained = train_generator(examples, CODES, arguments(epochs=20, patience=3), validate=validate)
    assert [report.validation for report in trained.curve] == [3.0, 2.0, 2.5, 2.6, 2.7]
    best = trained.generator.state_dict()
    assert all(torch.equal(best[name], seen[1][name]) for name in best)
    assert trained.curve[-1].done < 1.0


@pytest.mark.parametrize("validated", [True, False])
def test_averaged_weights_are_the_mean_of_those_of_the_last_steps(tmp_path: Path, validated: bool) -> None:
    examples, before, judged = (
        next_is_the_last(100, 0),
        list[dict[str, torch.Tensor]](),
        list[dict[str, torch.Tensor]](),
    )

    def objective(generator: Generator, batch: Batch) -> torch.Tensor:
        before.append(weights_of(generator))
        return generation_loss(generator(batch.context, batch.codes), batch.codes, weights=batch.weights)

    def validate(generator: Generator) -> float:
        judged.append(weights_of(generator))
        return -float(len(judged))

    kept = Checkpoints(tmp_path / "checkpoint.pt")
    trained = train_generator(
        examples,
        CODES,
        arguments(epochs=4, batch_size=20, averaged=0.5),
        objective=objective,
        validate=validate if validated else None,
        checkpoints=kept,
    ).generator
    last = torch.load(kept.path, weights_only=True)["model"]
    assert len(before) == 20
    for name, weight in trained.named_parameters():
        after = [*(each[name] for each in before[11:]), last[name]]  # of steps 11 to 20
        torch.testing.assert_close(weight, torch.stack(after).mean(0), rtol=1e-4, atol=1e-6)
        assert not validated or torch.equal(judged[-1][name], weight)
        assert not validated or torch.equal(judged[9][name], before[10][name]), "judged by what there is to average"


def weights_of(generator: Generator) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in generator.named_parameters()}


def test_where_weights_are_averaged_they_go_on_moving() -> None:
    examples, moved = next_is_the_last(100, 0), dict[float, float]()
    for averaged in (0.0, 0.05):  # of the last step alone
        steps = list[torch.Tensor]()

        def objective(generator: Generator, batch: Batch, steps: list[torch.Tensor] = steps) -> torch.Tensor:
            steps.append(generator.code_tables.detach().clone())
            return generation_loss(generator(batch.context, batch.codes), batch.codes, weights=batch.weights)

        train_generator(examples, CODES, arguments(epochs=4, batch_size=20, averaged=averaged), objective=objective)
        moved[averaged] = float((steps[-1] - steps[-2]).abs().mean())
    assert moved[0.05] > 5 * moved[0.0]


@pytest.mark.parametrize("averaged", [0.0, 0.5])
def test_a_run_that_broke_off_goes_on_to_the_same_curve_and_weights(tmp_path: Path, averaged: float) -> None:
    examples = next_is_the_last(100, 0)
    args = arguments(epochs=4, batch_size=16, token_dropout=0.3, averaged=averaged)
    validations = next_is_the_last(40, 1)

    def run(checkpoints: Checkpoints | None, stop_at: int) -> Trained:
        def progress(at: Progress) -> None:
            if at.step >= stop_at:
                raise KeyboardInterrupt

        return train_generator(
            examples,
            CODES,
            args,
            validate=lambda generator: mean_loss(generator, validations, CODES),
            checkpoints=checkpoints,
            progress=progress,
        )

    whole = run(None, 1000)
    kept = Checkpoints(tmp_path / "checkpoint.pt", every_steps=5)
    for stop_at in (3, 11, 12, 20):
        with pytest.raises(KeyboardInterrupt):
            run(kept, stop_at)
    again = run(kept, 1000)
    after_the_end = run(kept, 0)
    for other in (again, after_the_end):
        assert [report[:3] + report[4:] for report in other.curve] == [
            report[:3] + report[4:] for report in whole.curve
        ]
        weights, expected = other.generator.state_dict(), whole.generator.state_dict()
        assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    examples, kept = next_is_the_last(32, 0), Checkpoints(tmp_path / "checkpoint.pt")
    args = arguments(epochs=1)
    generator = train_generator(examples, CODES, args, checkpoints=kept).generator
    train_generator(examples, CODES, args, checkpoints=kept)
    for others in (
        lambda: train_generator(examples, CODES, arguments(epochs=2), checkpoints=kept),
        lambda: train_generator(next_is_the_last(32, 1), CODES, args, checkpoints=kept),
        lambda: train_generator(examples, CODES[::-1].copy(), args, checkpoints=kept),
        lambda: train_generator(examples, CODES, args, checkpoints=kept, generator=generator),
    ):
        with pytest.raises(InputError, match="remove it to begin anew"):
            others()


def test_newer_examples_move_the_weights_that_serve_and_a_little_is_enough() -> None:
    serving = train_generator(next_is_the_last(300, 0), CODES, arguments(batch_size=32)).generator
    swapped = CODES[::-1].copy()  # from one day to the next other paths follow
    newer, later = next_is_the_last(300, 5), next_is_the_last(100, 6)
    before = mean_loss(serving, later, swapped)
    few = arguments(epochs=2, batch_size=32)
    updated = train_generator(newer, swapped, few, generator=copy.deepcopy(serving)).generator
    assert mean_loss(serving, later, swapped) == before
    assert mean_loss(updated, later, swapped) < before


def test_a_source_and_its_examples_train_the_same() -> None:
    examples = next_is_the_last(40, 0)
    one, other = (
        train_generator(each, CODES, arguments(epochs=1)).generator.state_dict()
        for each in (examples, ExamplesInMemory(examples))
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_all_of_a_run_cannot_be_averaged() -> None:
    with pytest.raises(InputError, match="expected a share of the run"):
        arguments(averaged=1.0)


@pytest.mark.parametrize("changes", [{"epochs": 0}, {"train_s": 0.0}, {"batch_size": 0}, {"micro_batch": -1}])
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
