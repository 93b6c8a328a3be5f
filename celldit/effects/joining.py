"""What two screens in one latent say together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from celldit.effects.fit_level import levelled
from celldit.effects.kernel import ConditionKernel
from celldit.effects.prior import EffectPrior
from celldit.effects.shifts import dose_ranges
from celldit.effects.tables.informed import with_tables
from celldit.effects.tuning import tune


def joined(own: EffectPrior, earlier: EffectPrior, seed: int = 0) -> EffectPrior:
    """One prior of what two observed in the same latent.

    A condition that both observed is weighted by the precision of each. Strengths are chosen
    again from all of them.

    Parameters
    ----------
    own, earlier
        The one that describes what both observed, and the other.
    seed
        As in :meth:`EffectPrior.fit`.
    """
    tables = {t.name: t for t in (*earlier.elsewhere.tables, *own.elsewhere.tables)}
    if not earlier.conditions:
        return with_tables(own, list(tables.values()), seed)
    rotation = own.rotation if own.conditions else earlier.rotation
    turned = earlier.shifts @ (np.linalg.inv(earlier.rotation) @ rotation)
    seen = {c: (turned[i], earlier.noise[i]) for i, c in enumerate(earlier.conditions)}
    for shift, variance, condition in zip(own.shifts, own.noise, own.conditions, strict=True):
        if condition in seen:
            other, other_variance = seen[condition]
            share = other_variance / (variance + other_variance)
            shift = share * shift + (1 - share) * other
            variance = share * variance
        seen[condition] = (shift, variance)
    conditions = tuple(seen)
    names = tuple(sorted({part for c in conditions for part in c.parts}))
    positions = {**earlier.kernel.positions, **own.kernel.positions}
    lowest, highest = dose_ranges(names, conditions)
    features = own.kernel.features
    kernel = ConditionKernel(names, lowest, features, positions, top_doses=highest, metric=rotation)
    shifts = np.array([shift for shift, _ in seen.values()])
    noise = np.array([noise for _, noise in seen.values()])
    # Before this prior observed anything its dimensions were not turned.
    turn_FF = np.linalg.inv(earlier.rotation) @ rotation
    baselines = own.baselines.beside(earlier.baselines, turn_FF).only(conditions)
    basis, open_columns = np.linalg.inv(rotation), baselines.columns(conditions)
    picked = tune(kernel, conditions, shifts, noise, basis, seed, open_columns)
    control_cells = {**earlier.control_cells, **own.control_cells}
    both = EffectPrior(
        kernel,
        conditions,
        shifts,
        noise,
        rotation,
        *picked,
        control_cells=control_cells,
        baselines=baselines,
    )
    few = own.few_or_none.turned(np.linalg.inv(own.rotation) @ rotation)
    few = few.beside(earlier.few_or_none.turned(turn_FF)).without(conditions)
    both = with_tables(levelled(both, seed), list(tables.values()), seed)
    return replace(both, few=few if few.conditions else None)
