"""A mini-batch of cells as sets of tokens, padded or packed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from celldit.errors import InputError

__all__ = ["PackedTokens", "TokenSet"]


@dataclass(frozen=True, eq=False)
class TokenSet:
    """Sets of tokens, one per cell, padded to the same number of tokens.

    The order of a cell's tokens carries no meaning; what a token stands for is its identity.

    Parameters
    ----------
    values
        ``(B, T, V)`` float32; zero where ``mask`` is False.
    identities
        ``(B, T)`` long, from 0 to the tokenizer's ``n_identities - 1``; zero where ``mask`` is
        False.
    mask
        ``(B, T)`` bool, True for a real token. A cell may have no real token at all.

    Raises
    ------
    InputError
        If shapes, types or devices do not fit together.
    """

    values: Tensor
    identities: Tensor
    mask: Tensor

    def __post_init__(self) -> None:
        if self.values.ndim != 3:
            raise InputError(
                "The values of a TokenSet must have the shape (cells, tokens, values per token), "
                f"not {tuple(self.values.shape)}."
            )
        for name in ("identities", "mask"):
            shape = tuple(getattr(self, name).shape)
            if shape != tuple(self.values.shape[:2]):
                raise InputError(
                    f"The {name} of a TokenSet must have the shape {tuple(self.values.shape[:2])} "
                    f"like its values, not {shape}."
                )
        _check_types(self.values, self.identities)
        if self.mask.dtype != torch.bool:
            raise InputError(f"The mask of a TokenSet must be bool, not {self.mask.dtype}.")
        if len({self.values.device, self.identities.device, self.mask.device}) > 1:
            raise InputError("The tensors of a TokenSet must be on one device; use .to(device).")

    @property
    def n_cells(self) -> int:
        """Number of cells ``B``."""
        return self.values.shape[0]

    @property
    def n_tokens(self) -> int:
        """Number of tokens ``T`` of each cell, padding included."""
        return self.values.shape[1]

    @property
    def n_values(self) -> int:
        """Number of values ``V`` of each token."""
        return self.values.shape[2]

    @property
    def lengths(self) -> Tensor:
        """Number of real tokens of each cell, ``(B,)`` long."""
        return self.mask.sum(dim=1)

    def to(self, device: torch.device | str) -> TokenSet:
        """Move to a device."""
        return TokenSet(
            self.values.to(device, non_blocking=True),
            self.identities.to(device, non_blocking=True),
            self.mask.to(device, non_blocking=True),
        )

    def pack(self) -> PackedTokens:
        """Leave the padding out and lay all cells' tokens end to end.

        Returns
        -------
        PackedTokens
            The real tokens, each cell's in their order here.
        """
        lengths = self.lengths
        cu_lengths = torch.zeros(self.n_cells + 1, dtype=torch.int32, device=lengths.device)
        cu_lengths[1:] = lengths.cumsum(0)
        max_length = int(lengths.max()) if self.n_cells else 0
        return PackedTokens(
            self.values[self.mask], self.identities[self.mask], cu_lengths, max_length
        )


@dataclass(frozen=True, eq=False)
class PackedTokens:
    """Sets of tokens of different sizes, end to end without padding.

    The form that ``torch.nn.attention.varlen`` takes.

    Parameters
    ----------
    values
        ``(S, V)`` float32, ``S`` the number of real tokens of all cells.
    identities
        ``(S,)`` long.
    cu_lengths
        ``(B + 1,)`` int32: cell ``i`` owns the rows ``cu_lengths[i]`` to ``cu_lengths[i + 1]``.
    max_length
        The largest number of tokens of a cell.

    Raises
    ------
    InputError
        If shapes or types do not fit together.
    """

    values: Tensor
    identities: Tensor
    cu_lengths: Tensor
    max_length: int

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.identities.shape != self.values.shape[:1]:
            raise InputError(
                "PackedTokens need values of shape (tokens, values per token) and one identity per "
                f"token, not {tuple(self.values.shape)} and {tuple(self.identities.shape)}."
            )
        _check_types(self.values, self.identities)
        if self.cu_lengths.ndim != 1 or len(self.cu_lengths) == 0:
            raise InputError(
                "The cu_lengths of PackedTokens must have the shape (cells + 1,), "
                f"not {tuple(self.cu_lengths.shape)}."
            )
        if self.cu_lengths.dtype != torch.int32:
            raise InputError(
                f"The cu_lengths of PackedTokens must be int32, not {self.cu_lengths.dtype}."
            )

    @property
    def n_cells(self) -> int:
        """Number of cells ``B``."""
        return len(self.cu_lengths) - 1

    @property
    def n_tokens(self) -> int:
        """Number of real tokens ``S`` of all cells together."""
        return self.values.shape[0]

    @property
    def n_values(self) -> int:
        """Number of values ``V`` of each token."""
        return self.values.shape[1]

    @property
    def lengths(self) -> Tensor:
        """Number of tokens of each cell, ``(B,)`` long."""
        return self.cu_lengths.diff().long()

    def to(self, device: torch.device | str) -> PackedTokens:
        """Move to a device."""
        return PackedTokens(
            self.values.to(device, non_blocking=True),
            self.identities.to(device, non_blocking=True),
            self.cu_lengths.to(device, non_blocking=True),
            self.max_length,
        )

    def pad(self) -> TokenSet:
        """Pad every cell to ``max_length`` tokens (at least one), real tokens first.

        Returns
        -------
        TokenSet
            The same sets; ``tokens.pack().pad()`` has the real tokens of ``tokens``, moved to the
            front.
        """
        # Attention kernels dislike a dimension of size zero, so cells without tokens get padding.
        width = max(self.max_length, 1)
        slots = torch.arange(width, device=self.values.device)
        mask_BT = slots[None, :] < self.lengths[:, None]
        values_BTV = self.values.new_zeros(self.n_cells, width, self.n_values)
        identities_BT = self.identities.new_zeros(self.n_cells, width)
        values_BTV[mask_BT] = self.values
        identities_BT[mask_BT] = self.identities
        return TokenSet(values_BTV, identities_BT, mask_BT)


def _check_types(values: Tensor, identities: Tensor) -> None:
    if values.dtype != torch.float32:
        raise InputError(f"Token values must be float32, not {values.dtype}.")
    if identities.dtype != torch.int64:
        raise InputError(f"Token identities must be long (int64), not {identities.dtype}.")
