"""Attention within small sets on CUDA, many sets at a time.

Kernels for attention work on tiles of 64 or 128 members. Six latent tokens fill a twentieth of one:
on an H200 such attention took longer than all matrix products of a block of celldit-L. Sets that
are next to each other in memory are therefore taken as one long set of which each member reads its
own part only, which is the same attention.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

FEW = 32
"""Members from which a set is left alone: there both ways take about the same."""
TILE = 128
"""Members of a group at most."""


def suits(q_BHNC: Tensor) -> bool:
    """Whether :func:`attend_in_groups` is the faster way."""
    batch, _, n, _ = q_BHNC.shape
    return q_BHNC.is_cuda and n < FEW and batch > 1


def attend_in_groups(q_BHNC: Tensor, k_BHNC: Tensor, v_BHNC: Tensor, share: float = 0.0) -> Tensor:
    """Attend from the N members of each of B sets to each other, shape (B, H, N, C).

    It is cheapest where heads lie beside each other in memory, not one after the other. A share of
    the weights is dropped.
    """
    batch, n_heads, n, size = q_BHNC.shape
    n_sets = min(TILE // n, batch)
    if n_sets >= 8:  # rows of the mask then have the alignment that kernels ask for
        n_sets -= n_sets % 8
    missing = -batch % n_sets

    def grouped(x_BHNC: Tensor) -> Tensor:
        x_BNHC = x_BHNC.transpose(1, 2)
        if missing:
            x_BNHC = pad(x_BNHC, (0, 0, 0, 0, 0, 0, 0, missing))
        return x_BNHC.reshape(-1, n_sets * n, n_heads, size).transpose(1, 2)

    set_M = torch.arange(n_sets * n, device=q_BHNC.device) // n
    y_GHMC = scaled_dot_product_attention(
        grouped(q_BHNC),
        grouped(k_BHNC),
        grouped(v_BHNC),
        attn_mask=set_M[:, None] == set_M,
        dropout_p=share,
    )
    y_BNHC = y_GHMC.transpose(1, 2).reshape(-1, n, n_heads, size)[:batch]
    return y_BNHC.transpose(1, 2)
