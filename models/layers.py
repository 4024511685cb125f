"""Small parts that every model here is made of."""

from typing import Final

import torch
from torch import Tensor, nn

EXCLUDED: Final = -1e9  # a score that softmax turns into zero, finite so that a row of them is no NaN


class RMSNorm(nn.Module):
    """x / rms(x), scaled per feature."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * self.scale


def matrix(rows: int, columns: int, gain: float = 1.0) -> nn.Parameter:
    """(rows, columns) random weights, used as `x @ w`: x of unit variance gives outputs of variance gain^2."""
    return nn.Parameter(torch.randn(rows, columns) * gain * rows**-0.5)
