"""Attention on a CPU, its gradient written out.

torch's kernel for a CPU has no dropout, and its softmax goes through rows shorter than a vector
register one number at a time. Derived step by step the gradient of attention among six tokens took
longer than all matrix products of a block; written out it is a third of that.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from celldit.nn.dropout import kept
from celldit.nn.norm import rms_backward, rms_forward

FEW = 16
"""Members below which torch's kernels are slow: the floats in a register of 512 bits."""
MOST_WEIGHTS = 2**21
"""Weights that are computed at once, 8 MB.

Arrays of 32 MB and more are taken from the system anew each time, page by page: attention among 256
tokens of 32 cells took 1.8 times as long in one piece.
"""


def suits(q_BNW: Tensor, members_BMW: Tensor, share: float) -> bool:
    """Whether :func:`attend` is the faster way."""
    plain = q_BNW.device.type == "cpu" and q_BNW.dtype == torch.float32
    return plain and (share > 0 or members_BMW.shape[1] < FEW)


def attend(
    q_BNW: Tensor,
    k_BMW: Tensor,
    v_BMW: Tensor,
    scale_C: Tensor,
    mask_BM: Tensor | None,
    *,
    n_heads: int,
    eps: float,
    share: float,
) -> Tensor:
    """Attention with RMS-normalised queries and keys, shape (B, N, W).

    Parameters
    ----------
    q_BNW, k_BMW, v_BMW
        Queries, keys and values, heads beside each other.
    scale_C
        What the products of queries and keys are weighed by, for each dimension of a head.
    mask_BM
        False where nothing is read; True somewhere in each row.
    n_heads, eps
        Number of heads, and what is added to mean squares.
    share
        Of the weights that are dropped.
    """
    settings = n_heads, eps, share
    n_cells, of_a_cell = len(q_BNW), n_heads * q_BNW.shape[1] * k_BMW.shape[1]
    if n_cells * of_a_cell <= MOST_WEIGHTS:
        whole: Tensor = _Attend.apply(q_BNW, k_BMW, v_BMW, scale_C, mask_BM, *settings)
        return whole
    pieces = []
    at_once = max(1, MOST_WEIGHTS // of_a_cell)
    for start in range(0, n_cells, at_once):
        rows = slice(start, start + at_once)
        mask = None if mask_BM is None else mask_BM[rows]
        pieces.append(
            _Attend.apply(q_BNW[rows], k_BMW[rows], v_BMW[rows], scale_C, mask, *settings)
        )
    return torch.cat(pieces)


class _Attend(torch.autograd.Function):
    """P stands for batch and heads in one; products of many small matrices want contiguous ones."""

    @staticmethod
    def forward(
        ctx: Any,
        q_BNW: Tensor,
        k_BMW: Tensor,
        v_BMW: Tensor,
        scale_C: Tensor,
        mask_BM: Tensor | None,
        n_heads: int,
        eps: float,
        share: float,
    ) -> Tensor:
        q_PNC, q_size = rms_forward(_by_head(q_BNW, n_heads), eps)
        k_PMC, k_size = rms_forward(_by_head(k_BMW, n_heads), eps)
        v_PMC = _by_head(v_BMW, n_heads)
        scaled_PNC = q_PNC * scale_C
        logits_PNM = torch.bmm(scaled_PNC, k_PMC.transpose(1, 2))
        if mask_BM is not None:
            away_P1M = ~mask_BM.repeat_interleave(n_heads, dim=0)[:, None]
            logits_PNM = logits_PNM.masked_fill_(away_P1M, -torch.inf)
        weight_PNM = _softmax(logits_PNM)
        kept_PNM = kept(weight_PNM, share) if share else None
        read_PNM = weight_PNM if kept_PNM is None else weight_PNM * kept_PNM
        ctx.save_for_backward(
            q_PNC, q_size, k_PMC, k_size, v_PMC, scale_C, scaled_PNC, weight_PNM, kept_PNM, read_PNM
        )
        ctx.n_heads = n_heads
        return _together(torch.bmm(read_PNM, v_PMC), n_heads)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BNW: Tensor) -> tuple[Tensor | None, ...]:
        q, q_size, k, k_size, v, scale_C, scaled, weight, kept_PNM, read = ctx.saved_tensors
        gradient_PNC = _by_head(gradient_BNW, ctx.n_heads)
        v_PMC = torch.bmm(read.transpose(1, 2), gradient_PNC)
        weight_PNM = torch.bmm(gradient_PNC, v.transpose(1, 2))
        if kept_PNM is not None:
            weight_PNM *= kept_PNM
        weight_PNM *= weight
        logits_PNM = torch.addcmul(weight_PNM, weight, weight_PNM.sum(-1, keepdim=True), value=-1)
        scaled_PNC = torch.bmm(logits_PNM, k)
        k_PMC = torch.bmm(logits_PNM.transpose(1, 2), scaled)
        q_PNC = rms_backward(scaled_PNC * scale_C, q, q_size)
        parts = q_PNC, rms_backward(k_PMC, k, k_size), v_PMC
        of_scale_C = (scaled_PNC * q).sum((0, 1))
        return *(_together(x, ctx.n_heads) for x in parts), of_scale_C, None, None, None, None


def _softmax(x_PNM: Tensor) -> Tensor:
    if x_PNM.shape[-1] >= FEW:
        return x_PNM.softmax(-1)
    # With rows beside each other a register is filled; both copies are cheaper than that.
    return x_PNM.permute(1, 2, 0).contiguous().softmax(1).permute(2, 0, 1).contiguous()


def _by_head(x_BNW: Tensor, n_heads: int) -> Tensor:
    """Shape (B H, N, C)."""
    return x_BNW.unflatten(-1, (n_heads, -1)).transpose(1, 2).flatten(0, 1)


def _together(x_PNC: Tensor, n_heads: int) -> Tensor:
    """Shape (B, N, H C), undoes :func:`_by_head`."""
    return x_PNC.unflatten(0, (-1, n_heads)).transpose(1, 2).flatten(2)
