"""Latents of all training cells, in memory or in a file, gone through a block at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
from scipy import sparse

BLOCK = 1 << 16


class Latents(Protocol):
    """N rows of numbers: an array (N, F), a tensor (N, K, D), or a file of them."""

    @property
    def shape(self) -> Any: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> Any: ...


def n_features(z: Latents) -> int:
    """Numbers of a cell, F."""
    return math.prod(z.shape[1:])


def rows_of(z: Latents, index: np.ndarray | slice) -> np.ndarray:
    """Some rows, float64, shape (n, F)."""
    if isinstance(z, torch.Tensor) and isinstance(index, np.ndarray):
        rows = z[torch.from_numpy(index)]
    else:
        rows = z[index]
    flat = np.asarray(rows).reshape(len(rows), -1)
    return flat.astype(np.float64)


def blocks(z: Latents) -> Iterator[tuple[slice, np.ndarray]]:
    """All rows in order, float64, with where they stand."""
    for start in range(0, len(z), BLOCK):
        where = slice(start, min(start + BLOCK, len(z)))
        yield where, rows_of(z, where)


def condition_sums(z: Latents, index: np.ndarray, n: int) -> np.ndarray:
    """Sum of the rows of each of n conditions, shape (n, F)."""
    sums = np.zeros((n, n_features(z)))
    for where, block in blocks(z):
        sums += membership(index[where], n) @ block
    return sums


def membership(group_N: np.ndarray, n_groups: int) -> sparse.csr_matrix:
    """Ones where a cell is of a group, shape (groups, N): times values of cells, their sums."""
    n = len(group_N)
    return sparse.csr_matrix((np.ones(n), (group_N, np.arange(n))), shape=(n_groups, n))
