"""Rows of a sparse matrix on their way to the device, where they become dense."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

__all__ = ["SparseRows"]


@dataclass(frozen=True, eq=False)
class SparseRows:
    """B rows of G numbers, most of them zero.

    With one gene in twenty expressed, they are a fifth of the dense rows to copy.

    Attributes
    ----------
    values
        What is not zero, float32, shape (E,).
    at
        Where it stands in the flattened rows, int64, shape (E,).
    shape
        B and G.
    """

    values: Tensor
    at: Tensor
    shape: tuple[int, int]

    @classmethod
    def of(cls, rows: sparse.csr_matrix) -> SparseRows:
        """Wrap a canonical CSR matrix (no entry twice)."""
        n_rows, n_columns = rows.shape
        row = np.repeat(np.arange(n_rows, dtype=np.int64), np.diff(rows.indptr))
        at = row * n_columns + rows.indices
        return cls(torch.from_numpy(rows.data), torch.from_numpy(at), (n_rows, n_columns))

    def filled_up(self, n_rows: int) -> SparseRows:
        """The same with rows of zeros behind, `n_rows` in all."""
        return SparseRows(self.values, self.at, (n_rows, self.shape[1]))

    def to(self, device: Any, **options: Any) -> SparseRows:
        """Copy to a device."""
        values, at = self.values.to(device, **options), self.at.to(device, **options)
        return SparseRows(values, at, self.shape)

    def dense(self) -> Tensor:
        """The rows with their zeros, shape (B, G), on the device where they are."""
        flat = self.values.new_zeros(self.shape[0] * self.shape[1])
        return flat.scatter_(0, self.at, self.values).view(self.shape)
