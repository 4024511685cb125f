"""SASRec with full-softmax cross-entropy: causal self-attention over items.

Source: Kang and McAuley, ICDM 2018; the loss is that of Klenitskiy and Vasilev, RecSys 2023, which the first paper's
sampled binary loss falls far behind. Places count from the newest, as left padding does in the first paper. Pre-norm
and GELU stand in for post-norm and ReLU.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.quality.next_item import NextItemArgs, Reader


class Sasrec(Reader):
    """Item and place -> blocks of causal attention and a feed-forward layer -> norm."""

    def __init__(self, items: int, args: NextItemArgs) -> None:
        super().__init__()
        self.items = nn.Embedding(items + 1, args.width, padding_idx=items)
        self.places = nn.Embedding(args.length, args.width)
        for table in (self.items, self.places):
            nn.init.normal_(table.weight, std=0.02)
        self.blocks = nn.ModuleList(_Block(args) for _ in range(args.blocks))
        self.norm = nn.LayerNorm(args.width)
        self.dropout = nn.Dropout(args.dropout)

    def forward(self, items: Tensor, at_s: Tensor) -> Tensor:
        """Times are not read."""
        known = items < self.items.num_embeddings - 1
        length = items.shape[1]
        hidden = self.items(items) * self.items.embedding_dim**0.5 + self.places.weight[:length].flip(0)
        hidden = self.dropout(hidden)
        earlier = torch.ones(length, length, dtype=torch.bool).tril()
        seen = (earlier & known[:, None, :]) | torch.eye(length, dtype=torch.bool)
        for block in self.blocks:
            hidden = block(hidden, seen[:, None])
        normed: Tensor = self.norm(hidden)
        return normed


class _Block(nn.Module):
    def __init__(self, args: NextItemArgs) -> None:
        super().__init__()
        self.heads, self.share = args.heads, args.dropout
        self.before_attention, self.before_layer = nn.LayerNorm(args.width), nn.LayerNorm(args.width)
        self.mixed = nn.Linear(args.width, 3 * args.width)
        self.joined = nn.Linear(args.width, args.width)
        self.layer = nn.Sequential(
            nn.Linear(args.width, 4 * args.width),
            nn.GELU(),
            nn.Dropout(args.dropout),
            nn.Linear(4 * args.width, args.width),
        )
        self.dropout = nn.Dropout(args.dropout)

    def forward(self, hidden: Tensor, seen: Tensor) -> Tensor:
        batch, length, width = hidden.shape
        query, key, value = (
            part.view(batch, length, self.heads, -1).transpose(1, 2)
            for part in self.mixed(self.before_attention(hidden)).chunk(3, dim=-1)
        )
        attended = F.scaled_dot_product_attention(
            query, key, value, attn_mask=seen, dropout_p=self.share if self.training else 0.0
        )
        hidden = hidden + self.dropout(self.joined(attended.transpose(1, 2).reshape(batch, length, width)))
        after: Tensor = hidden + self.dropout(self.layer(self.before_layer(hidden)))
        return after
