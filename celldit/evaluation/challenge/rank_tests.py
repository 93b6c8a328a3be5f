"""Wilcoxon's rank-sum test of many groups against one sample of control cells.

Control values are sorted once for each gene; the rank of a perturbed cell's value among them is
looked up. Sorting every group together with the control cells, as the plain test does, repeats the
work for each group.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse, stats

from celldit.evaluation.challenge.panel import CountGroups, indicator
from celldit.evaluation.metrics.differential import DifferentialExpression, rank_sum_p_values

#: Genes with less in the control cells, on average, are not tested (counts per million).
LEAST_CPM = 5.0
# Keeps fold changes finite.
EPSILON = 1e-9
# Genes that are held by columns at a time.
BLOCK = 256


@dataclass(frozen=True, eq=False)
class ControlRanks:
    """K control cells, each gene's values sorted.

    `values` has shape (K, G), by columns, of each the entries above 0 ascending, wherever they
    stood; `ties` is the sum of t^3 - t over the groups of equal values above 0, `means` the mean
    counts per million, shape (G,) both.
    """

    values: sparse.csc_matrix
    ties: np.ndarray
    means: np.ndarray

    @classmethod
    def of(cls, counts_KG: sparse.csr_matrix) -> ControlRanks:
        """Sort the values of control cells."""
        per_million = _totals(counts_KG)
        means_G = np.zeros(counts_KG.shape[1])
        blocks = []
        for start in range(0, counts_KG.shape[1], BLOCK):
            block = _columns(counts_KG, start, per_million)
            means_G[start : start + BLOCK] = np.asarray(block.sum(axis=0, dtype=np.float64)).ravel()
            blocks.append(_log(block))
        found = cls(
            sparse.hstack(blocks, format="csc"),
            np.zeros(counts_KG.shape[1]),
            means_G / counts_KG.shape[0],
        )
        for g in range(len(found.ties)):
            values = found.of_gene(g)
            values.sort()
            if len(values):
                ends = np.flatnonzero(values[1:] != values[:-1]) + 1
                runs = np.diff(np.concatenate([[0], ends, [len(values)]]))
                found.ties[g] = _cubed(runs.astype(np.float64)).sum()
        return found

    def of_gene(self, g: int) -> np.ndarray:
        """Values above 0 of a gene, ascending."""
        return self.values.data[self.values.indptr[g] : self.values.indptr[g + 1]]

    @property
    def tested(self) -> np.ndarray:
        """Whether a gene is expressed enough to be tested, shape (G,)."""
        return self.means > LEAST_CPM


def rank_tests(groups: CountGroups, control: ControlRanks) -> DifferentialExpression:
    """Test P groups of cells against the control cells, each cell scaled to a million counts.

    Fold changes are of means of counts per million; p values have a correction for ties, none for
    continuity; genes that are not tested have NaN in all, shapes (P, G).
    Equal to ``scanpy.tl.rank_genes_groups(method="wilcoxon", tie_correct=True)`` of each group with
    the control cells.
    """
    n_groups, n_genes = len(groups.labels), groups.counts.shape[1]
    sizes_P = groups.sizes.astype(np.float64)
    picks = indicator(groups.codes, n_groups)
    per_million = _totals(groups.counts)
    means_PG, p_PG = np.zeros((n_groups, n_genes)), np.full((n_groups, n_genes), np.nan)
    u_PG, ties_PG = np.zeros((n_groups, n_genes)), np.zeros((n_groups, n_genes))
    tested = np.flatnonzero(control.tested)
    # A block of genes at a time, so that no second copy of all cells is made.
    for start in range(0, n_genes, BLOCK):
        linear = _columns(groups.counts, start, per_million)
        sums_PG = (picks @ linear.astype(np.float64)).toarray()
        means_PG[:, start : start + BLOCK] = sums_PG / sizes_P[:, None]
        block = _log(linear)
        for g in tested[(tested >= start) & (tested < start + BLOCK)]:
            entries = slice(block.indptr[g - start], block.indptr[g - start + 1])
            u_PG[:, g], ties_PG[:, g] = _statistic(
                block.data[entries], groups.codes[block.indices[entries]], sizes_P, control, int(g)
            )
    n_control = control.values.shape[0]
    p_PG[:, tested] = rank_sum_p_values(
        u_PG[:, tested], ties_PG[:, tested], sizes_P[:, None], n_control
    )
    changes_PG = np.log2((means_PG + EPSILON) / (control.means + EPSILON))
    q_PG = np.full(means_PG.shape, np.nan)
    if tested.size:
        q_PG[:, tested] = stats.false_discovery_control(p_PG[:, tested], axis=1)
    changes_PG[:, ~control.tested] = np.nan
    return DifferentialExpression(changes_PG, p_PG, q_PG)


def _statistic(
    values: np.ndarray, codes: np.ndarray, sizes_P: np.ndarray, control: ControlRanks, gene: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mann and Whitney's U of each group, and the sum of t^3 - t over ties with the controls."""
    n_groups = len(sizes_P)
    base = control.of_gene(gene)
    n_zero = control.values.shape[0] - len(base)
    # One sort by group and value: floats above 0 have the order of their bits.
    keys = (codes.astype(np.uint64) << np.uint64(32)) | values.view(np.uint32)
    keys.sort()
    group = (keys >> np.uint64(32)).astype(np.int64)
    value = (keys & np.uint64(0xFFFFFFFF)).astype(np.uint32).view(np.float32)
    below = np.searchsorted(base, value, side="left")
    upto = np.searchsorted(base, value, side="right")
    zeros_P = sizes_P - np.bincount(group, minlength=n_groups)
    looked_up_P = np.bincount(group, weights=n_zero + 0.5 * (below + upto), minlength=n_groups)
    u_P = looked_up_P + 0.5 * n_zero * zeros_P
    ties_P = control.ties[gene] + _cubed(n_zero + zeros_P)
    if len(keys):
        starts = np.append(0, np.flatnonzero(keys[1:] != keys[:-1]) + 1)
        own = np.diff(np.append(starts, len(keys))).astype(np.float64)
        theirs = (upto - below)[starts].astype(np.float64)
        gained = _cubed(own + theirs) - _cubed(theirs)
        ties_P = ties_P + np.bincount(group[starts], weights=gained, minlength=n_groups)
    return u_P, ties_P


def _cubed(t: np.ndarray) -> np.ndarray:
    return t**3 - t


def _totals(counts_NG: sparse.csr_matrix) -> np.ndarray:
    """Millions of counts of each cell, float32, what scanpy's normalize_total divides by."""
    totals_N = np.asarray(counts_NG.sum(axis=1), dtype=np.float32).ravel() / np.float32(1e6)
    return np.where(totals_N > 0, totals_N, np.float32(1.0))


def _columns(counts_NG: sparse.csr_matrix, start: int, totals_N: np.ndarray) -> sparse.csc_matrix:
    """A block of genes by columns, each cell scaled to a million counts, float32."""
    block = counts_NG[:, start : start + BLOCK].tocsc().astype(np.float32)
    block.data /= totals_N[block.indices]
    block.eliminate_zeros()
    return block


def _log(linear: sparse.csc_matrix) -> sparse.csc_matrix:
    """log(1 + x), in place."""
    np.log1p(linear.data, out=linear.data)
    return linear
