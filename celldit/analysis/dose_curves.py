"""Hill curves through measured log fold changes, with what the cells leave open.

The log fold change of a gene at dose d is

    f(d) = e s(d),   s(d) = d^h / (d^h + c^h),

0 without the drug and e at most; c is the EC50 and h the slope (Hill 1910). It is monotone. e is
normal about 0 and is integrated in closed form; log c is uniform from a tenth of the lowest dose to
ten times the highest, log h between 1/2 and 4, and both are summed over a grid. How large e is in
the screen, and how many genes do not respond at all, is learned from all genes by expectation
maximisation, as in adaptive shrinkage (Stephens 2017, Biostatistics 18:275).

Doses share the noise of their controls: the covariance of the measurements of one gene is
diag(v) + v₀ 11ᵀ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp, ndtr

from celldit.analysis.adaptive_shrinkage import fit_shares

N_EC50, SLOPES = 61, np.geomspace(0.5, 4.0, 7)
#: Standard deviations of e, the first for genes that do not respond.
SIZES = np.array([0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2])
ROUNDS, N_DRAWS, BLOCK = 100, 400, 200


@dataclass(frozen=True, eq=False)
class DoseCurves:
    """Posteriors of G curves at D doses."""

    ec50_3G: np.ndarray  # 5%, 50% and 95% quantile of the EC50
    in_range_G: np.ndarray  # probability that it lies between the lowest and the highest dose
    slope_G: np.ndarray  # geometric mean of h
    largest_G: np.ndarray  # posterior mean of e
    largest_sd_G: np.ndarray  # its standard deviation
    lfsr_G: np.ndarray  # local false sign rate of e
    fitted_3DG: np.ndarray  # 5% quantile, mean and 95% quantile of f at the doses


def fit_curves(
    dose_D: np.ndarray,
    change_DG: np.ndarray,
    variance_DG: np.ndarray,
    control_variance_G: np.ndarray,
    rng: np.random.Generator,
) -> DoseCurves:
    """Fit a curve to each gene, from log fold changes at D doses above 0, increasing.

    Sampling variances are those of the treated cells and of the controls; `rng` draws what bands
    are made of.
    """
    log_ec50_C = np.linspace(np.log(dose_D[0] / 10), np.log(dose_D[-1] * 10), N_EC50)
    log_ec50_R, slope_R = (each.ravel() for each in np.meshgrid(log_ec50_C, SLOPES, indexing="ij"))
    shape_RD = 1 / (1 + np.exp(-slope_R[:, None] * (np.log(dose_D) - log_ec50_R[:, None])))
    squares_GR, products_GR = _moments(shape_RD, change_DG, variance_DG, control_variance_G)
    evidence_GK = np.stack([_evidence(squares_GR, products_GR, size) for size in SIZES], axis=-1)
    log_GK = logsumexp(evidence_GK, axis=1) - np.log(len(shape_RD))
    share_K = fit_shares(log_GK, SIZES, ROUNDS)
    n_genes = change_DG.shape[1]
    found: list[tuple[np.ndarray, ...]] = []
    for start in range(0, n_genes, BLOCK):
        own = slice(start, start + BLOCK)
        log_weight = evidence_GK[own] + np.log(np.maximum(share_K, 1e-300))
        weight_BRK = np.exp(log_weight - logsumexp(log_weight, axis=(1, 2), keepdims=True))
        found.append(
            _posterior(
                weight_BRK, squares_GR[own], products_GR[own], log_ec50_R, slope_R, shape_RD,
                (np.log(dose_D[0]), np.log(dose_D[-1])), rng,
            )
        )  # fmt: skip
    return DoseCurves(*(np.concatenate(each, axis=-1) for each in zip(*found, strict=True)))


def _moments(
    shape_RD: np.ndarray,
    change_DG: np.ndarray,
    variance_DG: np.ndarray,
    control_variance_G: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """sᵀ Σ⁻¹ s and sᵀ Σ⁻¹ y of every gene and shape, (G, R), by Sherman & Morrison's formula."""
    precision_DG = 1 / variance_DG
    shared_G = control_variance_G / (1 + control_variance_G * precision_DG.sum(axis=0))
    sums_GR = precision_DG.T @ shape_RD.T
    squares_GR = precision_DG.T @ (shape_RD**2).T - shared_G[:, None] * sums_GR**2
    weighed_DG = precision_DG * change_DG
    products_GR = weighed_DG.T @ shape_RD.T
    products_GR -= (shared_G * weighed_DG.sum(axis=0))[:, None] * sums_GR
    return squares_GR, products_GR


