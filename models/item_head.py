"""Items scored as wholes: one vector per item against the state that a context leaves before the first code.

Letters used in this file
    B requests   K items that are scored   d width

A code path shares what it learns among the items below a prefix; a vector per item tells them apart. The head scores
all items when it is trained (full softmax: sampled ones make a weak ranker, see arXiv:2308.07192) and only what the
beams found when it serves. An item's vector is its own, from the table of items, and that of its codes, so that an
item that came later is scored by its codes alone.
"""

import torch
from torch import Tensor, nn

from models.layers import RMSNorm, matrix
from models.prior import NOTHING


class ItemHead(nn.Module):
    """State and items in, logits of the items out."""

    def __init__(self, width: int, items: int, dropout: float, *, evidence: bool) -> None:
        """width: d; items: rows of the table of items; evidence: whether there is a prior."""
        super().__init__()
        self.norm = RMSNorm(width)
        self.w_query = matrix(width, width, gain=width**-0.5)
        self.w_item, self.w_codes = matrix(width, width), matrix(width, width, gain=0.3)
        self.bias = nn.Parameter(torch.zeros(items + 1))  # the last: of items without a row
        if evidence:  # a weight that nothing uses would be missing in the graph, whose weights an update replaces
            self.gain = nn.Parameter(torch.ones(()))
        self.dropout = nn.Dropout(dropout)

    def query(self, state: Tensor) -> Tensor:
        """(B, d) what items are compared with."""
        wanted: Tensor = self.dropout(self.norm(state) @ self.w_query)
        return wanted

    def vectors(self, of_items: Tensor, of_codes: Tensor) -> Tensor:
        """(..., d) item vectors from rows of the table of items and sums of code vectors, both (..., d)."""
        return of_items @ self.w_item + of_codes @ self.w_codes

    def with_evidence(self, logits: Tensor, mass: Tensor | None) -> Tensor:
        """The logits moved by the evidence for each item, where there is a prior; both (B, K)."""
        return logits if mass is None else logits + self.gain * torch.log(mass + NOTHING)
