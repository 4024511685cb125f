"""The value head: how likely each outcome is, if an item is shown to a person.

Letters used in this file
    B requests   K items of each   d width   R outcomes (models.values.Value)

Log-odds = gain * the item's own rate + how much the person does so at all + how the person and the item's codes fit.
The person is the state that a context leaves before the first code, and the codes' vectors are the generator's: the
head looks on and never moves them, so that a generator with a head generates what it did without. Before it is
trained it gives each item its rate. An item without a row has the rate of all.

Source: our choice, in place of the ranker with a tower per objective of OneRec (arXiv:2506.13695). Left out: a vector
per item and the state after two codes (docs/adr/0012: they fitted more and foresaw no better).
"""

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, gelu

from models.layers import RMSNorm, matrix
from models.values import Value

_DROPOUT: Final = 0.3


class ValueHead(nn.Module):
    """State and items in, log-odds of every outcome out."""

    def __init__(self, width: int, items: int) -> None:
        """width: d; items: how many have a rate of their own."""
        super().__init__()
        outcomes = len(Value)
        self.rates = nn.Parameter(torch.zeros(items + 1, outcomes))  # log-odds; the last: of all items together
        self.gain = nn.Parameter(torch.ones(outcomes))
        self.norm, self.code_norm = RMSNorm(width), RMSNorm(width)
        self.w_person, self.w_does = matrix(width, width), nn.Parameter(torch.zeros(width, outcomes))
        self.w_wants, self.w_codes = matrix(width, width), matrix(width, width)
        self.w_fits = nn.Parameter(torch.zeros(width, outcomes))
        self.scale, self.shift = nn.Parameter(torch.ones(outcomes)), nn.Parameter(torch.zeros(outcomes))
        self.dropout = nn.Dropout(_DROPOUT)

    def row(self, items: Tensor) -> Tensor:
        """The row of `rates` of catalogue indices; any shape."""
        return items.clamp(min=0, max=len(self.rates) - 1)

    def forward(self, state: Tensor, of_codes: Tensor, rates: Tensor) -> Tensor:
        """(B, K, R) log-odds.

        Args:
            state: (B, d) before the first code.
            of_codes: (B, K, d) sums of the vectors of the items' codes.
            rates: (B, K, R) rows of `rates`.
        """
        person = self.dropout(self.norm(state))
        does = gelu(person @ self.w_person) @ self.w_does
        fits = ((person @ self.w_wants)[:, None] * (self.code_norm(of_codes) @ self.w_codes)) @ self.w_fits
        log_odds: Tensor = (self.gain * rates + does[:, None] + fits) * self.scale + self.shift
        return log_odds

    def odds_of_all(self, state: Tensor, of_codes: Tensor) -> Tensor:
        """(B, I, R) probabilities for all items that have a rate: `odds`, as a product of matrices.

        Args:
            of_codes: (I, d).
        """
        person = self.norm(state)
        does = gelu(person @ self.w_person) @ self.w_does
        wants, items = person @ self.w_wants, self.code_norm(of_codes) @ self.w_codes
        fits = torch.stack([(wants * weights) @ items.T for weights in self.w_fits.unbind(1)], dim=-1)
        log_odds = self.gain * self.rates[: len(of_codes)] + does[:, None] + fits
        return torch.sigmoid(log_odds * self.scale + self.shift)

    def odds(self, state: Tensor, of_codes: Tensor, items: Tensor) -> Tensor:
        """(B, K, R) probabilities. items: (B, K) catalogue index."""
        return torch.sigmoid(self(state, of_codes, embedding(self.row(items), self.rates)))
