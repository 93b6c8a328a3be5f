"""Learn log fold changes and their intervals from training conditions.

Every condition is predicted from all the others, as a new context, a new combination or a
perturbation never seen, whatever it is to them; and once more with itself among them, as conditions
seen in training are. Then, for each of these kinds:

s and t of :class:`celldit.calibration.effects.EffectCalibration` are the least squares over genes
and conditions, each gene by how well it was measured. The coefficients of its variance are learned
as :mod:`celldit.calibration.intervals` has it. How well they hold on conditions that were held out
is in ``docs/results/calibration.csv``.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from celldit.calibration.effects import EffectCalibration
from celldit.calibration.intervals import HELD_SEEN, Compared, fit_widths, with_followed
from celldit.calibration.means import MeanCalibration
from celldit.calibration.rates.control import ControlRates
from celldit.calibration.rates.fold_change import fold_changes
from celldit.calibration.rates.means import mean_rates, measured_fold_change
from celldit.conditions import ConditionTable
from celldit.conditions.extrapolation import Extrapolation, classify
from celldit.conditions.population import Population
from celldit.data.store import CellStore
from celldit.effects.tables.projection import LEAST_ERROR
from celldit.latent.autoencoder import Autoencoder

MAX_CONDITIONS = 48
MIN_CELLS = 20
# With fewer conditions of so many cells, those of fewer cells tell, too.
MIN_CONDITIONS = 8
# The scatter of a condition's cells counts, beside that of the controls, as if it were of so many
# cells less than there are.
FEW = 2.0


def calibrate_effects(
    cells: CellStore,
    table: ConditionTable,
    population: Population,
    autoencoder: Autoencoder,
    control_rates: ControlRates,
    mean_calibration: MeanCalibration,
    seed: int,
) -> EffectCalibration:
    """Compare predictions of training conditions with what was measured.

    Parameters
    ----------
    cells, table
        Training cells and their conditions.
    population, autoencoder, control_rates, mean_calibration
        The trained parts.
    seed
        Of the choice of conditions where there are very many.
    """
    prior = population.prior
    if not prior.conditions and prior.elsewhere:
        # Nothing here tells how far tables are off: at least by what decoders are.
        return EffectCalibration(constant=LEAST_ERROR**2)
    counts = dict(zip(table.conditions, table.counts.tolist(), strict=True))
    rows = [i for i, c in enumerate(prior.conditions) if counts.get(c, 0) >= MIN_CELLS]
    if len(rows) < MIN_CONDITIONS:
        rows = [i for i, c in enumerate(prior.conditions) if counts.get(c, 0)]
    rng = np.random.default_rng(seed)
    rows = sorted(rng.permutation(rows)[:MAX_CONDITIONS].tolist())
    index = {c: i for i, c in enumerate(table.conditions)}
    # By what they share, since a control has no dose where its perturbed cells have one.
    controls = {c.stratum: i for c, i in index.items() if c.is_control}
    pairs = {}
    for i in rows:
        control = controls.get(prior.conditions[i].stratum)
        if control is not None and table.counts[control] >= MIN_CELLS:
            pairs[i] = control, index[prior.conditions[i]]
    rates = mean_rates(cells, table.index, {c for pair in pairs.values() for c in pair})
    known = frozenset(part for c in prior.conditions for part in c.parts)
    left_out = prior.leave_one_out(), prior.estimate(prior.conditions)
    loadings_FG = autoencoder.decoder.loadings.detach().double().numpy()
    sd_CG, seen_sd_CG = (estimate.project(loadings_FG)[1] for estimate in left_out)
    compared = [prior.conditions[i] for i in pairs]
    rest = mean_calibration.beyond_without(prior, autoencoder.genes, compared)
    seen_rest = mean_calibration.beyond(prior, autoencoder.genes, compared)
    unseen: list[Compared] = []
    seen: list[Compared] = []
    for q, (i, (control, treated)) in enumerate(pairs.items()):
        condition = prior.conditions[i]
        others = [*prior.conditions[:i], *prior.conditions[i + 1 :]]
        kind = classify(condition, others, known, prior.elsewhere)
        measured_G, noise_G = measured_fold_change(rates[control], rates[treated])
        of_treated_G = rates[treated].log_variance_G
        if table.counts[treated] < MIN_CELLS:
            # A few cells do not tell how much cells scatter: those of the controls help out.
            n, n_controls = table.counts[treated], table.counts[control]
            lacking_G = rates[control].log_variance_G * n_controls / n - of_treated_G
            helped_G = FEW / (FEW + n - 1) * lacking_G.clip(min=0)
            noise_G, of_treated_G = noise_G + helped_G, of_treated_G + helped_G
        for found, reach, estimate, sd, beyond in (
            (unseen, kind, left_out[0], sd_CG, rest),
            (seen, Extrapolation.SEEN, left_out[1], seen_sd_CG, seen_rest),
        ):
            calibrated_G, decoded_G = fold_changes(
                autoencoder,
                population,
                condition.stratum,
                control_rates,
                mean_calibration,
                reach,
                beyond[q],
                estimate.mean[i],
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
                )
            )
    kinds = {one.kind for one in unseen}
    of_kind = {kind: [one for one in unseen if one.kind == kind] for kind in sorted(kinds)}
    by_kind = {
        kind: fit_widths(own, [each for other, each in of_kind.items() if other != kind])
        for kind, own in of_kind.items()
    }
    by_kind[Extrapolation.SEEN] = fit_widths(with_followed(seen, unseen), held=HELD_SEEN)
    return replace(
        fit_widths(unseen),
        by_kind={kind: own for kind, own in by_kind.items() if own.n_responding},
    )
