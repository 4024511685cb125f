"""Small parts that every model here is made of."""

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

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


def rows_of(table: Tensor, index: Tensor) -> Tensor:
    """(..., d) the rows of a table (n, d); zeros where an index is below 0 or n and more. Costs the rows that are
    read, whatever n."""
    there = (index >= 0) & (index < table.shape[0])
    return torch.where(there[..., None], embedding(index.clamp(min=0, max=table.shape[0] - 1), table), 0.0)
