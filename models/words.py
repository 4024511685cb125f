"""Items scored by what is said of them: for those that came after training, of which nothing else is known.

Letters used in this file
    B requests   I items   K items that are scored   W = WORDS, features kept of an item   F = FEATURES, rows   d width

An item's vector is the sum of the vectors of its hashed features (`models.item_vectors`): nothing is fitted before and
an item has one from the moment it is in the catalogue. The features learn by a full softmax over all known items, on
the state that a context leaves before the first code, as the item head does, but apart from it and from evidence: what
they say must hold without rows, codes and counts, for a new item has none or poor ones. Nothing flows back into the
state: what was there is generated and scored as without words, but that one norm clips the gradients of both.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, embedding_bag

from models.item_vectors import FEATURES
from models.layers import RMSNorm, matrix


class Words(nn.Module):
    """State and features in, logits of items out."""

    def __init__(self, width: int, items: int, dropout: float) -> None:
        """width: d; items: those there are when the model is made."""
        super().__init__()
        self.table = nn.Parameter(torch.randn(FEATURES + 1, width) * 0.02)
        with torch.no_grad():
            self.table[FEATURES] = 0.0  # of no feature; gets no gradient, so it stays so
        self.norm = RMSNorm(width)
        self.w_query = matrix(width, width)
        self.bias = nn.Parameter(torch.zeros(items))  # what is taken often is not told by its words
        self.dropout = nn.Dropout(dropout / 2)

    def forward(self, state: Tensor, words: Tensor) -> Tensor:
        """(B, K) what their words say of some items; state (B, d), words (B, K, W), FEATURES = no more."""
        vectors = embedding(words, self.table, padding_idx=FEATURES).sum(-2) * _scale(words)
        said: Tensor = (vectors @ self._query(state)[..., None]).squeeze(-1)
        return said

    def of_known(self, state: Tensor, words: Tensor) -> Tensor:
        """(B, I) the same of all items that were there, (I, W), with what each is taken beyond its words: to learn
        from."""
        vectors = embedding_bag(words, self.table, mode="sum", padding_idx=FEATURES) * _scale(words)
        said: Tensor = self._query(state) @ self.dropout(vectors).T + self.bias
        return said

    def _query(self, state: Tensor) -> Tensor:
        wanted: Tensor = self.dropout(self.norm(state.detach())) @ self.w_query
        return wanted


def _scale(words: Tensor) -> Tensor:
    """Many words make no longer a vector than few."""
    return (words < FEATURES).sum(-1, keepdim=True).clamp(min=1).to(torch.float32).rsqrt()