def _evidence(squares: np.ndarray, products: np.ndarray, size: float) -> np.ndarray:
    """Log likelihood of the data over that without any effect, e integrated out."""
    grown = 1 + size**2 * squares
    result: np.ndarray = 0.5 * (size**2 * products**2 / grown - np.log(grown))
    return result


def _posterior(
    weight_BRK: np.ndarray,
    squares_BR: np.ndarray,
    products_BR: np.ndarray,
    log_ec50_R: np.ndarray,
    slope_R: np.ndarray,
    shape_RD: np.ndarray,
    log_range: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[np.ndarray, ...]:
    """The fields of :class:`DoseCurves` for a block of genes, genes last."""
    precision_BRK = squares_BR[..., None] + 1 / np.maximum(SIZES, 1e-9) ** 2
    mean_BRK = products_BR[..., None] / precision_BRK
    sd_BRK = 1 / np.sqrt(precision_BRK)
    mean_B = (weight_BRK * mean_BRK).sum(axis=(1, 2))
    second_B = (weight_BRK * (mean_BRK**2 + sd_BRK**2)).sum(axis=(1, 2))
    positive_BRK = ndtr(mean_BRK / sd_BRK)
    positive_BRK[..., 0] = 0.0
    up_B = (weight_BRK * positive_BRK).sum(axis=(1, 2))
    down_B = weight_BRK[..., 1:].sum(axis=(1, 2)) - up_B
    # Of genes that respond: where there is no effect, an EC50 means nothing.
    of_shape_BR = weight_BRK[..., 1:].sum(axis=2) + 1e-300
    of_shape_BR /= of_shape_BR.sum(axis=1, keepdims=True)
    of_ec50_BC = of_shape_BR.reshape(len(mean_B), N_EC50, -1).sum(axis=2)
    log_ec50_C = log_ec50_R.reshape(N_EC50, -1)[:, 0]
    quantiles_3B = np.array([_quantiles(of_ec50_BC, log_ec50_C, q) for q in (0.05, 0.5, 0.95)])
    inside_C = (log_ec50_C >= log_range[0]) & (log_ec50_C <= log_range[1])
    fitted_3DB = _bands(weight_BRK, mean_BRK, sd_BRK, shape_RD, rng)
    return (
        np.exp(quantiles_3B),
        of_ec50_BC[:, inside_C].sum(axis=1),
        np.exp(of_shape_BR @ np.log(slope_R)),
        mean_B,
        np.sqrt(np.maximum(second_B - mean_B**2, 0)),
        1 - np.maximum(up_B, down_B),
        fitted_3DB,
    )


def _quantiles(of_ec50_BC: np.ndarray, log_ec50_C: np.ndarray, q: float) -> np.ndarray:
    """Quantile of a density that is even within each step of the grid."""
    step = log_ec50_C[1] - log_ec50_C[0]
    edges = np.append(log_ec50_C - step / 2, log_ec50_C[-1] + step / 2)
    return np.array([np.interp(q, np.append(0, np.cumsum(row)), edges) for row in of_ec50_BC])


def _bands(
    weight_BRK: np.ndarray,
    mean_BRK: np.ndarray,
    sd_BRK: np.ndarray,
    shape_RD: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """5% quantile, mean and 95% quantile of curves drawn from the posterior, (3, D, B)."""
    n_sizes, bands = len(SIZES), []
    for weight_RK, mean_RK, sd_RK in zip(weight_BRK, mean_BRK, sd_BRK, strict=True):
        drawn = rng.choice(weight_RK.size, N_DRAWS, p=weight_RK.ravel() / weight_RK.sum())
        size = mean_RK.ravel()[drawn] + sd_RK.ravel()[drawn] * rng.normal(size=N_DRAWS)
        curves = size[:, None] * shape_RD[drawn // n_sizes]
        low, high = np.quantile(curves, (0.05, 0.95), axis=0)
        exact = (weight_RK * mean_RK).sum(axis=1) @ shape_RD
        bands.append(np.stack([low, exact, high]))
    return np.stack(bands, axis=-1)
