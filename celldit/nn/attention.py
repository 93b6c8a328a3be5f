"""Attention between the members of a set: no positions, RMS-normalised."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from celldit.nn import cuda_attention
from celldit.nn.layers import Dropout, RMSNorm

EPS = 1e-6
"""Added to the mean squares of queries and keys."""


class Attention(nn.Module):
    """Multi-head attention within a set; the number of heads divides the width.

    Queries and keys are RMS-normalised per head, which keeps the logits bounded (Dehghani et al.
    2023, "Scaling vision transformers to 22 billion parameters"). Without positions the result does
    not depend on the order of the members. Weights are dropped while training.
    """

    def __init__(self, width: int, n_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if width % n_heads:
            raise ValueError(f"width {width} is not a multiple of n_heads {n_heads}")
        self.n_heads = n_heads
        self.dropout = dropout
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_kv = nn.Linear(width, 2 * width, bias=False)
        self.norm_q = RMSNorm(width // n_heads, eps=EPS)
        self.norm_k = RMSNorm(width // n_heads, eps=EPS)
        self.out = nn.Linear(width, width)

    def _split(self, x_BNW: Tensor) -> Tensor:
        batch, n, width = x_BNW.shape
        return x_BNW.view(batch, n, self.n_heads, width // self.n_heads).transpose(1, 2)

    def forward(self, x_BNW: Tensor) -> Tensor:
        """What each of the N members reads from all, shape (B, N, W)."""
        # One product takes less time than two.
        weight = torch.cat([self.to_q.weight, self.to_kv.weight])
        q, k, v = map(self._split, nn.functional.linear(x_BNW, weight).chunk(3, dim=-1))
        q, k, share = self.norm_q(q), self.norm_k(k), self.dropout if self.training else 0.0
        if cuda_attention.suits(q):
            y_BHNC = cuda_attention.attend_in_groups(q, k, v, share)
        else:
            y_BHNC = scaled_dot_product_attention(q, k, v, dropout_p=share)
        return self.out(y_BHNC.transpose(1, 2).reshape(x_BNW.shape))

    def weights(self, x_BNW: Tensor) -> Tensor:
        """Attention weights averaged over heads, shape (B, N, N); rows sum to one."""
        q_BHNC = self.norm_q(self._split(self.to_q(x_BNW)))
        k_BHNC = self.norm_k(self._split(self.to_kv(x_BNW).chunk(2, dim=-1)[0]))
        logits_BHNN = q_BHNC @ k_BHNC.transpose(-1, -2) / q_BHNC.shape[-1] ** 0.5
        return logits_BHNN.softmax(-1).mean(1)


class MLP(nn.Module):
    """Two-layer perceptron with GELU."""

    def __init__(self, width: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, hidden),
            nn.GELU(approximate="tanh"),
            Dropout(dropout),
            nn.Linear(hidden, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)
