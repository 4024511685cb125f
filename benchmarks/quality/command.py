"""`nearfeed bench quality`: questions × models × seeds, rows written as they come, a table and a chart at the end."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from benchmarks.quality.evaluation import Answers
from benchmarks.quality.measures import measured
from benchmarks.quality.protocols import QUESTIONS
from benchmarks.quality.published import PUBLISHED
from benchmarks.quality.rows import Row, draw, merge_rows
from benchmarks.quality.split import Split
from benchmarks.quality.statistics import UserSums, holm, interval, mean_of_seeds, resampled, value_of
from benchmarks.quality.workshop import Workshop

RESULTS: Final = Path(__file__).resolve().parent.parent / "results" / "quality.json"
_SEED: Final = 0  # of the resampling: the same draws for every figure

Figure = tuple[str, str, str]  # metric, seen, group


def bench_quality(
    data: Sequence[str],
    models: Sequence[str],
    *,
    seeds: int,
    home: Path,
    folder: Path,
    baseline: str | None = None,
    results: Path = RESULTS,
    say: Callable[[str], None],
) -> list[Row]:
    """The rows of these models on these questions, after `results` and the chart hold them.

    Gains are against the question's baseline, which is run first when it is not among the models.

    Args:
        baseline: another one; then the rows are told and not kept, since a figure is kept with one gain.

    Raises:
        InputError: a name is unknown or a data set is not there; before anything is computed.
    """
    workshops = [Workshop(name, home, folder, say) for name in data]
    for workshop in workshops:
        workshop.check([*models, *([baseline] if baseline else [])])
    shown: list[Row] = []
    for name, workshop in zip(data, workshops, strict=True):
        against = baseline or QUESTIONS[name].baseline
        finished: dict[str, list[Answers]] = {}
        for model in dict.fromkeys([against, *models]):
            finished[model] = [workshop.run(model, seed) for seed in workshop.seeds_of(model, seeds)]
            rows = rows_of(name, workshop, finished, against)
            if baseline is None:
                merge_rows(rows, results)
        shown += rows
        draw([row for row in shown if row.group == "all"], folder / "quality.png")
    return shown


def rows_of(data: str, workshop: Workshop, finished: dict[str, list[Answers]], baseline: str) -> list[Row]:
    """The question's figures of every finished model; gains are against the baseline, corrected over these models."""
    split, question = workshop.test, QUESTIONS[data]
    figures = {model: _figures(split, runs) for model, runs in finished.items()}
    rows = []
    for figure in figures[baseline]:
        if figure[0] not in question.metrics or figure[1] not in question.seen:
            continue
        users = {model: mean_of_seeds(runs[figure]) for model, runs in figures.items()}
        drawn = dict(zip(users, resampled(list(users.values()), _SEED), strict=True))
        gains = {
            model: interval(value_of(users[model]) - value_of(users[baseline]), drawn[model] - drawn[baseline])
            for model in users
            if model != baseline
        }
        adjusted = dict(zip(gains, holm([gain.p for gain in gains.values()]), strict=True))
        for model in users:
            whole = interval(value_of(users[model]), drawn[model])
            means = [value_of(run) for run in figures[model][figure]]
            chosen = workshop.choose(model)
            row = Row(
                protocol=split.protocol,
                data=data,
                model=model,
                metric=figure[0],
                mean=whole.mean,
                low=whole.low,
                high=whole.high,
                seeds=len(means),
                command=f"nearfeed bench quality --data {data} --model {model} --seeds {len(means)}",
                seen=figure[1],
                group=figure[2],
                asked=int(users[model].counts.sum()),
                seed_low=min(means),
                seed_high=max(means),
                trials=chosen.trials,
                setting=", ".join(f"{name} {value:g}" for name, value in chosen.setting.items()),
            )
            if model in gains:
                gain = gains[model]
                row = row._replace(baseline=baseline, gain=gain.mean, gain_low=gain.low, gain_high=gain.high)
                row = row._replace(p_holm=adjusted[model])
            rows.append(row)
    return [*rows, *(row for row in PUBLISHED if row.data == data)]


def _figures(split: Split, runs: Sequence[Answers]) -> dict[Figure, list[UserSums]]:
    figures: dict[Figure, list[UserSums]] = {}
    for run in runs:
        for one in measured(split, run):
            figures.setdefault((one.metric, one.seen, one.group), []).append(one.users)
    return figures
