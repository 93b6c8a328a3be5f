"""Attention to sets of different sizes that are laid end to end, without padding.

On CUDA, in half precision, this is ``torch.nn.attention.varlen``, whose cost is that of the real
members alone. Its kernels know neither single precision nor the CPU, so elsewhere the sets are
padded and masked, which gives the same.
"""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import Tensor

from celldit.nn.attention import Attention


def read_packed(
    attention: Attention, x_BNW: Tensor, members_SW: Tensor, cu_lengths: Tensor, max_length: int
) -> Tensor:
    """Attend from N queries of each of B sets to the set's own members.

    Parameters
    ----------
    attention
        The layer.
    x_BNW
        Queries.
    members_SW
        The S members of all sets, end to end.
    cu_lengths
        int32, shape (B + 1,): set i owns the rows ``cu_lengths[i]`` to ``cu_lengths[i + 1]``.
    max_length
        The largest size of a set.

    Returns
    -------
    Tensor
        Shape (B, N, W); equal to `attention` over the padded sets.
    """
    if _has_kernel(x_BNW, attention):
        return _varlen(attention, x_BNW, members_SW, cu_lengths, max_length)
    lengths_B = cu_lengths.diff()
    # At least one column, since attention kernels dislike a dimension of size zero.
    columns_T = torch.arange(max(max_length, 1), device=members_SW.device)
    mask_BT = columns_T < lengths_B[:, None]
    padded_BTW = members_SW.new_zeros(*mask_BT.shape, members_SW.shape[-1])
    padded_BTW = padded_BTW.masked_scatter(mask_BT[..., None], members_SW)
    return attention(x_BNW, padded_BTW, mask_BT)


def _has_kernel(x_BNW: Tensor, attention: Attention) -> bool:
    """Whether variable-length kernels can do it: CUDA, half precision, no dropout."""
    if not x_BNW.is_cuda or (attention.training and attention.dropout > 0):
        return False
    dtype = x_BNW.dtype
    if torch.is_autocast_enabled("cuda"):
        dtype = torch.get_autocast_dtype("cuda")
    if dtype not in (torch.float16, torch.bfloat16):
        return False
    if find_spec("torch.nn.attention.varlen") is None:
        return False
    return torch.cuda.get_device_capability(x_BNW.device) >= (8, 0)


def _varlen(
    attention: Attention, x_BNW: Tensor, members_SW: Tensor, cu_lengths: Tensor, max_length: int
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    batch, n_queries, width = x_BNW.shape
    if not len(members_SW):
        return attention.out(torch.zeros_like(x_BNW))
    # One batch of one long set: the layer's own projections and norms, then heads last but one.
    q_BHNC, k_1HSC, v_1HSC = attention._queries_keys_values(x_BNW, members_SW[None])
    half = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x_BNW.dtype
    q_QHC = q_BHNC.transpose(1, 2).reshape(batch * n_queries, attention.n_heads, -1).to(half)
    k_SHC, v_SHC = (t[0].transpose(0, 1).contiguous().to(half) for t in (k_1HSC, v_1HSC))
    cu_queries = torch.arange(
        0, batch * n_queries + 1, n_queries, dtype=torch.int32, device=x_BNW.device
    )
    y_QHC = varlen_attn(q_QHC, k_SHC, v_SHC, cu_queries, cu_lengths, n_queries, max_length)
    assert isinstance(y_QHC, Tensor)
    return attention.out(y_QHC.reshape(batch, n_queries, width))
