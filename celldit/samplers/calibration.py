"""How far predicted log fold changes are off, learned from conditions left out one at a time.

The effect prior knows how uncertain its latent shift is, but not what the latent leaves out of a
gene, nor how the decoder bends a large effect. Both show when each training condition is predicted
from the others (leave-one-out) and compared with what was measured:

    variance = a · prior variance + b · (predicted log fold change)² + c

with a, b, c at least 0 by robust least squares, then scaled until 90% intervals cover 90% of the
genes that respond in training, each condition counting the same (the split-conformal idea of Vovk
et al. 2005, with leave-one-out predictions in place of a split).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.optimize import nnls

from celldit.conditions import ConditionTable
from celldit.conditions.population import Population
from celldit.data.cells import Cells
from celldit.latent.autoencoder import Autoencoder
from celldit.samplers.fold_change import PSEUDO_RATE, decoded_fold_change

MAX_CONDITIONS = 48
MIN_CELLS = 20
MIN_RESPONDING = 30
Z_90 = 1.645
RESPONDS = 4.0


@dataclass(frozen=True)
class EffectCalibration:
    """Coefficients of the variance of a log fold change; see the module.

    Attributes
    ----------
    prior, relative, constant
        a, b and c, the scale included.
    n_responding
        Genes (over conditions) that it was fitted on; 0 where there were too few, and the prior's
        standard deviation stands as it is.
    """

    prior: float = 1.0
    relative: float = 0.0
    constant: float = 0.0
    n_responding: int = 0

    def sd(self, prior_sd: np.ndarray, fold_change: np.ndarray) -> np.ndarray:
        """Standard deviation of log fold changes, of the shape of the arguments."""
        variance = self.prior * prior_sd**2 + self.relative * fold_change**2 + self.constant
        return np.sqrt(variance)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def calibrate_effects(
    cells: Cells,
    table: ConditionTable,
    population: Population,
    autoencoder: Autoencoder,
    seed: int,
) -> EffectCalibration:
    """Compare leave-one-out predictions of training conditions with what was measured.

    Parameters
    ----------
    cells, table
        Training cells and their conditions.
    population, autoencoder
        The trained parts.
    seed
        Of the choice of conditions where there are very many.
    """
    prior = population.prior
    counts = dict(zip(table.conditions, table.counts.tolist(), strict=True))
    rows = [i for i, c in enumerate(prior.conditions) if counts.get(c, 0) >= MIN_CELLS]
    rng = np.random.default_rng(seed)
    rows = sorted(rng.permutation(rows)[:MAX_CONDITIONS].tolist())
    left_out = prior.leave_one_out()
    loadings_FG = autoencoder.decoder.loadings.detach().double().numpy()
    _, sd_CG = left_out.project(loadings_FG)
    index = {c: i for i, c in enumerate(table.conditions)}
    error, model, relative, noise, share = [], [], [], [], []
    for i in rows:
        condition = prior.conditions[i]
        control = index.get(condition.control())
        if control is None or table.counts[control] < MIN_CELLS:
            continue
        measured_G, noise_G = measured_fold_change(
            cells, table.cells_of(control), table.cells_of(index[condition])
        )
        predicted_G = decoded_fold_change(
            autoencoder, population, condition.surroundings, left_out.mean[i]
        )
        responds = measured_G**2 > RESPONDS**2 * noise_G
        error.append((measured_G - predicted_G)[responds])
        model.append(sd_CG[i, responds] ** 2)
        relative.append(predicted_G[responds] ** 2)
        noise.append(noise_G[responds])
        share.append(np.full(responds.sum(), 1 / max(responds.sum(), 1)))
    if not error or sum(map(len, error)) < MIN_RESPONDING:
        return EffectCalibration()
    squared, noise_R = np.concatenate(error) ** 2, np.concatenate(noise)
    design = np.stack([np.concatenate(model), np.concatenate(relative), np.ones_like(squared)], 1)
    excess = np.clip(squared - noise_R, 0, np.quantile(squared, 0.95))
    # Large effects have large errors; relative weights keep them from deciding alone.
    weight = 1 / (excess + np.median(squared))
    coefficients, _ = nnls(design * weight[:, None], excess * weight)
    coefficients = np.maximum(coefficients, [1e-3, 0, 1e-6])
    # Scale until 90% intervals, with the measurement's own noise, cover 90%.
    variance = design @ coefficients
    needed = np.maximum(squared / Z_90**2 - noise_R, 0) / variance
    scale = weighted_quantile(needed, np.concatenate(share), 0.9)
    a, b, c = (coefficients * scale).tolist()
    return EffectCalibration(a, b, c, len(squared))


def weighted_quantile(values: np.ndarray, weights: np.ndarray, q: float) -> float:
    """The smallest value such that those up to it have at least a share q of the weight."""
    order = np.argsort(values)
    reached = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][min(int(np.searchsorted(reached, q)), len(values) - 1)])


def measured_fold_change(
    cells: Cells, control: np.ndarray, treated: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Log ratio of mean rates and its sampling variance, with the pseudo-rate of predictions.

    Parameters
    ----------
    cells
        Holds both groups.
    control, treated
        Their rows.
    """
    means, variances = [], []
    for rows in (control, treated):
        group = cells.take(rows)
        rate = group.counts.multiply(1e4 / group.size_factors.astype(np.float64)[:, None]).tocsr()
        mean = np.asarray(rate.mean(axis=0)).ravel()
        square = np.asarray(rate.power(2).mean(axis=0)).ravel()
        means.append(mean + PSEUDO_RATE)
        variances.append((square - mean**2 + PSEUDO_RATE**2) / max(len(rows) - 1, 1))
    fold = np.log(means[1]) - np.log(means[0])
    return fold, variances[0] / means[0] ** 2 + variances[1] / means[1] ** 2
