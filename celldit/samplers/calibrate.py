"""Learn log fold changes and their intervals from training conditions.

Every condition is predicted from all the others, as a new context, a new combination or a
perturbation never seen, whatever it is to them; and once more with itself among them, as conditions
seen in training are. Then, for each of these kinds:

s and t of :class:`celldit.samplers.calibration.EffectCalibration` are the least squares over genes
and conditions, each gene by how well it was measured.

c of a gene is a multiple of its own mean squared error over training conditions, drawn towards that
of all genes, plus a constant: most genes never respond to anything, and a screen shows which. For a
condition it is taken from the others when the multiples are chosen.

The multiples, at least 0, maximise the Gaussian likelihood of the errors, half of it that of all
genes and half that of those that respond, each condition counting the same. All genes alone would
make intervals in which few responding ones lie, since it is not known beforehand which these are;
responding ones alone (as the first release had it) make every gene as uncertain as they are. Then
variances are scaled until 90% intervals hold 95% of the responding genes (the split-conformal idea
of Vovk et al. 2005, with leave-one-out predictions in place of a split): a new condition is less
like the rest than those left out one by one are, and what a condition seen in training is compared
with has shaped its prediction, noise and all. How well it holds on conditions that were held out is
in ``docs/results/calibration.csv``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize, nnls

from celldit.conditions import ConditionTable
from celldit.conditions.extrapolation import Extrapolation, classify
from celldit.conditions.population import Population
from celldit.data.store import CellStore
from celldit.latent.autoencoder import Autoencoder
from celldit.samplers.aim import Aim
from celldit.samplers.calibration import EffectCalibration
from celldit.samplers.control_rates import ControlRates
from celldit.samplers.fold_change import fold_changes
from celldit.samplers.mean_rates import mean_rates, measured_fold_change

MAX_CONDITIONS = 48
MIN_CELLS = 20
MIN_RESPONDING = 30
Z_90 = 1.645
RESPONDS = 4.0
# Share of responding training genes that 90% intervals hold.
HELD = 0.95
# As many conditions with the mean squared error of all genes a gene's own is averaged with.
PRIOR_CONDITIONS = 3.0
# Where errors are no larger than noise, none is seen; a gene's is still not known to be nothing.
LEAST_SD = 0.05
LEAST_ERROR = 0.2
LEAST_LOG, MOST_LOG = -12.0, 3.0


@dataclass(frozen=True, eq=False)
class Compared:
    """Predicted and measured log fold changes of one training condition, all of shape (G,).

    Attributes
    ----------
    kind
        How far the prediction had to reach.
    aimed_G, decoded_G, measured_G
        Predicted by rates of either sort, and measured.
    prior_variance_G
        Of the effect prior.
    noise_G
        Sampling variance of the perturbed cells; that of the controls is in the prediction, too,
        since it is counted from their rates.
    strength_G
        Squared measurement over its sampling variance.
    """

    kind: Extrapolation
    aimed_G: np.ndarray
    decoded_G: np.ndarray
    measured_G: np.ndarray
    prior_variance_G: np.ndarray
    noise_G: np.ndarray
    strength_G: np.ndarray


def calibrate_effects(
    cells: CellStore,
    table: ConditionTable,
    population: Population,
    autoencoder: Autoencoder,
    control_rates: ControlRates,
    aim: Aim,
    seed: int,
) -> EffectCalibration:
    """Compare predictions of training conditions with what was measured.

    Parameters
    ----------
    cells, table
        Training cells and their conditions.
    population, autoencoder, control_rates, aim
        The trained parts.
    seed
        Of the choice of conditions where there are very many.
    """
    prior = population.prior
    counts = dict(zip(table.conditions, table.counts.tolist(), strict=True))
    rows = [i for i, c in enumerate(prior.conditions) if counts.get(c, 0) >= MIN_CELLS]
    rng = np.random.default_rng(seed)
    rows = sorted(rng.permutation(rows)[:MAX_CONDITIONS].tolist())
    index = {c: i for i, c in enumerate(table.conditions)}
    # By what they share, since a control has no dose where its perturbed cells have one.
    controls = {c.surroundings: i for c, i in index.items() if c.is_control}
    pairs = {}
    for i in rows:
        control = controls.get(prior.conditions[i].surroundings)
        if control is not None and table.counts[control] >= MIN_CELLS:
            pairs[i] = control, index[prior.conditions[i]]
    rates = mean_rates(cells, table.index, {c for pair in pairs.values() for c in pair})
    known = frozenset(part for c in prior.conditions for part in c.parts)
    left_out = prior.leave_one_out(), prior.estimate(prior.conditions)
    loadings_FG = autoencoder.decoder.loadings.detach().double().numpy()
    sd_CG, seen_sd_CG = (estimate.project(loadings_FG)[1] for estimate in left_out)
    compared = [prior.conditions[i] for i in pairs]
    rest = aim.beyond_without(prior, autoencoder.genes, compared)
    seen_rest = aim.beyond(prior, autoencoder.genes, compared)
    unseen: list[Compared] = []
    seen: list[Compared] = []
    for q, (i, (control, treated)) in enumerate(pairs.items()):
        condition = prior.conditions[i]
        others = [*prior.conditions[:i], *prior.conditions[i + 1 :]]
        kind = classify(condition, others, known)
        measured_G, noise_G = measured_fold_change(rates[control], rates[treated])
        for found, reach, estimate, sd, beyond in (
            (unseen, kind, left_out[0], sd_CG, rest),
            (seen, Extrapolation.SEEN, left_out[1], seen_sd_CG, seen_rest),
        ):
            aimed_G, decoded_G = fold_changes(
                autoencoder,
                population,
                condition.surroundings,
                control_rates,
                aim,
                reach,
                beyond[q],
                estimate.mean[i],
            )
            found.append(
                Compared(
                    reach,
                    aimed_G,
                    decoded_G,
                    measured_G,
                    sd[i] ** 2,
                    rates[treated].log_variance_G,
                    measured_G**2 / noise_G,
                )
            )
    kinds = {one.kind for one in unseen}
    by_kind = {kind: _fit([one for one in unseen if one.kind == kind]) for kind in sorted(kinds)}
    by_kind[Extrapolation.SEEN] = _fit(seen)
    return replace(
        _fit(unseen),
        by_kind={kind: own for kind, own in by_kind.items() if own.n_responding},
    )


def _fit(compared: Sequence[Compared]) -> EffectCalibration:
    """Coefficients for some comparisons, or none where too few genes respond."""
    if not compared:
        return EffectCalibration()
    noise_CG = np.stack([one.noise_G for one in compared])
    strength_CG = np.stack([one.strength_G for one in compared])
    if strength_CG.size < MIN_RESPONDING:
        return EffectCalibration()
    # Where few respond, those that come nearest are taken; their noise is accounted for.
    least = min(RESPONDS**2, np.sort(strength_CG, axis=None)[-MIN_RESPONDING])
    responds_CG = strength_CG >= least
    aimed, decoded = _reading(compared)
    predicted_CG = np.stack([aimed * one.aimed_G + decoded * one.decoded_G for one in compared])
    squared_CG = (np.stack([one.measured_G for one in compared]) - predicted_CG) ** 2
    own_CG, own_G = _error_of_genes(squared_CG, noise_CG)
    prior_CG = np.stack([one.prior_variance_G for one in compared])
    columns = prior_CG, predicted_CG**2, np.ones_like(prior_CG), own_CG
    design_CG4 = np.stack(columns, axis=-1)
    n_CG = responds_CG.sum(axis=1, keepdims=True)
    share_CG = responds_CG / n_CG.clip(1) / (n_CG > 0).sum()
    coefficients = _most_likely(
        design_CG4.reshape(-1, 4),
        squared_CG.ravel(),
        noise_CG.ravel(),
        (share_CG / 2 + 0.5 / share_CG.size).ravel(),
    )
    # Scale until 90% intervals, with the measurement's own noise, hold the share wanted.
    expected_R = design_CG4[responds_CG] @ coefficients
    excess_R = squared_CG[responds_CG] / Z_90**2 - noise_CG[responds_CG]
    scale = weighted_quantile(excess_R.clip(0) / expected_R, share_CG[responds_CG], HELD)
    a, b, c, own = (coefficients * scale).tolist()
    # Never surer than the effect prior is of its own shift.
    constant_G = np.maximum(c + own * own_G, LEAST_SD**2).astype(np.float32)
    return EffectCalibration(aimed, decoded, max(a, 1.0), b, constant_G, int(responds_CG.sum()))


def _reading(compared: Sequence[Compared]) -> tuple[float, float]:
    """s and t, with a tie to aimed rates as they are, as strong as one more condition."""
    total_33 = np.zeros((3, 3))
    for one in compared:
        each_3G = np.stack([one.aimed_G, one.decoded_G, one.measured_G])
        # A gene that is measured without error is still not predicted so.
        weight_G = 1 / (one.noise_G + LEAST_ERROR**2)
        total_33 += (each_3G * weight_G) @ each_3G.T
    tie = np.trace(total_33[:2, :2]) / (2 * len(compared)) + 1e-12
    gram_22 = total_33[:2, :2] + tie * np.eye(2)
    root_22 = np.linalg.cholesky(gram_22)
    found, _ = nnls(root_22.T, np.linalg.solve(root_22, total_33[:2, 2] + tie * np.array([1, 0])))
    # What decoding loses is the aim's to make up for, and it does.
    found /= max(1.0, found.sum())
    return float(found[0]), float(found[1])


def _error_of_genes(squared_CG: np.ndarray, noise_CG: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean squared error of each gene beyond noise: over all other conditions, and over all.

    Conditions that are measured better count more, one that is far off no more than the hundredth
    worst, and every gene's is averaged with that of all genes.
    """
    most = np.quantile(squared_CG, 0.99)
    excess_CG = (squared_CG - noise_CG).clip(-most, most)
    weight_CG = 1 / (noise_CG + np.median(noise_CG))
    typical = max(float(np.average(excess_CG, weights=weight_CG)), 1e-6)
    prior_weight = PRIOR_CONDITIONS * weight_CG.mean()
    prior = prior_weight * typical
    sum_CG = weight_CG * excess_CG
    sum_G, total_G = sum_CG.sum(axis=0), weight_CG.sum(axis=0)
    # A sum below zero says that noise was overestimated, not that the gene is certain.
    others_CG = np.maximum(sum_G - sum_CG + prior, 0.01 * prior)
    others_CG /= total_G - weight_CG + prior_weight
    all_G = np.maximum(sum_G + prior, 0.01 * prior) / (total_G + prior_weight)
    return others_CG, all_G


