"""Find what measured effects hold beyond the latent.

Strength λ and shared variance μ of a gene are picked from a grid by the marginal likelihood of the
gene's remainders and by how often each pair is picked among the genes (empirical Bayes, by
expectation maximisation): with a few conditions a gene alone hardly tells.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from celldit.conditions import ConditionTable
from celldit.effects.other_outputs import OtherOutputs
from celldit.effects.prior import EffectPrior
from celldit.effects.residual_genes import ResidualGenes, in_steps

SIGNALS = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
COMMONS = (0.0, 0.01, 0.1, 1.0)
ROUNDS = 30
# Means over fewer cells are too far from Gaussian.
MIN_CELLS = 10
# Of conditions times genes; beyond it the genes that need it most are kept.
MAX_ENTRIES = 5_000_000
CHUNK = 1_000


def fit_residual_genes(
    table: ConditionTable,
    prior: EffectPrior,
    slopes_FG: np.ndarray,
    mean_CG: np.ndarray,
    scatter_G: np.ndarray,
) -> ResidualGenes:
    """Find what measured effects hold beyond a line from the latent.

    Parameters
    ----------
    table
        Conditions of the training cells.
    prior
        The trained one.
    slopes_FG
        The line.
    mean_CG
        Mean log expression of each condition of the table.
    scatter_G
        Standard deviation within conditions of log expression less the line.
    """
    n_genes = mean_CG.shape[1]
    index, controls, counts = table.row_of, table.controls(MIN_CELLS), table.counts
    rows = []
    for i, condition in enumerate(prior.conditions):
        control = controls.get(condition.stratum)
        if condition not in index or control is None:
            continue
        n = counts[index[condition]]
        # Of conditions that an earlier training observed, too, the prior tells the mean shift over
        # both, which these cells' log expression cannot be compared with.
        if n >= MIN_CELLS and np.isclose(1 / n + 1 / counts[control], prior.noise[i]):
            rows.append(i)
    if not rows:
        return ResidualGenes.none(n_genes)
    conditions, noise_C = tuple(prior.conditions[i] for i in rows), prior.noise[rows]
    at = [index[c] for c in conditions]
    base = [controls[c.stratum] for c in conditions]
    shifts_CF = prior.shifts[rows] @ np.linalg.inv(prior.rotation)
    empty = np.zeros((len(rows), 0))
    # One gene is mostly noise, that of the controls of a context in all its conditions alike: which
    # effects are common is to be told by perturbations that were left out.
    outputs = OtherOutputs.of(prior.of_unseen, conditions, noise_C, empty, *np.zeros((2, 0)))
    signals_L, commons_L = zip(*product(SIGNALS, COMMONS), strict=True)
    shifts, likelihoods = [], []
    for start in range(0, n_genes, CHUNK):
        some = slice(start, start + CHUNK)
        change_CG = mean_CG[at, some] - mean_CG[base, some]
        shift_CG = (change_CG - shifts_CF @ slopes_FG[:, some]) / scatter_G[some]
        # As it will be stored, so that a loaded model says the same.
        shifts.append(in_steps(shift_CG))
        none = np.zeros(shift_CG.shape[1])
        seen = outputs.observed.with_shifts(shifts[-1].astype(np.float64), none, none)
        likelihoods.append(seen.log_likelihoods(signals_L, commons_L))
    likelihood_LG = np.concatenate(likelihoods, axis=1)
    best_G = _pick(likelihood_LG)
    gain_G = likelihood_LG[best_G, np.arange(n_genes)] - likelihood_LG[0]
    gain_G[best_G == 0] = -np.inf
    most = max(MAX_ENTRIES // len(rows), 1)
    gene_H = np.sort(np.argsort(-gain_G, kind="stable")[:most])
    gene_H = gene_H[np.isfinite(gain_G[gene_H])]
    if len(gene_H) == 0:
        return ResidualGenes.none(n_genes)
    return ResidualGenes(
        conditions,
        n_genes,
        gene_H,
        np.concatenate(shifts, axis=1)[:, gene_H],
        noise_C,
        scatter_G[gene_H],
        np.array(signals_L)[best_G[gene_H]],
        np.array(commons_L)[best_G[gene_H]],
    )


def _pick(likelihood_LG: np.ndarray) -> np.ndarray:
    """Which of L strengths each gene has, given how often each occurs among them, shape (G,)."""
    share_L = np.full(len(likelihood_LG), 1 / len(likelihood_LG))
    posterior_LG = likelihood_LG
    for _ in range(ROUNDS):
        log_LG = np.log(share_L + 1e-12)[:, None] + likelihood_LG
        posterior_LG = np.exp(log_LG - log_LG.max(0))
        posterior_LG /= posterior_LG.sum(0)
        share_L = posterior_LG.mean(1)
    best_G: np.ndarray = posterior_LG.argmax(0)
    return best_G
