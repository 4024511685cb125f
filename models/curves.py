"""The curve of a training run as a picture."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from models.train_generator import Progress


def plot_curve(curve: Sequence[Progress], path: Path, *, title: str = "Training") -> None:
    """`path` holds the losses over the steps, and the validations where there are any; its suffix says the format."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot([at.step for at in curve], [at.loss for at in curve], label="training")
    validated = [(at.step, at.validation) for at in curve if at.validation is not None]
    if validated:
        axes.plot(*zip(*validated, strict=True), marker=".", label="validation")
        step, best = min(validated, key=lambda point: point[1])
        axes.axvline(step, linestyle=":", linewidth=1, label=f"best {best:.3f} at step {step}")
    axes.set(title=title, xlabel="step", ylabel="loss, nats a code")
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