def _most_likely(
    design_RK: np.ndarray, squared_R: np.ndarray, noise_R: np.ndarray, weight_R: np.ndarray
) -> np.ndarray:
    """Multiples, positive, with which squared errors are most likely of a Gaussian."""
    # In units of each column's mean the start and the bounds suit any data.
    unit_K = np.maximum(design_RK.mean(axis=0), 1e-12)
    unit_RK = design_RK / unit_K * squared_R.mean()

    def surprise(log_K: np.ndarray) -> tuple[float, np.ndarray]:
        variance_R = unit_RK @ np.exp(log_K) + noise_R
        relative_R = squared_R / variance_R
        slope_R = weight_R * (1 - relative_R) / variance_R
        value = float(weight_R @ (np.log(variance_R) + relative_R))
        return value, (slope_R @ unit_RK) * np.exp(log_K)

    bounds = [(LEAST_LOG, MOST_LOG)] * design_RK.shape[1]
    found = [
        minimize(surprise, np.full(len(unit_K), at), jac=True, method="L-BFGS-B", bounds=bounds)
        for at in (-1.0, -4.0)
    ]
    best = min(found, key=lambda one: float(one.fun))
    return np.asarray(np.exp(best.x) * squared_R.mean() / unit_K)


def weighted_quantile(values: np.ndarray, weights: np.ndarray, q: float) -> float:
    """The smallest value such that those up to it have at least a share q of the weight."""
    order = np.argsort(values)
    reached = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][min(int(np.searchsorted(reached, q)), len(values) - 1)])
