"""How far predicted log fold changes are off, learned from training conditions.

The effect prior knows how uncertain its latent shift is, but not what the latent leaves out of a
gene, nor how the decoder bends a large effect. Both show when training conditions are predicted and
compared with what was measured:

    variance = a · prior variance + b · (predicted log fold change)² + c

with a, b, c at least 0 by robust least squares, then scaled until 90% intervals cover 90% of the
genes that respond in training, each condition counting the same (the split-conformal idea of Vovk
et al. 2005, with leave-one-out predictions in place of a split). Every condition is predicted from
all the others, as a new context, a new combination or a perturbation never seen, whatever it is to
them; and once more with itself among them, as conditions seen in training are. Each of these kinds
has numbers of its own where enough genes respond in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from scipy.optimize import nnls

from celldit.conditions import ConditionTable
from celldit.conditions.extrapolation import Extrapolation, classify
from celldit.conditions.population import Population
from celldit.data.store import CellStore
from celldit.latent.autoencoder import Autoencoder
from celldit.samplers.control_rates import ControlRates
from celldit.samplers.fold_change import decoded_fold_change
from celldit.samplers.mean_rates import mean_rates, measured_fold_change

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
        a, b and c, the scale included, for conditions that training has not seen.
    n_responding
        Genes (over conditions) that it was fitted on; 0 where there were too few, and the prior's
        standard deviation stands as it is.
    by_kind
        Those of kinds of extrapolation that have their own.
    """

    prior: float = 1.0
    relative: float = 0.0
    constant: float = 0.0
    n_responding: int = 0
    by_kind: Mapping[Extrapolation, EffectCalibration] = field(default_factory=dict)

    def sd(
        self, prior_sd: np.ndarray, fold_change: np.ndarray, kind: Extrapolation | None
    ) -> np.ndarray:
        """Standard deviation of log fold changes, of the shape of the first two arguments.

        The kind is None for another dose or time of what was seen: it is not as sure as the same.
        """
        own = self if kind is None else self.by_kind.get(kind, self)
        return np.sqrt(own.prior * prior_sd**2 + own.relative * fold_change**2 + own.constant)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> EffectCalibration:
        """From what :meth:`to_dict` gave; kinds are unknown to files of the first release."""
        by_kind = {
            Extrapolation(kind): cls.from_dict(own)
            for kind, own in saved.get("by_kind", {}).items()
        }
        return cls(**{**saved, "by_kind": by_kind})


@dataclass(frozen=True, eq=False)
class Compared:
    """Predicted and measured log fold changes of one training condition, all of shape (G,).

    Attributes
    ----------
    kind
        How far the prediction had to reach.
    error_G
        Measured minus predicted.
    design_G3
        Prior variance, squared prediction and 1: what a, b and c are multiplied with.
    noise_G
        Sampling variance of the perturbed cells; that of the controls is in the prediction, too,
        since it is counted from their rates.
    strength_G
        Squared measurement over its sampling variance.
    """

    kind: Extrapolation
    error_G: np.ndarray
    design_G3: np.ndarray
    noise_G: np.ndarray
    strength_G: np.ndarray


def calibrate_effects(
    cells: CellStore,
    table: ConditionTable,
    population: Population,
    autoencoder: Autoencoder,
    control_rates: ControlRates,
    seed: int,
) -> EffectCalibration:
    """Compare predictions of training conditions with what was measured.

    Parameters
    ----------
    cells, table
        Training cells and their conditions.
    population, autoencoder, control_rates
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
    unseen: list[Compared] = []
    seen: list[Compared] = []
    for i, (control, treated) in pairs.items():
        condition = prior.conditions[i]
        others = [*prior.conditions[:i], *prior.conditions[i + 1 :]]
        kind = classify(condition, others, known)
        measured_G, noise_G = measured_fold_change(rates[control], rates[treated])
        for found, reach, estimate, sd in (
            (unseen, kind, left_out[0], sd_CG),
            (seen, Extrapolation.SEEN, left_out[1], seen_sd_CG),
        ):
            predicted_G = decoded_fold_change(
                autoencoder, population, condition.surroundings, control_rates, estimate.mean[i]
            )
            design_G3 = np.stack([sd[i] ** 2, predicted_G**2, np.ones_like(predicted_G)], axis=1)
            error_G = measured_G - predicted_G
            found.append(
                Compared(
                    reach,
                    error_G,
                    design_G3,
                    rates[treated].log_variance_G,
                    measured_G**2 / noise_G,
                )
            )
    kinds = {one.kind for one in unseen}
    by_kind = {kind: _fit([one for one in unseen if one.kind == kind]) for kind in sorted(kinds)}
    by_kind[Extrapolation.SEEN] = _fit(seen)
    return replace(
        _fit(unseen), by_kind={kind: own for kind, own in by_kind.items() if own.n_responding}
    )


def _fit(compared: Sequence[Compared]) -> EffectCalibration:
    """Coefficients for some comparisons, or none where too few genes respond."""
    strength = np.concatenate([one.strength_G for one in compared]) if compared else np.empty(0)
    if len(strength) < MIN_RESPONDING:
        return EffectCalibration()
    # Where few respond, those that come nearest are taken; their noise is accounted for.
    least = min(RESPONDS**2, np.sort(strength)[-MIN_RESPONDING])
    responding = [one.strength_G >= least for one in compared]
    parts = [
        (one.error_G[own], one.design_G3[own], one.noise_G[own], np.full(own.sum(), 1 / own.sum()))
        for one, own in zip(compared, responding, strict=True)
        if own.any()
    ]
    error_R, design_R3, noise_R, share_R = map(np.concatenate, zip(*parts, strict=True))
    squared_R = error_R**2
    excess_R = np.clip(squared_R - noise_R, 0, np.quantile(squared_R, 0.95))
    # Large effects have large errors; relative weights keep them from deciding alone.
    weight_R = 1 / (excess_R + np.median(squared_R))
    coefficients, _ = nnls(design_R3 * weight_R[:, None], excess_R * weight_R)
    coefficients = np.maximum(coefficients, [1e-3, 0, 1e-6])
    # Scale until 90% intervals, with the measurement's own noise, cover 90%.
    needed_R = np.maximum(squared_R / Z_90**2 - noise_R, 0) / (design_R3 @ coefficients)
    scale = weighted_quantile(needed_R, share_R, 0.9)
    a, b, c = (coefficients * scale).tolist()
    # Never surer than the effect prior is of its own shift.
    return EffectCalibration(max(a, 1.0), b, c, len(squared_R))


def weighted_quantile(values: np.ndarray, weights: np.ndarray, q: float) -> float:
    """The smallest value such that those up to it have at least a share q of the weight."""
    order = np.argsort(values)
    reached = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][min(int(np.searchsorted(reached, q)), len(values) - 1)])
