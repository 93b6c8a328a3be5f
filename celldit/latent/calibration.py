"""Where the decoder starts: a negative binomial regression of counts on the latent.

For each gene, ``log μ = log(size / 10,000) + bias + z · slopes``, by iteratively reweighted least
squares (Nelder & Wedderburn 1972) with a Gaussian prior on the slopes whose variance, one per
latent dimension and shared by all genes, is estimated from the data (empirical Bayes with the
update of MacKay 1992, "Bayesian interpolation"). Trailing principal components of few cells are
mostly noise; their variance comes out small, and so do their slopes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

MAX_ENTRIES = 20_000_000
MIN_CELLS = 2_000
GENES_AT_ONCE = 2_048
MAX_STEP = 1.0
MAX_SLOPE = 4.0
MAX_THETA = 1e3
MIN_THETA = 1e-2
PRIOR_PRECISION = 4.0


@dataclass(frozen=True, eq=False)
class LogLinear:
    """A log-linear model of counts."""

    bias_G: Tensor  # log counts per 10,000 at the origin of the latent
    slopes_FG: Tensor  # change of that with each of F latent dimensions
    theta_G: Tensor  # inverse dispersion


def thin(n_cells: int, n_genes: int, seed: int) -> np.ndarray:
    """Positions of the cells to calibrate on: all, or as many as keep it within seconds."""
    most = max(MIN_CELLS, MAX_ENTRIES // max(1, n_genes))
    if n_cells <= most:
        return np.arange(n_cells)
    return np.sort(np.random.default_rng(seed).choice(n_cells, most, replace=False))


@torch.no_grad()
def calibrate(
    z_NF: Tensor,
    counts_NG: Tensor,
    size_N: Tensor,
    start: LogLinear,
    *,
    around: Tensor | None = None,
    offset_NG: Tensor | None = None,
    n_steps: int = 4,
) -> LogLinear:
    """Take Newton steps for all genes at once, each of about N·G·F² operations.

    Of N cells there are latents, counts, dense float32, and size factors, in counts. The prior of
    the slopes has the mean `around`, (F, G), or zero; the log expectation may hold an offset
    besides.
    """
    n_dims, n_genes = start.slopes_FG.shape
    design_NP = torch.cat([z_NF, torch.ones(len(z_NF), 1)], dim=1)
    rows, columns = torch.triu_indices(n_dims + 1, n_dims + 1)
    products_NQ = design_NP[:, rows] * design_NP[:, columns]
    offset_N1 = torch.log(size_N / 1e4)[:, None]
    weights_PG = torch.cat([start.slopes_FG, start.bias_G[None]])
    # The bias has a prior, too, around where it starts, so wide that only genes never seen feel it.
    prior_FG = torch.zeros_like(start.slopes_FG) if around is None else around
    prior_PG = torch.cat([prior_FG, start.bias_G[None]])
    theta_G = start.theta_G.clone()
    variance_F = (start.slopes_FG - prior_FG).square().mean(1).clamp_min(1e-4)
    for _ in range(n_steps):
        precision_P = torch.cat([1 / variance_F, torch.tensor([1e-2])])
        squares_F, freedom_F = torch.zeros(n_dims), torch.zeros(n_dims)
        inverse_G, moment_precision_G = torch.empty(n_genes), torch.empty(n_genes)
        for begin in range(0, n_genes, GENES_AT_ONCE):
            some = slice(begin, begin + GENES_AT_ONCE)
            x_NG, w_PG = counts_NG[:, some], weights_PG[:, some]
            log_NG = design_NP @ w_PG + offset_N1
            if offset_NG is not None:
                log_NG += offset_NG[:, some]
            mean_NG = torch.exp(log_NG.clamp(-20, 12))
            inverse_G[some], moment_precision_G[some] = excess(x_NG, mean_NG)
            ratio_NG = 1 / (1 + mean_NG / theta_G[some])
            gradient_PG = design_NP.T @ ((x_NG - mean_NG) * ratio_NG)
            gradient_PG -= precision_P[:, None] * (w_PG - prior_PG[:, some])
            curvature_QG = products_NQ.T @ (mean_NG * ratio_NG)
            curvature_GPP = torch.zeros(x_NG.shape[1], n_dims + 1, n_dims + 1)
            curvature_GPP[:, rows, columns] = curvature_QG.T
            curvature_GPP[:, columns, rows] = curvature_QG.T
            curvature_GPP += torch.diag(precision_P)
            factor_GPP = torch.linalg.cholesky(curvature_GPP)
            step_PG = torch.cholesky_solve(gradient_PG.T[:, :, None], factor_GPP)[..., 0].T
            weights_PG[:, some] += step_PG.clamp(-MAX_STEP, MAX_STEP)
            spread_GF = torch.cholesky_inverse(factor_GPP).diagonal(dim1=1, dim2=2)[:, :-1]
            squares_F += (weights_PG[:-1, some] - prior_FG[:, some]).square().sum(1)
            freedom_F += (1 - spread_GF / variance_F).sum(0)
        # One step behind the slopes, so that all genes share one prior however they are grouped.
        theta_G = dispersion(inverse_G, moment_precision_G)
        variance_F = (squares_F / freedom_F.clamp_min(1)).clamp(1e-5, 1)
    slopes_FG = weights_PG[:-1].clamp(-MAX_SLOPE, MAX_SLOPE)
    return LogLinear(weights_PG[-1].clone(), slopes_FG, theta_G)


def excess(counts_NG: Tensor, mean_NG: Tensor) -> tuple[Tensor, Tensor]:
    """1/θ of each gene by moments (Var = μ + μ²/θ), and its precision if θ were infinite."""
    squares_G = mean_NG.square().sum(0).clamp_min(1e-12)
    inverse_G = ((counts_NG - mean_NG).square() - mean_NG).sum(0) / squares_G
    return inverse_G, squares_G.square() / (2 * squares_G + mean_NG.sum(0))


def dispersion(inverse_G: Tensor, precision_G: Tensor) -> Tensor:
    """Inverse dispersion θ of each gene, bounded, from what :func:`excess` gave.

    A gene with few counts says little; 1/θ is drawn towards the mean over genes, each weighted by
    its precision.
    """
    shared = (precision_G * inverse_G).sum() / precision_G.sum()
    drawn_G = precision_G * inverse_G + PRIOR_PRECISION * shared
    drawn_G = drawn_G / (precision_G + PRIOR_PRECISION)
    return 1 / drawn_G.clamp(1 / MAX_THETA, 1 / MIN_THETA)
