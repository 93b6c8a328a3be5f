"""Attention to sets of different sizes that are laid end to end, without padding.

On CUDA, in half precision, this is ``torch.nn.attention.varlen``, whose cost is that of the real
members alone. Elsewhere the sets are padded and masked, which gives the same.

The kernels behind it are FlashAttention's. By torch's sources (``flash_api.cpp``) they take float16
or bfloat16 alone, on devices of compute capability 8.0 or newer, heads of 8, 16, ... 256 values,
int32 offsets, lengths as plain integers and at least one set, and ``varlen_attn`` has no dropout. A
set without members reads zero and passes no gradient on; second derivatives there are none. What
breaks one of these conditions goes by the mask, training with dropout included. (Stage one trains
in single precision on padded sets unless it is told otherwise, so by default all of it does.)

Tests hold this module to those conditions, to torch's own shapes for the kernels, and to the mask's
numbers: on a GPU with the kernel (an H200 gave them), elsewhere with a plain implementation in its
place.
"""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import Tensor

from celldit.nn.attention import Attention

# Limits of the variable-length kernels: values of a head, and sets (the second axis of a grid).
LARGEST_HEAD = 256
MOST_SETS = 65_535


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
    dtype = _kernel_dtype(x_BNW, attention)
    if dtype is not None:
        return _varlen(attention, x_BNW, members_SW, cu_lengths, max_length, dtype)
    lengths_B = cu_lengths.diff()
    # At least one column, since attention kernels dislike a dimension of size zero.
    columns_T = torch.arange(max(max_length, 1), device=members_SW.device)
    mask_BT = columns_T < lengths_B[:, None]
    padded_BTW = members_SW.new_zeros(*mask_BT.shape, members_SW.shape[-1])
    padded_BTW = padded_BTW.masked_scatter(mask_BT[..., None], members_SW)
    return attention(x_BNW, padded_BTW, mask_BT)


def _kernel_dtype(x_BNW: Tensor, attention: Attention) -> torch.dtype | None:
    """The half precision in which variable-length kernels do it, or None where they cannot."""
    n_sets, _, width = x_BNW.shape
    if not x_BNW.is_cuda or (attention.training and attention.dropout > 0):
        return None
    head = width // attention.n_heads
    if head % 8 or head > LARGEST_HEAD or n_sets > MOST_SETS:
        return None
    dtype = x_BNW.dtype
    if torch.is_autocast_enabled("cuda"):
        dtype = torch.get_autocast_dtype("cuda")
    if dtype not in (torch.float16, torch.bfloat16):
        return None
    if find_spec("torch.nn.attention.varlen") is None:
        return None
    is_new_enough = torch.cuda.get_device_capability(x_BNW.device) >= (8, 0)
    return dtype if is_new_enough else None


def _varlen(
    attention: Attention,
    x_BNW: Tensor,
    members_SW: Tensor,
    cu_lengths: Tensor,
    max_length: int,
    dtype: torch.dtype,
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    batch, n_queries, width = x_BNW.shape
    # The kernels want a set; without any member there is nothing to read.
    if not len(members_SW):
        return attention.out(torch.zeros_like(x_BNW))
    # One batch of one long set: the layer's own projections and norms, then heads last but one.
    # (`unsqueeze` and `squeeze` where an index would do, since torch without CUDA can follow them
    # for tensors that only pretend to be there, which is how this is tested.)
    q_BHNC, k_1HSC, v_1HSC = attention._queries_keys_values(x_BNW, members_SW.unsqueeze(0))
    q_QHC = q_BHNC.transpose(1, 2).reshape(batch * n_queries, attention.n_heads, -1).to(dtype)
    # Norms give single precision under autocast, so the three can differ in it. Strided rows are
    # fine, as long as a head's values are adjacent.
    k_SHC, v_SHC = (t_1HSC.squeeze(0).transpose(0, 1).to(dtype) for t_1HSC in (k_1HSC, v_1HSC))
    cu_queries = torch.arange(
        0, batch * n_queries + 1, n_queries, dtype=torch.int32, device=x_BNW.device
    )
    y_QHC = varlen_attn(q_QHC, k_SHC, v_SHC, cu_queries, cu_lengths, n_queries, max_length)
    assert isinstance(y_QHC, Tensor)
    return attention.out(y_QHC.reshape(batch, n_queries, width))
