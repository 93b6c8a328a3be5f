"""A mini-batch of cells as sets of tokens, padded."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from celldit.errors import InputError


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
        shape = tuple(self.values.shape)
        for name, expected, dtype in (
            ("values", shape, torch.float32),
            ("identities", shape[:2], torch.int64),
            ("mask", shape[:2], torch.bool),
        ):
            tensor: Tensor = getattr(self, name)
            if tuple(tensor.shape) != expected:
                raise InputError(
                    f"The {name} of a TokenSet must have the shape {expected} like its values, not "
                    f"{tuple(tensor.shape)}."
                )
            if tensor.dtype != dtype:
                raise InputError(f"The {name} of a TokenSet must be {dtype}, not {tensor.dtype}.")
            if tensor.device != self.values.device:
                raise InputError("The tensors of a TokenSet must be on one device; move them.")

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
