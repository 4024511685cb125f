"""A queue that was interrupted goes on where it was, and rows hold what was agreed."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.quality import protocols
from benchmarks.quality.command import bench_quality
from benchmarks.quality.protocols import Question
from benchmarks.quality.rows import Row, merge_rows, read_rows, table_of
from benchmarks.quality.split import Split
from benchmarks.quality.workshop import Workshop
from core.errors import InputError
from tests.benchmarks.quality.worlds import walks

AGREED = {"protocol", "data", "model", "metric", "mean", "low", "high", "seeds", "command"}


def walking(home: Path, stage: str) -> Split:
    return walks(seed=1 if stage == "valid" else 0)._replace(stage=stage)


@pytest.fixture(autouse=True)
def question(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(protocols.QUESTIONS, "walks", Question(walking, "mixture", ("recall@1", "ndcg@10")))
    yield


def run(tmp_path: Path, *models: str, baseline: str | None = None) -> tuple[list[Row], list[str]]:
    lines: list[str] = []
    rows = bench_quality(
        ["walks"],
        models,
        seeds=2,
        home=tmp_path,
        folder=tmp_path / "runs",
        baseline=baseline,
        results=tmp_path / "rows.json",
        say=lines.append,
    )
    return rows, lines


def test_rows_hold_what_was_agreed_and_gains_are_against_the_baseline(tmp_path: Path) -> None:
    rows, _ = run(tmp_path, "popularity", "cooccurrence")
    read = json.loads((tmp_path / "rows.json").read_text("utf-8"))
    assert read[0].keys() >= AGREED
    of = {row.model: row for row in rows if row.metric == "recall@1"}
    assert of["cooccurrence"].mean > of["popularity"].mean
    assert of["popularity"].gain == pytest.approx(of["popularity"].mean - of["mixture"].mean)
    assert of["mixture"].gain is None
    assert of["cooccurrence"].trials == 6
    assert (tmp_path / "runs" / "quality.png").stat().st_size > 0
    assert table_of(rows).row_count == 4


def test_gains_against_a_named_baseline_are_told_and_the_kept_ones_stay(tmp_path: Path) -> None:
    run(tmp_path, "popularity", "cooccurrence")
    kept = read_rows(tmp_path / "rows.json")
    rows, _ = run(tmp_path, "cooccurrence", baseline="popularity")
    of = {row.model: row for row in rows if row.metric == "recall@1"}
    assert of.keys() == {"popularity", "cooccurrence"}
    assert of["cooccurrence"].baseline == "popularity"
    assert of["cooccurrence"].gain == pytest.approx(of["cooccurrence"].mean - of["popularity"].mean)
    assert read_rows(tmp_path / "rows.json") == kept
    with pytest.raises(InputError, match="--model nobody"):
        run(tmp_path, "cooccurrence", baseline="nobody")


def test_what_has_run_is_not_run_again(tmp_path: Path) -> None:
    first, said = run(tmp_path, "cooccurrence")
    again, said_again = run(tmp_path, "cooccurrence")
    assert said and not said_again
    assert again == first


def test_an_interrupted_queue_keeps_what_it_has(tmp_path: Path) -> None:
    run(tmp_path, "cooccurrence")
    kept = {row.model for row in read_rows(tmp_path / "rows.json")}
    _, said = run(tmp_path, "cooccurrence", "text")
    assert kept == {"cooccurrence", "mixture"}
    assert all("text" in line for line in said)
    assert {row.model for row in read_rows(tmp_path / "rows.json")} == {"cooccurrence", "mixture", "text"}


def test_a_run_on_other_acts_is_not_taken_for_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, "cooccurrence")
    other = Question(lambda home, stage: walks(seed=5), "mixture", ("recall@1",))
    monkeypatch.setitem(protocols.QUESTIONS, "walks", other)
    assert run(tmp_path, "cooccurrence")[1]


def test_unknown_names_are_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--model nobody"):
        run(tmp_path, "popularity", "nobody")
    with pytest.raises(InputError, match="--data nothing"):
        Workshop("nothing", tmp_path, tmp_path, print)
    with pytest.raises(InputError, match="--data-home"):
        bench_quality(["beauty"], ["text"], seeds=1, home=tmp_path, folder=tmp_path, say=print)
    assert not (tmp_path / "rows.json").exists()


def test_a_row_replaces_the_row_of_the_same_figure(tmp_path: Path) -> None:
    row = Row("p", "d", "m", "recall@1", 0.5, 0.4, 0.6, 1, "make")
    path = tmp_path / "rows.json"
    merge_rows([row, row._replace(model="other")], path)
    merge_rows([row._replace(mean=0.7)], path)
    assert [(one.model, one.mean) for one in read_rows(path)] == [("m", 0.7), ("other", 0.5)]
