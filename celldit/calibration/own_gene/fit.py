"""Learn what knock-outs leave of their own gene from histograms of its counts.

A cell whose control would have x counts keeps them with probability u, and otherwise each count
with probability p,

    y ~ u x + (1 - u) Binomial(x, p),   x ~ controls of its context.

The posterior of u and log p is summed over a grid; its prior is what knock-outs have in common,
learned from them (empirical Bayes, by expectation maximisation) beside one perturbation's worth
that holds u = 0 as likely as all else.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse
from scipy.stats import binom

from celldit.calibration.own_gene.kept import OwnGene, OwnGenes
from celldit.calibration.own_gene.on_target import MIN_CELLS, MIN_PERTURBATIONS
from celldit.calibration.responses import Responses
from celldit.conditions import ConditionTable
from celldit.data.cells import Cells
from celldit.data.symbols import columns_of

# Lower ends of bins of counts: each its own up to 8, then wider ones.
EDGES = np.unique(np.concatenate([np.arange(9), 8 * 1.3 ** np.arange(1, 32)]).astype(np.int64))
KEPT = np.arange(0, 1, 0.05)
LOG_FACTORS = np.array([-4, -3, -2.5, -2, -1.5, -1.25, -1, -0.75, -0.5, -0.35, -0.2, -0.1, 0.0])
ROUNDS = 30
# A share of cells below this is none.
LEAST_KEPT = 0.02


class OwnCounts:
    """Histograms of the counts of perturbed genes, where they are perturbed and in controls.

    Parameters
    ----------
    table
        Conditions of the training cells; those of one perturbation, without doses, are looked at.
    genes
        Names of the genes.
    responses
        Says of which contexts controls are known.
    """

    def __init__(self, table: ConditionTable, genes: Sequence[str], responses: Responses) -> None:
        column = columns_of((p for c in table.conditions for p in c.parts), genes)
        controls = {k: row for k, row in table.controls().items() if k in responses.curves}
        n = len(table.conditions)
        self.parts = [c.parts[0] if len(c.parts) == 1 else "" for c in table.conditions]
        self.gene_C, self.control_C = np.full((2, n), -1)
        for i, condition in enumerate(table.conditions):
            many = table.counts[i] >= MIN_CELLS and condition.stratum in controls
            if many and condition.doses is None and self.parts[i] in column:
                self.gene_C[i] = column[self.parts[i]]
                self.control_C[i] = controls[condition.stratum]
        self.counts_C, used = table.counts, np.flatnonzero(self.gene_C >= 0)
        # Several perturbations of a stratum may have one gene, under two of its names.
        at = np.stack([self.control_C[used], self.gene_C[used]])
        pair_2X, self.pair_C = np.unique(at, axis=1, return_inverse=True)
        self.treated_CK = np.zeros((n, len(EDGES)), np.float32)
        self.controls_XK = np.zeros((pair_2X.shape[1], len(EDGES)), np.float32)
        numbers_X = np.arange(1, pair_2X.shape[1] + 1)
        self.pair_CG = sparse.csr_matrix((numbers_X, tuple(pair_2X)), (n, len(genes)))

    def add(self, cells: Cells, of_cell: np.ndarray) -> None:
        """Count some cells, of which `of_cell` says the condition."""
        counts = cells.counts.tocoo()
        condition_E = of_cell[counts.row]
        own = self.gene_C[condition_E] == counts.col
        np.add.at(self.treated_CK, (condition_E[own], _bins(counts.data[own])), 1)
        if np.isin(of_cell, self.control_C).any():
            pair_E = np.ravel(self.pair_CG[condition_E, counts.col]) - 1
            of_pair = pair_E >= 0
            np.add.at(self.controls_XK, (pair_E[of_pair], _bins(counts.data[of_pair])), 1)

    def fit(self) -> OwnGenes:
        """Learn what is left of each gene."""
        log_likelihoods: dict[str, np.ndarray] = {}
        log_K = np.log1p(_values()).mean(axis=1)
        thinned_PKK = _thinned()
        rises: dict[str, float] = {}
        for i, pair in zip(np.flatnonzero(self.gene_C >= 0), self.pair_C, strict=True):
            part = self.parts[i]
            treated_K = _with_zeros(self.treated_CK[i], self.counts_C[i])
            control_K = _with_zeros(self.controls_XK[pair], self.counts_C[self.control_C[i]])
            usual = control_K @ log_K / control_K.sum()
            rise = float(treated_K @ (log_K - usual))
            rises[part] = rises.get(part, 0.0) + rise
            control_K = (control_K + 1 / len(EDGES)) / (control_K.sum() + 1)
            lost_PK = control_K @ thinned_PKK
            mixed = KEPT[:, None, None] * control_K + (1 - KEPT[:, None, None]) * lost_PK
            log_UP = np.log(mixed + 1e-12) @ treated_K
            log_likelihoods[part] = log_likelihoods.get(part, 0.0) + log_UP
        falling = [part for part in log_likelihoods if rises[part] < 0]
        if not falling:
            return OwnGenes()
        log_XUP = np.stack([log_likelihoods[part] for part in falling])
        likelihood_XUP = np.exp(log_XUP - log_XUP.max(axis=(1, 2), keepdims=True))
        start_UP = np.full(log_XUP.shape[1:], 0.5 / ((len(KEPT) - 1) * len(LOG_FACTORS)))
        start_UP[0] = 0.5 / len(LOG_FACTORS)
        prior_UP = start_UP
        for _ in range(ROUNDS):
            posterior_XUP = prior_UP * likelihood_XUP
            posterior_XUP /= posterior_XUP.sum(axis=(1, 2), keepdims=True)
            prior_UP = (posterior_XUP.sum(0) + start_UP) / (len(falling) + 1)
        found = {part: _mean(own_UP) for part, own_UP in zip(falling, posterior_XUP, strict=True)}
        # Tied to none as if one more had been seen of which none keep it.
        usual = sum(own.kept for own in found.values()) / (len(found) + 1)
        return OwnGenes(found, round(usual, 4) if len(found) >= MIN_PERTURBATIONS else 0.0)


def _mean(posterior_UP: np.ndarray) -> OwnGene:
    """Mean share, and the factor that leaves as much of the gene on average."""
    kept = float(posterior_UP.sum(axis=1) @ KEPT)
    kept = round(kept, 4) if kept >= LEAST_KEPT else 0.0
    left_UP = KEPT[:, None] + (1 - KEPT[:, None]) * np.exp(LOG_FACTORS)
    left = (float((posterior_UP * left_UP).sum()) - kept) / (1 - kept)
    return OwnGene(kept, round(float(np.log(max(left, np.exp(LOG_FACTORS[0])))), 4))


def _with_zeros(of_counts_K: np.ndarray, n_cells: int) -> np.ndarray:
    """A histogram with the cells that have no count."""
    found_K = of_counts_K.astype(np.float64)
    found_K[0] += n_cells - found_K.sum()
    return found_K


def _bins(counts: np.ndarray) -> np.ndarray:
    return np.searchsorted(EDGES, counts, side="right") - 1


def _values() -> np.ndarray:
    """Five counts of each bin, (K, 5)."""
    ends = np.append(EDGES[1:] - 1, EDGES[-1])
    return np.linspace(EDGES, ends, 5).round().astype(np.int64).T


def _thinned() -> np.ndarray:
    """Where counts of each bin are when each stays with probability exp(log factor), (P, K, K)."""
    ends = np.append(EDGES[1:] - 1, np.iinfo(np.int64).max)
    p = np.exp(LOG_FACTORS)[:, None, None, None]
    below = binom.cdf(ends, _values()[None, :, :, None], p).mean(axis=2)
    return np.diff(below, axis=2, prepend=0)
