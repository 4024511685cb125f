"""A feed-forward made of many small ones: each position is sent to the few experts that suit it, and to a shared one.

Letters used in this file
    n positions   E routed experts   K experts of a position   d width   f width of an expert

Source: OneRec-V2, arXiv:2508.20900 §3 (53 routed and one shared SwiGLU expert, 3 per position, from the third block
on); DeepSeek-V3, arXiv:2412.19437 §2.1 (sigmoid affinities, gates that sum to 1, balance without a loss: a bias per
expert decides the choice only, never the gate, and moves by a fixed step against the load that was seen). The step of
1e-3 is DeepSeek's; OneRec-V2 gives none.
"""

from typing import Final

import torch
from torch import Tensor, distributed, nn
from torch.nn.functional import silu

_BIAS_STEP: Final = 1e-3


class Experts(nn.Module):
    """(n, d) -> (n, d): the shared expert, and the sum of the chosen ones by their gates.

    Training visits only the chosen experts. An exported graph has no such loop: it computes all of them and gives
    those not chosen the gate 0, which is the same function at E / K of the cost; serve many experts from torch.
    """

    load: Tensor  # (E,) positions per expert since the last `rebalance`

    def __init__(self, width: int, expert_width: int, experts: int, chosen: int) -> None:
        """experts: E; chosen: K; expert_width: f."""
        super().__init__()
        self.chosen, self.expert_width = chosen, expert_width
        self.router = nn.Parameter(torch.randn(width, experts) * width**-0.5)
        self.w_in = nn.Parameter(torch.randn(experts, width, 2 * expert_width) * width**-0.5)
        self.w_out = nn.Parameter(torch.randn(experts, expert_width, width) * 0.5 * expert_width**-0.5)
        self.shared_in = nn.Parameter(torch.randn(width, 2 * expert_width) * width**-0.5)
        self.shared_out = nn.Parameter(torch.randn(expert_width, width) * 0.5 * expert_width**-0.5)
        # A parameter without gradient: stored, exported and replaced by name like the weights it belongs to.
        self.bias = nn.Parameter(torch.zeros(experts), requires_grad=False)
        self.register_buffer("load", torch.zeros(experts), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        choice, gates = self.route(x)
        if self.training:
            self.load += torch.bincount(choice.flatten(), minlength=len(self.bias)).to(self.load.dtype)
        shared = self._swiglu(x, self.shared_in, self.shared_out)
        if torch.compiler.is_exporting():
            every = torch.zeros_like(x[:, :1] @ self.router[:1]).scatter(1, choice, gates)
            inner = torch.einsum("nd,edf->enf", x, self.w_in)
            inner = silu(inner[..., : self.expert_width]) * inner[..., self.expert_width :]
            return shared + torch.einsum("enf,efd,ne->nd", inner, self.w_out, every)
        rows, place = torch.sort(choice.flatten(), stable=True)
        counts = torch.bincount(rows, minlength=len(self.bias)).tolist()
        parts = [
            self._swiglu(x[at // self.chosen], self.w_in[expert], self.w_out[expert])
            for expert, at in enumerate(torch.split(place, counts))
        ]
        routed = torch.cat(parts) * gates.flatten()[place, None]
        return shared.index_add(0, place // self.chosen, routed.to(shared.dtype))

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(n, K) experts of each position, and (n, K) their gates, which sum to 1."""
        affinity = torch.sigmoid(x @ self.router)
        choice = torch.topk(affinity + self.bias, self.chosen, dim=-1).indices
        gates = affinity.gather(-1, choice)
        return choice, gates / gates.sum(-1, keepdim=True)

    @torch.no_grad()
    def rebalance(self) -> Tensor:
        """After a step: experts with more than the mean load become less likely, the others more.

        Returns:
            (E,) the load since the last time, of all processes together: a histogram for whoever watches.
        """
        load = self.load.clone()
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(load)
        self.bias.sub_(_BIAS_STEP * torch.sign(load - load.mean()))
        self.load.zero_()
        return load

    def _swiglu(self, x: Tensor, w_in: Tensor, w_out: Tensor) -> Tensor:
        inner = x @ w_in
        return (silu(inner[:, : self.expert_width]) * inner[:, self.expert_width :]) @ w_out
