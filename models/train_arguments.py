"""How the generator is trained, as values that its manifest keeps.

Weights are averaged as in Izmailov et al., arXiv:1803.05407 (SWA): one run's weights along its last steps, at a rate
that goes on moving them. Left out: its cyclic rates, and the pass that sets batch norms, of which the generator has
none.
"""

from dataclasses import dataclass, field

from core.errors import InputError
from models.generator_config import GeneratorConfig
from models.training_step import Precision


@dataclass(frozen=True)
class TrainArguments:
    """Everything that decides what training gives; stored in the manifest."""

    config: GeneratorConfig = field(default_factory=GeneratorConfig)
    """Shape of the model."""
    epochs: float = 6.0
    """Passes over the examples, unless `train_s` ends first."""
    train_s: float = 3600.0
    """Wall-clock limit. The learning rate is at its end at whichever end comes first."""
    batch_size: int = 128
    """Requests in one step, of all processes together."""
    micro_batch: int | None = None
    """Requests at once in one process: fewer need less memory and give the same step. None = all."""
    learning_rate: float = 6e-3
    """Peak, after warm-up."""
    warmup: float = 0.05
    """Share of the run in which the learning rate rises to its peak."""
    averaged: float = 0.0
    """Share of the run, its last, whose weights are averaged, one step like the other: the average is what training
    gives. The learning rate then falls to half of its peak only, so that there is something to average. 0 = the last
    weights, at a rate that has fallen to zero."""
    weight_decay: float = 0.5
    """Of matrices and code vectors; norms and the small tables of the context are left alone."""
    label_smoothing: float = 0.0
    """Share of a target's mass spread over the codebook."""
    token_dropout: float = 0.3
    """Share of context tokens hidden at each step."""
    gradient_norm: float = 1.0
    """Gradients are clipped to this norm."""
    patience: int | None = None
    """Validations, one every twentieth of the run, without a better one before training ends. None = never."""
    precision: Precision = "float32"
    """Of products; weights and optimiser stay float32. Half precision needs CUDA."""
    compiled: bool = False
    """Whether the model is compiled first; needs CUDA, and minutes that only a long run earns back."""
    item_loss: float = 0.3
    """Weight of the item head's loss, and of that of words, nats an item, beside that of the codes; where they are."""
    seed: int = 0
    """Of initial weights, order and dropout."""

    def __post_init__(self) -> None:
        if self.epochs <= 0 or self.train_s <= 0 or min(self.batch_size, self.micro_batch or 1) < 1:
            raise InputError(
                f"found epochs {self.epochs}, train_s {self.train_s}, batch_size {self.batch_size}, "
                f"micro_batch {self.micro_batch}; expected positive numbers"
            )
        if not 0 <= self.averaged < 1:
            raise InputError(f"found averaged {self.averaged}, expected a share of the run, 0 to below 1")
