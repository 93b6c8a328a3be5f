"""Principal components of cells x genes, of which only a block of cells is dense at a time.

Up to some thousand genes their scatter matrix is made, once, and its leading eigenvectors are found
by Lanczos iterations. Of more genes no matrix genes x genes is made: LOBPCG (Knyazev 2001, SIAM J.
Sci. Comput. 23:517) takes a block of vectors through the cells a few times. Blocks are dense, since
products of sparse rows with a few dozen columns wait for memory: where one entry in three is
not zero they take several times as long.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, eigsh, lobpcg

Rows: TypeAlias = Any
"""A sparse matrix or an array."""

FEW_FEATURES = 5_000
"""Features up to which their scatter matrix is made."""
SMALL = 1_000
"""Features up to which it is decomposed whole."""
BLOCK_VALUES = 8_000_000
"""Numbers of a dense block of rows; 32 MB."""
N_ITERATIONS = 7
N_EXTRA = 12


@dataclass(frozen=True, eq=False)
class Components:
    """Principal components of N rows of F features."""

    mean_F: np.ndarray
    squares_R: np.ndarray  # sum over rows of the squared scores along each component, falling
    directions_FR: np.ndarray  # the components, orthonormal
    total: float  # sum of squares of the rows less their mean


def principal_components(rows: Rows, n_components: int, seed: int) -> Components:
    """Find the leading principal components of rows (N, F), sparse or dense; at most N and F.

    The seed is that of the vectors that iterations start from.
    """
    n_rows, n_features = rows.shape
    rank = min(n_components, n_rows, n_features)
    mean_F = np.asarray(rows.mean(axis=0, dtype=np.float64)).ravel()
    rng = np.random.default_rng(seed)
    if n_features <= FEW_FEATURES:
        scatter_FF = np.zeros((n_features, n_features))
        for block_BF in _centred_blocks(rows, mean_F):
            scatter_FF += block_BF.T @ block_BF
        total = float(np.trace(scatter_FF))
        if n_features <= SMALL or 4 * rank > n_features or total <= 0:
            squares, vectors = np.linalg.eigh(scatter_FF)
        else:
            squares, vectors = eigsh(scatter_FF, rank, v0=rng.normal(size=n_features))
    else:
        start_FK = rng.normal(size=(n_features, min(rank + N_EXTRA, n_features // 6)))
        total = float(sum(np.vdot(block, block) for block in _centred_blocks(rows, mean_F)))
        with warnings.catch_warnings():
            # It says that it did not converge to the last digits, which nobody needs.
            warnings.simplefilter("ignore", UserWarning)
            squares, vectors = lobpcg(
                _gram(rows, mean_F), start_FK, largest=True, maxiter=N_ITERATIONS, tol=1e-8 * total
            )
    order = np.argsort(squares)[::-1][:rank]
    return Components(mean_F, squares[order].clip(min=0), vectors[:, order], total)


def _gram(rows: Rows, mean_F: np.ndarray) -> LinearOperator:
    """The scatter matrix as a map of some vectors at a time, (F, F)."""

    def product(vectors_FK: np.ndarray) -> np.ndarray:
        vectors_FK = vectors_FK.reshape(len(mean_F), -1).astype(np.float32)
        product_FK = np.zeros(vectors_FK.shape)
        for block_BF in _centred_blocks(rows, mean_F):
            product_FK += block_BF.T @ (block_BF @ vectors_FK)
        return product_FK

    shape = len(mean_F), len(mean_F)
    return LinearOperator(shape, matvec=product, matmat=product, dtype=np.dtype(np.float64))


def _centred_blocks(rows: Rows, mean_F: np.ndarray) -> Iterator[np.ndarray]:
    """Dense blocks of rows less their mean, float32."""
    size = max(BLOCK_VALUES // max(len(mean_F), 1), 1)
    rows = sparse.csr_matrix(rows) if sparse.issparse(rows) else rows
    for start in range(0, rows.shape[0], size):
        some = rows[start : start + size]
        dense_BF = some.toarray() if sparse.issparse(some) else np.array(some)
        dense_BF = dense_BF.astype(np.float32, copy=False)
        dense_BF -= mean_F.astype(np.float32)
        yield dense_BF
