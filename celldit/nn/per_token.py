"""A linear map of its own for every token.

Latent tokens are different things (one holds an interferon programme, the next the cell cycle),
so sharing one projection among them makes the flow fail; see DESIGN, "two details of the DiT".
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class PerTokenLinear(nn.Module):
    """Map token k by its own weight: ``y[b, k] = x[b, k] @ weight[k] + bias[k]``.

    Parameters
    ----------
    n_tokens, n_in, n_out
        Number of tokens, input features and output features of each.
    zero
        Start at zero, so that the map is silent until trained.
    """

    def __init__(self, n_tokens: int, n_in: int, n_out: int, *, zero: bool = False) -> None:
        super().__init__()
        bound = 0.0 if zero else 1 / math.sqrt(n_in)
        self.weight = nn.Parameter(torch.empty(n_tokens, n_in, n_out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(n_tokens, n_out))

    def forward(self, x_BKI: Tensor) -> Tensor:
        # (K, B, I) @ (K, I, O) -> (K, B, O): one batched matrix product
        y_KBO = torch.bmm(x_BKI.transpose(0, 1), self.weight.to(x_BKI.dtype))
        # Else everything after would stay in the product's order, which each linear layer copies.
        return y_KBO.transpose(0, 1).contiguous() + self.bias.to(x_BKI.dtype)
