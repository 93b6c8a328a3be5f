"""Whether levels bend the effects of a prior, and how much: contexts are left out and say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from celldit.effects.contexts.level import MIN_CONTEXTS, Level, fit_slope
from celldit.effects.tuning import choose, tune

if TYPE_CHECKING:
    from celldit.effects.prior import EffectPrior

# Variance, beside all others, of what is to be left open.
OPEN = 100.0
# Smaller slopes are not told from none.
LEAST_SLOPE = 0.1
LEAST_GAIN = 0.05


def levelled(prior: EffectPrior, seed: int) -> EffectPrior:
    """The same tuned prior, with the slope that leaving contexts out finds where that helps."""
    keys = list(prior.control_cells)
    # Times of several contexts are no contexts of their own; those of a single one are.
    by_context = len({context for context, _ in keys}) > 1
    chosen = choose(prior.kernel, prior.conditions, seed)
    used = [i for i in chosen if prior.conditions[i].stratum in prior.control_cells]
    some = prior.rows(used)
    groups: dict[object, list[int]] = {}
    for row, condition in enumerate(some.conditions):
        key = condition.stratum
        groups.setdefault(key[0] if by_context else key, []).append(row)
    if len(groups) < MIN_CONTEXTS:
        return prior
    rows = [np.array(each) for each in groups.values()]
    centre_F = np.mean([prior.kernel.positions[key] for key in keys], axis=0)
    whole = replace(some, level=Level(1.0, 0.0, centre_F))
    shared_CS = np.zeros((len(some.conditions), len(keys)))
    for row, condition in enumerate(some.conditions):
        key = condition.stratum
        shared_CS[row, keys.index(key)] = 1 / np.sqrt(prior.control_cells[key])
    slope, sd = fit_slope(
        np.linalg.inv(_contrasts(some, shared_CS, rows)),
        some.shifts,
        -whole.level_means(some.conditions),
        some.kernel.engagement(some.conditions),
        shared_CS,
        rows,
    )
    if slope < LEAST_SLOPE:
        return prior
    level = Level(slope, sd, centre_F)
    bent = replace(prior, level=level)
    shifts = prior.shifts - bent.level_means(prior.conditions)
    basis = np.linalg.inv(prior.rotation)
    open_columns = prior.baselines.columns(prior.conditions)
    seen, own = (prior.kernel, prior.conditions), prior.control_noise
    picked = tune(*seen, shifts, prior.noise, basis, seed, open_columns, own)
    bent = replace(bent, **picked._asdict())
    gain = 1 - _error(bent.rows(used), rows) / _error(some, rows)
    return bent if gain > LEAST_GAIN else prior


def _contrasts(
    prior: EffectPrior, shared_CS: np.ndarray, groups: Sequence[np.ndarray]
) -> np.ndarray:
    """Covariance of the shifts by which contexts are compared with each other, (C, C).

    What a perturbation does everywhere is left open, and contexts are otherwise as unlike as those
    of this kernel are in a dimension in which effects differ.
    """
    conditions = prior.conditions
    together_CC = np.eye(len(conditions), dtype=bool)
    for rows in groups:
        together_CC[np.ix_(rows, rows)] = True
    typical = (prior.signal @ prior.signal) / prior.signal.sum()
    own_C = prior.noise - (shared_CS**2).sum(axis=1)
    found_CC = typical * prior.kernel_CC * together_CC + np.diag(own_C) + shared_CS @ shared_CS.T
    amounts_CP = prior.kernel.amounts(conditions, prior.kernel.parts).numpy()
    opened_CC: np.ndarray = found_CC + OPEN * np.trace(found_CC) * (amounts_CP @ amounts_CP.T)
    return opened_CC


def _error(prior: EffectPrior, groups: Sequence[np.ndarray]) -> float:
    """Squared error of groups of conditions left out one by one, over the noise of each."""
    error = 0.0
    for rows in groups:
        rest = prior.rows(np.setdiff1d(np.arange(len(prior.conditions)), rows))
        left_out = rest.estimate([prior.conditions[row] for row in rows])
        missed = left_out.mean @ prior.rotation - prior.shifts[rows]
        error += float((missed**2 / prior.noise[rows, None]).sum())
    return error
