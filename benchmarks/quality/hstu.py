"""HSTU-style: pointwise attention with a bias by place and by time passed, gated instead of a feed-forward layer.

Source: Zhai et al., ICML 2024 (Actions Speak Louder than Words), equations 1-3. Kept: SiLU attention without softmax,
the bias by relative place and by a bucket of the time between two acts, the norm and the gate after attention. Left
out: actions as tokens of their own, which leave-one-out data do not have, stochastic lengths, and sampled softmax, for
the full one fits.
"""

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.quality.next_item import NextItemArgs, Reader

_BUCKETS: Final = 64  # of log2 of the seconds between two acts, in halves


class Hstu(Reader):
    """Item -> blocks -> norm."""

    def __init__(self, items: int, args: NextItemArgs) -> None:
        super().__init__()
        self.items = nn.Embedding(items + 1, args.width, padding_idx=items)
        nn.init.normal_(self.items.weight, std=0.02)
        self.blocks = nn.ModuleList(_Block(args) for _ in range(args.blocks))
        self.norm = nn.LayerNorm(args.width)
        self.dropout = nn.Dropout(args.dropout)

    def forward(self, items: Tensor, at_s: Tensor) -> Tensor:
        """As Reader says; times are read as differences."""
        known = items < self.items.num_embeddings - 1
        places = torch.arange(items.shape[1])
        apart = (places[:, None] - places[None, :]).clamp(min=0)
        passed = (at_s[:, :, None] - at_s[:, None, :]).clamp(min=0)
        bucket = (2 * torch.log2(passed + 1.0)).long().clamp(max=_BUCKETS - 1)
        seen = ((places[:, None] >= places[None, :]) & known[:, None, :]).float()
        hidden = self.dropout(self.items(items) * self.items.embedding_dim**0.5)
        for block in self.blocks:
            hidden = block(hidden, seen, apart, bucket)
        normed: Tensor = self.norm(hidden)
        return normed


class _Block(nn.Module):
    def __init__(self, args: NextItemArgs) -> None:
        super().__init__()
        self.heads = args.heads
        self.before, self.after = nn.LayerNorm(args.width), nn.LayerNorm(args.width)
        self.mixed = nn.Linear(args.width, 4 * args.width)
        self.joined = nn.Linear(args.width, args.width)
        self.by_place = nn.Embedding(args.length, args.heads)
        self.by_time = nn.Embedding(_BUCKETS, args.heads)
        for table in (self.by_place, self.by_time):
            nn.init.normal_(table.weight, std=0.02)
        self.dropout = nn.Dropout(args.dropout)

    def forward(self, hidden: Tensor, seen: Tensor, apart: Tensor, bucket: Tensor) -> Tensor:
        """seen: (B, T, T) 1 = may be read; apart: (T, T); bucket: (B, T, T)."""
        batch, length, width = hidden.shape
        gate, *parts = F.silu(self.mixed(self.before(hidden))).chunk(4, dim=-1)
        query, key, value = (part.view(batch, length, self.heads, -1).transpose(1, 2) for part in parts)
        bias = self.by_place(apart)[None] + self.by_time(bucket)
        weights = F.silu(query @ key.transpose(2, 3) + bias.permute(0, 3, 1, 2)) * seen[:, None]
        weights = weights / seen.sum(dim=2).clamp(min=1)[:, None, :, None]
        read = (weights @ value).transpose(1, 2).reshape(batch, length, width)
        after: Tensor = hidden + self.dropout(self.joined(self.after(read) * gate))
        return after
