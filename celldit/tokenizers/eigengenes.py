"""Eigengenes: the first principal components of groups of genes.

A group of genes is summed up by the leading principal components of its own centred log expression,
as in PLAGE (Tomfohr, Lu & Kepler 2005, BMC Bioinformatics 6:225) and WGCNA (Langfelder & Horvath
2008, BMC Bioinformatics 9:559), where they are called eigengenes. For the genes ``S`` of a group,
with loadings ``W`` of orthonormal columns,

    value = (x_S - center_S) / scale_S @ W.

The projection of many groups at once is one sparse product: the centring is linear, so it is
subtracted afterwards and the expression stays sparse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy import sparse

from celldit.data.cells import Cells
from celldit.errors import InputError
from celldit.tokenizers.base import Tokenizer, stored
from celldit.tokenizers.canonical import SortedExpression
from celldit.tokenizers.token_set import TokenSet

# Below this share of non-zero loadings a sparse-sparse product beats a sparse-dense one.
_SPARSE_BELOW = 0.015
# A sum of loadings nearer to zero than this says nothing about the sign.
_NO_SIGN = 1e-4
_DTYPES: dict[str, Any] = {
    "members": np.int64,
    "offsets": np.int64,
    "loadings": np.float32,
    "center": np.float32,
    "scale": np.float32,
}


@dataclass(frozen=True, eq=False)
class Eigengenes:
    """Loadings of ``T`` groups of genes, ``V`` components each.

    InputError if the shapes do not fit together.
    """

    members: np.ndarray  # gene indices of all groups end to end, (M,); a gene may be in several
    offsets: np.ndarray  # group t owns the rows offsets[t] to offsets[t + 1], (T + 1,)
    # (M, V) float32, orthonormal columns within each group; columns beyond the size of a small
    # group are zero.
    loadings: np.ndarray
    center: np.ndarray  # mean of each gene's log expression, (G,) float32
    scale: np.ndarray  # its standard deviation, or one

    def __post_init__(self) -> None:
        n_genes, n_members = len(self.center), len(self.members)
        sound = (
            self.loadings.ndim == 2
            and len(self.loadings) == n_members
            and self.scale.shape == (n_genes,)
            and len(self.offsets) >= 1
            and self.offsets[0] == 0
            and self.offsets[-1] == n_members
            and bool(np.all(np.diff(self.offsets) >= 0))
            and (n_members == 0 or 0 <= self.members.min() <= self.members.max() < n_genes)
        )
        if not sound:
            raise InputError(
                "The arrays of this tokenizer do not fit together; give from_config the arrays() "
                "that belong to its configuration."
            )

    @property
    def n_groups(self) -> int:
        """Number of groups ``T``."""
        return len(self.offsets) - 1

    @property
    def n_values(self) -> int:
        """Number of components ``V`` of each group."""
        return self.loadings.shape[1]

    def checked(self, n_genes: int, n_values: int) -> Eigengenes:
        """Return itself if it is for that many genes and values, or raise InputError."""
        if len(self.center) != n_genes or self.n_values != n_values:
            raise InputError(
                f"The arrays of this tokenizer are for {len(self.center)} genes with "
                f"{self.n_values} values per token, but its configuration is for {n_genes} with "
                f"{n_values}; give from_config what one fitted tokenizer returned."
            )
        return self

    def genes_of(self, group: int) -> np.ndarray:
        """Return the gene indices of a group."""
        return self.members[self.offsets[group] : self.offsets[group + 1]]

    @cached_property
    def matrix(self) -> sparse.csr_matrix:
        """The map from log expression to values, ``(G, T * V)`` float32, before the centring."""
        n_values = self.n_values
        group_M = np.repeat(np.arange(self.n_groups), np.diff(self.offsets))
        columns_MV = group_M[:, None] * n_values + np.arange(n_values)
        rows_MV = np.broadcast_to(self.members[:, None], columns_MV.shape)
        weights_MV = self.loadings / self.scale[self.members][:, None]
        shape = (len(self.center), self.n_groups * n_values)
        return sparse.csr_matrix(
            (weights_MV.ravel(), (rows_MV.ravel(), columns_MV.ravel())), shape=shape
        )

    @cached_property
    def _factor(self) -> np.ndarray | sparse.csr_matrix:
        # The loadings belong to the model: dense, they cost the same however many cells there are.
        matrix = self.matrix
        sparse_enough = matrix.nnz < _SPARSE_BELOW * matrix.shape[0] * matrix.shape[1]
        return matrix if sparse_enough else np.ascontiguousarray(matrix.toarray())

    @cached_property
    def _centre(self) -> np.ndarray:
        return (self.matrix.T @ self.center.astype(np.float64)).astype(np.float32)

    def project(self, log_BG: sparse.csr_matrix) -> np.ndarray:
        """Compute the eigengenes of log expression (B, G), float32, shape (B, T, V)."""
        product = log_BG @ self._factor
        values = product.toarray() if sparse.issparse(product) else np.asarray(product)
        values -= self._centre
        return values.reshape(log_BG.shape[0], self.n_groups, self.n_values)

    def tokens(self, log_BG: sparse.csr_matrix) -> TokenSet:
        """Make one token of each group; identities and mask are the same for every cell.

        They are views that repeat one row, so that they cost no memory.
        """
        n_cells = log_BG.shape[0]
        return TokenSet(
            torch.from_numpy(self.project(log_BG)),
            torch.arange(self.n_groups).expand(n_cells, -1),
            torch.ones(1, dtype=torch.bool).expand(n_cells, self.n_groups),
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """Give the arrays by name."""
        return {name: getattr(self, name) for name in _DTYPES}

    @classmethod
    def from_arrays(cls, tokenizer: str, arrays: Mapping[str, np.ndarray]) -> Eigengenes:
        """Make them from what :meth:`arrays` gave; InputError if one is missing or unfit."""
        return cls(
            **{n: np.asarray(stored(tokenizer, arrays, n), dtype=d) for n, d in _DTYPES.items()}
        )


class GroupTokenizer(Tokenizer):
    """One token for each group of genes, the same for every cell."""

    n_values: int
    _eigengenes: Eigengenes

    @property
    def eigengenes(self) -> Eigengenes:
        """The fitted loadings."""
        self._check_fitted()
        return self._eigengenes

    @property
    def n_identities(self) -> int:
        """Number of tokens ``T``."""
        return self.eigengenes.n_groups

    def __call__(self, cells: Cells) -> TokenSet:
        self._check_genes(cells.genes)
        return self.eigengenes.tokens(cells.log_normalized())

    def genes_of(self, token: int) -> tuple[str, ...]:
        """Return the names of the genes of a token."""
        return tuple(self.genes[index] for index in self.eigengenes.genes_of(token))

    def arrays(self) -> dict[str, np.ndarray]:
        """Give the fitted loadings; see :class:`Eigengenes`."""
        return self.eigengenes.arrays()

    def _restore(self, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        genes = tuple(stored(self.name, config, "genes"))
        eigengenes = Eigengenes.from_arrays(self.name, arrays)
        self._eigengenes = eigengenes.checked(len(genes), self.n_values)
        self._genes = genes


def fit_eigengenes(
    expression: SortedExpression, groups: Sequence[np.ndarray], n_values: int, *, scale: bool
) -> Eigengenes:
    """Find the leading principal components of groups of genes, columns of the expression.

    With `scale` each gene is divided by its standard deviation first. The result is in the order of
    the genes of the cells. Each component has the sign that makes the sum of its loadings positive,
    so that a high value means that the group is expressed.
    """
    log_SG = expression.log_SG
    mean_G, std_G = _moments(log_SG)
    scale_G = np.where(std_G > 0, std_G, 1.0) if scale else np.ones_like(std_G)
    sorted_groups = [np.sort(np.asarray(group, dtype=np.int64)) for group in groups]
    blocks = [_components(log_SG, group, mean_G, scale_G, n_values) for group in sorted_groups]
    center = np.empty(len(mean_G), dtype=np.float32)
    gene_scale = np.empty(len(mean_G), dtype=np.float32)
    center[expression.order], gene_scale[expression.order] = mean_G, scale_G
    members = np.concatenate([*sorted_groups, np.empty(0, dtype=np.int64)])
    return Eigengenes(
        members=expression.order[members].astype(np.int64),
        offsets=np.cumsum([0, *map(len, sorted_groups)], dtype=np.int64),
        loadings=np.concatenate([*blocks, np.empty((0, n_values))]).astype(np.float32),
        center=center,
        scale=gene_scale,
    )


def _moments(log_SG: sparse.csc_matrix) -> tuple[np.ndarray, np.ndarray]:
    n_cells = log_SG.shape[0]
    mean = np.asarray(log_SG.sum(axis=0, dtype=np.float64)).ravel() / n_cells
    square = np.asarray(log_SG.power(2).sum(axis=0, dtype=np.float64)).ravel() / n_cells
    variance = square - mean**2
    # What is left of a constant gene after the subtraction is rounding, not variance.
    variance[variance < 1e-6 * square] = 0.0
    return mean, np.sqrt(variance)


def _components(
    log_SG: sparse.csc_matrix,
    group: np.ndarray,
    mean_G: np.ndarray,
    scale_G: np.ndarray,
    n_values: int,
) -> np.ndarray:
    """Leading eigenvectors of one group's covariance, (n, V), zero columns beyond n."""
    # Dense only in the columns of one group and in a bounded number of cells.
    x_Sn = log_SG[:, group].toarray()
    x_Sn -= mean_G[group].astype(np.float32)
    x_Sn /= scale_G[group].astype(np.float32)
    covariance = (x_Sn.T @ x_Sn).astype(np.float64) / len(x_Sn)
    n_found = min(n_values, len(group))
    vectors = np.linalg.eigh(covariance).eigenvectors[:, ::-1][:, :n_found]
    loadings = np.zeros((len(group), n_values))
    loadings[:, :n_found] = vectors * _signs(vectors)
    return loadings


def _signs(vectors: np.ndarray) -> np.ndarray:
    sums = vectors.sum(axis=0)
    largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])]
    return np.where(np.where(np.abs(sums) > _NO_SIGN, sums, largest) < 0, -1.0, 1.0)
