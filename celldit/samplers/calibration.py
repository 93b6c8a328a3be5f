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

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import sparse
from scipy.optimize import nnls

from celldit.conditions import ConditionTable
from celldit.conditions.population import Population
from celldit.data.store import CellStore
from celldit.latent.autoencoder import Autoencoder
from celldit.samplers.fold_change import PSEUDO_RATE, decoded_fold_change

MAX_CONDITIONS = 48
MIN_CELLS = 20
BLOCK = 4_096
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
    cells: CellStore,
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
    pairs = {}
    for i in rows:
        control = index.get(prior.conditions[i].control())
        if control is not None and table.counts[control] >= MIN_CELLS:
            pairs[i] = control, index[prior.conditions[i]]
    rates = mean_rates(cells, table.index, {c for pair in pairs.values() for c in pair})
    for i, (control, treated) in pairs.items():
        condition = prior.conditions[i]
        measured_G, noise_G = measured_fold_change(rates[control], rates[treated])
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


@dataclass(frozen=True, eq=False)
class MeanRates:
    """Counts per 10,000 of each gene in a group of cells, with the pseudo-rate of predictions.

    Attributes
    ----------
    mean_G, variance_G
        Mean, and its sampling variance, shape (G,).
    """

    mean_G: np.ndarray
    variance_G: np.ndarray


def mean_rates(
    cells: CellStore, group_N: np.ndarray, groups: Collection[int]
) -> dict[int, MeanRates]:
    """Measure groups of cells in one pass over all of them.

    Parameters
    ----------
    cells
        N cells.
    group_N
        Group of each cell.
    groups
        Those wanted.
    """
    wanted = sorted(groups)
    place = np.full(max([*wanted, int(group_N.max(initial=0))], default=0) + 1, len(wanted))
    place[wanted] = np.arange(len(wanted))
    shape = len(wanted), cells.n_genes
    sums, squares, n_cells = np.zeros(shape), np.zeros(shape), np.zeros(len(wanted))
    start = 0
    for block in cells.blocks(BLOCK) if wanted else ():
        of_cell = place[group_N[start : start + block.n_cells]]
        start += block.n_cells
        own = np.flatnonzero(of_cell < len(wanted))
        chosen = sparse.csr_matrix(
            (np.ones(len(own)), (of_cell[own], own)), shape=(len(wanted), block.n_cells)
        )
        scale = sparse.diags(1e4 / block.size_factors.astype(np.float64))
        rate = sparse.csr_matrix(scale @ block.counts)
        sums += (chosen @ rate).toarray()
        squares += (chosen @ rate.power(2)).toarray()
        n_cells += np.bincount(of_cell[own], minlength=len(wanted))
    found = {}
    for group, total, square, n in zip(wanted, sums, squares, n_cells, strict=True):
        mean = total / max(n, 1)
        variance = (square / max(n, 1) - mean**2 + PSEUDO_RATE**2) / max(n - 1, 1)
        found[group] = MeanRates(mean + PSEUDO_RATE, variance)
    return found


def measured_fold_change(control: MeanRates, treated: MeanRates) -> tuple[np.ndarray, np.ndarray]:
    """Log ratio of mean rates, and its sampling variance, each of shape (G,)."""
    fold = np.log(treated.mean_G) - np.log(control.mean_G)
    relative = [rates.variance_G / rates.mean_G**2 for rates in (control, treated)]
    return fold, relative[0] + relative[1]
