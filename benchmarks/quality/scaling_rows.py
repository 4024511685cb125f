"""What the scaling runs measured, as rows of benchmarks/results/scaling.json, and the curve through them."""

import json
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

RESULTS: Final = Path(__file__).resolve().parent.parent / "results" / "scaling.json"


class Row(NamedTuple):
    """One run, one measurement of cost, or one fit; None where the part does not measure it."""

    part: str  # cost | twin | difference | size | fit
    data: str
    model: str  # lazy | twin
    k: int  # items that share a context
    seed: int
    d_model: int | None = None
    layers: int | None = None
    weights: int | None = None  # of the blocks, of the encoder too
    tokens: int | None = None  # item tokens of a context
    requests: int | None = None  # learned from
    command: str = ""
    loss: float | None = None  # nats a code on the judged requests, of the best weights
    low: float | None = None  # 95 % interval of `loss`, by bootstrap over requests
    high: float | None = None
    recall_at_10: float | None = None  # a request's first item among the 10 best of 32 beams
    gflops: float | None = None  # training, a request, counted
    gflops_formula: float | None = None  # three times the forward pass by formula
    share_of_twin: float | None = None  # of the twin's counted training operations
    latency_p50_ms: float | None = None
    latency_p95_ms: float | None = None
    seconds: float | None = None
    epochs: float | None = None
    note: str = ""


def read_rows(path: Path = RESULTS) -> list[Row]:
    """The rows so far; none when there is no file."""
    return [Row(**row) for row in json.loads(path.read_text("utf-8"))] if path.exists() else []


def put_row(row: Row, path: Path = RESULTS) -> None:
    """`path` holds the row too, in the place of one for the same thing."""
    rows = {identity(each): each for each in read_rows(path)} | {identity(row): row}
    lines = ",\n".join(json.dumps(_rounded(each)) for each in sorted(rows.values(), key=_rank))
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(f"[\n{lines}\n]\n", "utf-8")
    unfinished.replace(path)


def identity(row: Row) -> tuple[object, ...]:
    """What was measured, apart from what came out."""
    return row[: Row._fields.index("command")]


class Fit(NamedTuple):
    """loss = floor + weights_scale / weights ** weights_power + data_scale / requests ** data_power."""

    floor: float
    weights_scale: float
    weights_power: float
    data_scale: float
    data_power: float
    error: float  # root mean square, nats

    def at(self, weights: float, requests: float) -> float:
        """The loss that the curve gives."""
        return float(
            self.floor + self.weights_scale / weights**self.weights_power + self.data_scale / requests**self.data_power
        )


def fit_losses(
    weights: npt.NDArray[np.float64], requests: npt.NDArray[np.float64], losses: npt.NDArray[np.float64]
) -> Fit:
    """The curve of least squares; every term is positive. Of several starts the best end."""

    def off(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        floor, scale, data_scale = np.exp(x[[0, 1, 3]])
        gap: npt.NDArray[np.float64] = floor + scale / weights ** x[2] + data_scale / requests ** x[4] - losses
        return gap

    ends = [
        least_squares(off, [np.log(0.8 * losses.min()), scale, power, scale, power], max_nfev=1_000)
        for scale in (0.0, 2.0, 4.0)
        for power in (0.2, 0.4, 0.8)
    ]
    best = min(ends, key=lambda end: end.cost)
    floor, scale, data_scale = (float(number) for number in np.exp(best.x[[0, 1, 3]]))
    error = float(np.sqrt(np.mean(best.fun**2)))
    return Fit(floor, scale, float(best.x[2]), data_scale, float(best.x[4]), error)


def _rank(row: Row) -> tuple[object, ...]:
    return tuple((value is not None, value) if not isinstance(value, str) else value for value in identity(row))


def _rounded(row: Row) -> dict[str, object]:
    return {name: round(value, 5) if isinstance(value, float) else value for name, value in row._asdict().items()}
