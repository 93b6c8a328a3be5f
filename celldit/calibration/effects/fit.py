"""Learn log fold changes and their intervals from training conditions.

Every condition is predicted from all the others, as a new context, a new combination or a
perturbation never seen, whatever it is to them; and once more with itself among them, as conditions
seen in training are. Then, for each of these kinds:

s and t of :class:`celldit.calibration.effects.EffectCalibration` are the least squares over genes
and conditions, each gene by how well it was measured. The coefficients of its variance are learned
as :mod:`celldit.calibration.effects.intervals` has it, the shape of errors as
:mod:`celldit.calibration.effects.fit_shape`. How well they hold on conditions that were held out is
in ``docs/results/effect_doubt.csv``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from celldit.calibration.effects.calibration import EffectCalibration
from celldit.calibration.effects.fit_shape import fit_seen_shape, fit_shape
from celldit.calibration.effects.intervals import HELD_SEEN, Compared, fit_widths, with_followed
from celldit.calibration.left_out import MIN_CELLS, left_out
from celldit.calibration.means import MeanCalibration
from celldit.calibration.rates.control import ControlRates
from celldit.calibration.rates.fold_change import PSEUDO_RATE, FoldChanges
from celldit.calibration.rates.means import MeanRates, mean_rates, measured_fold_change
from celldit.calibration.reference_controls import ReferenceControls
from celldit.conditions import ConditionTable
from celldit.conditions.extrapolation import Extrapolation
from celldit.data.store import CellStore
from celldit.effects.tables.projection import LEAST_ERROR

MAX_CONDITIONS = 48
# The scatter of a condition's cells counts, beside that of the controls, as if it were of so many
# cells less than there are.
FEW = 2.0


def calibrate_effects(
    cells: CellStore,
    table: ConditionTable,
    references: ReferenceControls,
    control_rates: ControlRates,
    mean_calibration: MeanCalibration,
    seed: int,
) -> EffectCalibration:
    """Compare predictions of training conditions with what was measured.

    Parameters
    ----------
    cells, table
        Training cells and their conditions.
    references
        What stands in for controls, with the trained parts.
    control_rates, mean_calibration
        What was learned of means.
    seed
        Of the choice of conditions where there are very many.
    """
    prior, autoencoder = references.population.prior.of_effects, references.autoencoder
    if not prior.conditions and prior.elsewhere:
        # Nothing here tells how far tables are off: at least by what decoders are.
        return EffectCalibration(constant=LEAST_ERROR**2)
    tried = left_out(table, prior, MAX_CONDITIONS, seed)
    rates = mean_rates(cells, table.index, {row for o in tried for row in (o.treated, o.control)})
    estimates = prior.leave_one_out(), prior.estimate(prior.conditions)
    loadings_FG = autoencoder.decoder.loadings.detach().double().numpy()
    sd_CG, seen_sd_CG = (estimate.project(loadings_FG)[1] for estimate in estimates)
    compared = [one.condition for one in tried]
    rest = mean_calibration.left_out_residual_effects(prior, autoencoder.genes, compared)
    seen_rest = mean_calibration.residual_effects(prior, autoencoder.genes, compared)
    changes = FoldChanges(references, control_rates, mean_calibration)
    unseen: list[Compared] = []
    seen: list[Compared] = []
    for q, (condition, kind, i, treated, control) in enumerate(tried):
        measured_G, noise_G = measured_fold_change(rates[control], rates[treated])
        of_treated_G = rates[treated].log_variance_G
        if table.counts[treated] < MIN_CELLS:
            # A few cells do not tell how much cells scatter: those of the controls help out.
            n, n_controls = table.counts[treated], table.counts[control]
            lacking_G = rates[control].log_variance_G * n_controls / n - of_treated_G
            helped_G = FEW / (FEW + n - 1) * lacking_G.clip(min=0)
            noise_G, of_treated_G = noise_G + helped_G, of_treated_G + helped_G
        for found, reach, estimate, sd, beyond in (
            (unseen, kind, estimates[0], sd_CG, rest),
            (seen, Extrapolation.SEEN, estimates[1], seen_sd_CG, seen_rest),
        ):
            calibrated_G, decoded_G = changes.of(
                condition.stratum, reach, beyond[q], estimate.mean[i]
            )
            found.append(
                Compared(
                    reach,
                    calibrated_G,
                    decoded_G,
                    measured_G,
                    sd[i] ** 2,
                    of_treated_G,
                    measured_G**2 / noise_G,
                    condition.stratum,
                    rates[control].log_variance_G,
                )
            )
    kinds = {one.kind for one in unseen}
    of_kind = {kind: [one for one in unseen if one.kind == kind] for kind in sorted(kinds)}
    of_others = {kind: [of_kind[other] for other in of_kind if other != kind] for kind in of_kind}
    followed = with_followed(seen, unseen)
    by_kind = {kind: fit_widths(own, of_others[kind]) for kind, own in of_kind.items()}
    by_kind[Extrapolation.SEEN] = fit_widths(followed, held=HELD_SEEN)
    by_kind = {kind: own for kind, own in by_kind.items() if own.n_responding}
    scatter_G, one_count = control_scatter(
        [(rates[i], int(table.counts[i])) for i in dict.fromkeys(one.control for one in tried)]
    )
    whole = replace(
        fit_widths(unseen),
        by_kind=by_kind,
        control_scatter=scatter_G,
        one_count=one_count,
        control_followed=followed[0].control_followed if followed else 1.0,
    )
    shapes = {kind: fit_shape(whole, own, of_others[kind]) for kind, own in of_kind.items()}
    shapes[Extrapolation.SEEN] = fit_seen_shape(followed)
    shaped = {kind: replace(own, shape=shapes[kind]) for kind, own in by_kind.items()}
    return replace(whole, by_kind=shaped, shape=fit_shape(whole, unseen))


def control_scatter(
    groups: Sequence[tuple[MeanRates, int]],
) -> tuple[np.ndarray | float, float]:
    """Squared coefficient of variation of each gene between control cells, beyond counting noise.

    Parameters
    ----------
    groups
        Rates of control cells, and how many these are, of each stratum.

    Returns
    -------
    scatter, one_count
        φ of each gene, shape (G,), pooled over strata, and the counts per 10,000 that a count is.
    """
    if not groups:
        return 0.0, 0.0
    n_S1 = np.array([[n] for _, n in groups], dtype=np.float64)
    mean_SG = np.stack([one.mean_G - PSEUDO_RATE for one, _ in groups])
    of_cell_SG = np.stack([one.variance_G for one, _ in groups]) * n_S1
    one_S1 = np.array([[one.of_one] for one, _ in groups]) * n_S1
    excess_SG = n_S1 * (of_cell_SG - one_S1 * mean_SG).clip(0)
    total_G = (n_S1 * mean_SG**2).sum(axis=0)
    # Where hardly a count was seen, Poisson counts are all that is known.
    scatter_G = np.where(total_G > 0, excess_SG.sum(axis=0) / np.maximum(total_G, 1e-12), 0.0)
    typical = float(np.median(scatter_G))
    scatter_G = np.minimum(scatter_G, max(10 * typical, 10.0))
    return scatter_G.astype(np.float32), float((n_S1 * one_S1).sum() / n_S1.sum())
