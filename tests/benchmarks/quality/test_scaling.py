"""The scaling runs ask fairly: nothing of a request is known before it, and costs are what is stated."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.quality.scaling import interval, request_losses, shape
from benchmarks.quality.scaling_cost import counted_flops, first_requests, lazy_flops, made, twin_flops
from benchmarks.quality.scaling_data import PER_REQUEST, Sequences, examples_of, some, split_requests
from benchmarks.quality.scaling_rows import Fit, Row, fit_losses, put_row, read_rows
from benchmarks.quality.scaling_tables import draw, table_of
from models.batches import Ints
from models.generator_quality import mean_loss

ROW = Row("size", "kuairand", "lazy", PER_REQUEST, 0, d_model=32, weights=100, requests=10, loss=1.23456789)


def sequences(lengths: list[int], seed: int = 0) -> Sequences:
    """Items are their own places, so that a context says which acts it holds."""
    rng = np.random.default_rng(seed)
    codes: Ints = rng.integers(0, 64, (max(lengths, default=0) + 1, 3)).astype(np.int32)
    codes[:, 2] = np.arange(len(codes)) % 64
    return Sequences([np.arange(n) for n in lengths], [1000 * np.arange(n) for n in lengths], codes)


@given(lengths=st.lists(st.integers(0, 63), max_size=8), tokens=st.integers(0, 30), least=st.integers(0, 9))
def test_a_context_holds_the_newest_acts_before_the_request_and_no_other(
    lengths: list[int], tokens: int, least: int
) -> None:
    world = sequences(lengths)
    for asked in split_requests(world, least=least):
        examples = examples_of(world, asked, tokens)
        assert (asked.starts >= least).all()
        assert (examples.items == asked.starts[:, None] + np.arange(PER_REQUEST)).all()
        for start, codes, mask in zip(asked.starts, examples.context.codes, examples.context.mask, strict=True):
            assert codes[mask][:, 2].tolist() == list(range(start))[::-1][:tokens]
            assert not codes[~mask].any()


@given(lengths=st.lists(st.integers(5, 63), min_size=1, max_size=8))
def test_what_is_judged_comes_after_what_is_learned_and_every_act_is_asked_once(lengths: list[int]) -> None:
    learn, judge = split_requests(sequences(lengths), least=0)
    for user, length in enumerate(lengths):
        learned, judged = learn.starts[learn.users == user], judge.starts[judge.users == user]
        assert len(judged) >= 1
        assert (learned[:, None] + PER_REQUEST <= judged).all()
        assert len(learned) + len(judged) == length // PER_REQUEST
        assert judged.max() == length - PER_REQUEST


def test_fewer_requests_are_among_more() -> None:
    learn, _ = split_requests(sequences([60, 60, 60]), least=0)
    few, many = some(learn, 5), some(learn, 20)
    assert set(zip(few.users, few.starts, strict=True)) <= set(zip(many.users, many.starts, strict=True))


@pytest.mark.parametrize(("tokens", "targets"), [(20, 5), (70, 5), (40, 1)])
def test_counted_operations_are_those_of_the_formula(tokens: int, targets: int) -> None:
    world = sequences([200, 150])
    examples = first_requests(examples_of(world, split_requests(world, least=5)[0], tokens), 4)
    examples = examples._replace(items=examples.items[:, :targets])
    config = shape(32, 4, tokens)
    for architecture, formula in (("lazy", lazy_flops), ("twin", twin_flops)):
        generator = made(architecture, config, 0)
        expected = formula(config, tokens=tokens, targets=targets, requests=4)
        assert counted_flops(generator, examples, world.codes, training=False) == pytest.approx(expected, rel=1e-9)
        trained = counted_flops(generator, examples, world.codes, training=True)
        assert trained == pytest.approx(3 * expected, rel=0.03)


def test_losses_of_requests_have_the_mean_loss_as_their_mean() -> None:
    world = sequences([200])
    examples = examples_of(world, split_requests(world, least=5)[0], 20)
    generator = made("lazy", shape(32, 2, 20), 0).eval()
    losses = request_losses(generator, examples, world.codes)
    assert losses.mean() == pytest.approx(mean_loss(generator, examples, world.codes), abs=1e-5)
    low, high = interval(losses)
    assert low < losses.mean() < high


def test_the_fit_finds_the_curve_that_made_the_losses() -> None:
    made_by = Fit(1.5, 12.0, 0.3, 30.0, 0.45, 0.0)
    weights, requests = (axis.ravel() for axis in np.meshgrid([3e4, 1e5, 4e5, 1e6], [6e3, 1.2e4, 2.4e4]))
    losses = np.array([made_by.at(w, r) for w, r in zip(weights, requests, strict=True)])
    found = fit_losses(weights, requests, losses)
    assert found.error < 1e-3
    assert found.at(3e6, 5e4) == pytest.approx(made_by.at(3e6, 5e4), abs=0.02)


def test_a_row_takes_the_place_of_the_one_before_it(tmp_path: Path) -> None:
    path = tmp_path / "results" / "scaling.json"
    assert read_rows(path) == []
    for row in (ROW, ROW._replace(requests=20), ROW._replace(loss=2.0, command="again")):
        put_row(row, path)
    rows = read_rows(path)
    assert [(row.requests, row.loss, row.command) for row in rows] == [(10, 2.0, "again"), (20, 1.23457, "")]
    draw(rows, tmp_path / "chart.png")
    assert (tmp_path / "chart.png").stat().st_size > 1000
    assert table_of(rows).row_count == 2
