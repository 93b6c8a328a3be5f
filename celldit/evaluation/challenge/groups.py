"""Counts of perturbed cells, grouped by what was done to them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

# Rows of a sparse matrix that are held in float64 at a time.
CHUNK = 1024


@dataclass(frozen=True, eq=False)
class CountGroups:
    """N cells in P groups.

    Parameters
    ----------
    counts
        Counts, 0 or above, shape (N, G), CSR.
    codes
        Group of each cell, shape (N,).
    labels
        Names of the P groups, sorted.
    """

    counts: sparse.csr_matrix
    codes: np.ndarray
    labels: tuple[str, ...]

    @classmethod
    def of(cls, counts: sparse.csr_matrix, labels_N: np.ndarray) -> CountGroups:
        """Group cells by their labels."""
        names, codes = np.unique(np.asarray(labels_N, dtype=str), return_inverse=True)
        return cls(counts, codes, tuple(map(str, names)))

    @classmethod
    def single(cls, counts: sparse.csr_matrix, label: str = "control") -> CountGroups:
        """All cells as one group."""
        return cls(counts, np.zeros(counts.shape[0], dtype=np.int64), (label,))

    @property
    def sizes(self) -> np.ndarray:
        """Cells of each group, shape (P,)."""
        return np.bincount(self.codes, minlength=len(self.labels))

    def rows(self) -> list[np.ndarray]:
        """Positions of the cells of each group, in the order of the labels."""
        order = np.argsort(self.codes, kind="stable")
        return np.split(order, np.cumsum(self.sizes)[:-1])

    def take(self, rows: np.ndarray) -> CountGroups:
        """Some cells; the groups stay."""
        return CountGroups(self.counts[rows], self.codes[rows], self.labels)

    def only(self, labels: tuple[str, ...]) -> CountGroups:
        """Some groups."""
        if labels == self.labels:
            return self
        kept = [self.labels.index(label) for label in labels]
        rows = np.flatnonzero(np.isin(self.codes, kept))
        return CountGroups.of(self.counts[rows], np.asarray(self.labels)[self.codes[rows]])

    def sums(self) -> np.ndarray:
        """Sum of the counts of each group, float64, shape (P, G)."""
        total_PG = np.zeros((len(self.labels), self.counts.shape[1]))
        for start in range(0, self.counts.shape[0], CHUNK):
            codes = self.codes[start : start + CHUNK]
            picks = sparse.csr_matrix(
                (np.ones(len(codes)), (codes, np.arange(len(codes)))),
                shape=(len(self.labels), len(codes)),
            )
            part = self.counts[start : start + CHUNK].astype(np.float64)
            total_PG += (picks @ part).toarray()
        return total_PG
