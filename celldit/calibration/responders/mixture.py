"""Which cells responded: a mixture of the controls' distribution and the same, shifted.

A perturbed cell's score s along the effect (:mod:`celldit.calibration.responders.scores`) comes
from

    (1 - π) f₀(s) + π f₁(s),   f₁(s) = f₀((s - m) / κ) / κ,

f₀ the distribution of the controls' scores (three normal components), f₁ the same moved by the
size m of a response and scattering κ times as much; π is the share of cells that responded, for
each guide its own. With probability one half nothing responds at all (π = 0), else m is uniform on
a logarithmic scale and κ, π are uniform. The posterior is summed over a grid, so that p, shares and
their intervals hold what is not known of m, κ, π and of where f₀ lies: further along the effect by
δ, half normal with the standard error of the difference of means. (Were δ below 0, too, what
scatters below would make room for responses.) A cell further along the effect is taken to be no
less likely to have responded, whatever single outliers among the controls say.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp
from scipy.stats import norm

#: Scores at which densities are kept.
GRID = np.arange(-8.0, 24.01, 0.1)
#: m in standard deviations of the controls, and κ: some fixed, some that grow with the response,
#: √(1 + (share of m)²).
SIZES = np.geomspace(0.5, 16.0, 21)
WIDTHS, SPREADS = (0.8, 1.0), (0.3, 0.6)
#: π.
SHARES = (np.arange(50) + 0.5) / 50
#: δ in standard errors.
OFFSETS = np.array([0.0, 0.75, 1.5, 2.25, 3.0])
NOTHING = 0.5
LEAST_DENSITY = 1e-7
#: Steps of the fit to controls, and cells about 0 that each component has beside its own.
ROUNDS, PRIOR_CELLS = 60, 3.0


@dataclass(frozen=True, eq=False)
class Responses:
    """What the mixture says of N cells of one perturbation in K groups (guides).

    Attributes
    ----------
    p_N
        Probability that each cell responded.
    share_K, low_K, high_K
        Share of cells that respond, and the ends of its 90% interval.
    size
        Posterior mean of m where anything responds, standard deviations of the controls.
    """

    p_N: np.ndarray
    share_K: np.ndarray
    low_K: np.ndarray
    high_K: np.ndarray
    size: float


def fit_responses(
    scores_N: np.ndarray, group_N: np.ndarray, controls_M: np.ndarray, offset_sd: float
) -> Responses:
    """Fit the mixture.

    Parameters
    ----------
    scores_N
        Of perturbed cells.
    group_N
        Guide of each, from 0.
    controls_M
        Scores of controls, mean 0 and standard deviation 1.
    offset_sd
        Standard error of where these cells would lie if nothing responded.
    """
    null_T, moved_RT = _densities(controls_M)
    n_groups = int(group_N.max()) + 1
    log_prior_O = norm.logpdf(OFFSETS)
    log_prior_O = log_prior_O - logsumexp(log_prior_O)
    n_shares, n_models = len(SHARES), len(moved_RT)
    # Log evidence for each offset, model, group and share, and without any response.
    log_OPKS = np.empty((len(OFFSETS), n_models, n_groups, n_shares))
    log_nothing_O = np.empty(len(OFFSETS))
    ratios_ORN = np.empty((len(OFFSETS), n_models, len(scores_N)))
    member_KN = group_N == np.arange(n_groups)[:, None]
    for o, offset in enumerate(OFFSETS * offset_sd):
        at_N = np.clip(scores_N - offset, GRID[0], GRID[-1])
        log_null_N = np.log(np.interp(at_N, GRID, null_T))
        log_nothing_O[o] = log_null_N.sum()
        for r, ratio_T in enumerate(moved_RT):
            ratio_N = np.interp(at_N, GRID, ratio_T)
            ratios_ORN[o, r] = ratio_N
            log_SN = np.log1p(SHARES[:, None] * (ratio_N - 1))
            log_OPKS[o, r] = member_KN @ log_SN.T + (member_KN @ log_null_N)[:, None]
    log_OPK = logsumexp(log_OPKS, axis=-1) - np.log(n_shares)
    log_OP = log_OPK.sum(-1) + log_prior_O[:, None] - np.log(n_models) + np.log(1 - NOTHING)
    log_nothing = float(logsumexp(log_nothing_O + log_prior_O)) + np.log(NOTHING)
    total = logsumexp([logsumexp(log_OP), log_nothing])
    weight_OP, responds = np.exp(log_OP - total), float(np.exp(logsumexp(log_OP) - total))
    share_OPKS = np.exp(log_OPKS - log_OPK[..., None] - np.log(n_shares))
    posterior_KS = np.einsum("op,opks->ks", weight_OP, share_OPKS)
    p_N = np.zeros(len(scores_N))
    for o, r in zip(*np.nonzero(weight_OP > 1e-4 * weight_OP.max()), strict=True):
        odds_SN = SHARES[:, None] / (1 - SHARES[:, None]) * ratios_ORN[o, r]
        own_SN = share_OPKS[o, r][group_N].T
        p_N += weight_OP[o, r] * (own_SN * (odds_SN / (1 + odds_SN))).sum(0)
    cumulative_KS = (1 - responds) + np.cumsum(posterior_KS, axis=1)
    low_K, high_K = (_quantile(cumulative_KS, 1 - responds, q) for q in (0.05, 0.95))
    size = float(
        (weight_OP.sum(0) / max(responds, 1e-12)) @ np.repeat(SIZES, len(WIDTHS + SPREADS))
    )
    return Responses(p_N, posterior_KS @ SHARES, low_K, high_K, size)


def _quantile(cumulative_KS: np.ndarray, nothing: float, q: float) -> np.ndarray:
    """Quantile of the share, of which the first part lies at 0."""
    edges = np.concatenate([[0.0], np.arange(1, len(SHARES) + 1) / len(SHARES)])
    return np.array(
        [0.0 if q <= nothing else np.interp(q, [nothing, *row], edges) for row in cumulative_KS]
    )


def _densities(controls_M: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """f₀ on the grid, and f₁ / f₀ for every m and κ."""
    share_C, mean_C, sd_C = _control_mixture(controls_M)
    null_T = _normal(GRID[:, None], mean_C, sd_C) @ share_C + LEAST_DENSITY
    middle = int(np.searchsorted(GRID, 0.0))
    ratios = []
    for size in SIZES:
        for width in (*WIDTHS, *np.hypot(1, size * np.array(SPREADS))):
            moved_TC = _normal(GRID[:, None], mean_C * width + size, sd_C * width)
            ratio_T = (moved_TC @ share_C + LEAST_DENSITY) / null_T
            ratio_T[middle:] = np.maximum.accumulate(ratio_T[middle:])
            ratio_T[middle::-1] = np.minimum.accumulate(ratio_T[middle::-1])
            ratios.append(ratio_T)
    return null_T, np.array(ratios)


def _normal(x: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Normal densities; as `norm.pdf`, whose checks take many times as long for so few numbers."""
    return np.asarray(np.exp(-(((x - mean) / sd) ** 2) / 2.0) / np.sqrt(2 * np.pi) / sd)


def _control_mixture(controls_M: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shares, means and deviations of normal components, by expectation maximisation."""
    share_C = np.array([0.8, 0.1, 0.1])
    mean_C, sd_C = np.array([0.0, -1.0, 1.0]), np.array([0.9, 1.5, 1.5])
    for _ in range(ROUNDS):
        of_MC = _normal(controls_M[:, None], mean_C, sd_C) * share_C + 1e-300
        of_MC /= of_MC.sum(axis=1, keepdims=True)
        n_C = of_MC.sum(axis=0) + PRIOR_CELLS
        share_C = n_C / n_C.sum()
        mean_C = controls_M @ of_MC / n_C
        spread_C = ((controls_M[:, None] - mean_C) ** 2 * of_MC).sum(axis=0) + PRIOR_CELLS
        sd_C = np.sqrt(spread_C / n_C)
    return share_C, mean_C, sd_C
