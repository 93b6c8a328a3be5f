"""Which share of the cells responds to each perturbation, for predictions that leave the rest.

Where an effect is large, cells that did not respond lie apart from those that did, and the mean of
both is where no cell is. A share is the upper end of the 90% interval that
:mod:`celldit.calibration.responders.mixture` gives, so what cannot be told responds; where it is
not sure that anything does, everything does. Effects of less than :data:`LEAST_EFFECT` standard
deviations within conditions would not show which cells moved, and are not looked at. With doses or
times a share is of one of them only, and none is learned.
"""

from __future__ import annotations

import numpy as np

from celldit.calibration.responders.respond import MIN_CELLS, MeasuredControls
from celldit.conditions import ConditionTable
from celldit.data.store import CellStore
from celldit.effects import EffectPrior

LEAST_EFFECT = 1.0
#: Where fewer than one cell in fifty stays, all go.
MOST_SHARE = 0.98
#: Perturbations with the largest effects, cells of each, and controls of a stratum.
MAX_PERTURBATIONS, MAX_CELLS, MAX_CONTROLS = 100, 1_000, 500

Shares = dict[tuple[str, ...], float]
"""Share of the cells that respond, by the parts of a perturbation; those not named all do."""


def fit_shares(cells: CellStore, table: ConditionTable, prior: EffectPrior, seed: int) -> Shares:
    """Learn them from training cells.

    Parameters
    ----------
    cells, table
        Training cells and their conditions.
    prior
        Fitted to them.
    seed
        Of folds, and of cells where there are very many.
    """
    if any(c.doses or c.time is not None for c in table.conditions):
        return {}
    found: Shares = {}
    rng, controls = np.random.default_rng(seed), MeasuredControls(cells, table, seed, MAX_CONTROLS)
    rows: dict[tuple[str, ...], list[int]] = {}
    for row in controls.row_of:
        rows.setdefault(table.conditions[row].parts, []).append(row)
    for parts in _strongest(prior):
        own = np.flatnonzero(np.isin(table.index, rows.get(parts, [])))
        if len(own) < MIN_CELLS:
            continue
        own = np.sort(rng.permutation(own)[:MAX_CELLS])
        _, said = controls.respond(own, np.zeros(len(own), np.int64))
        if said.low_K[0] > 0 and said.high_K[0] < MOST_SHARE:
            found[parts] = round(float(said.high_K[0]), 4)
    return found


def _strongest(prior: EffectPrior) -> list[tuple[str, ...]]:
    """Perturbations whose cells may lie apart from controls, the largest effects first."""
    squared_C = (prior.shifts**2).sum(axis=1) - prior.noise * prior.shifts.shape[1]
    of: dict[tuple[str, ...], list[tuple[float, float]]] = {}
    for condition, squared, noise in zip(prior.conditions, squared_C, prior.noise, strict=True):
        of.setdefault(condition.parts, []).append((squared / noise, 1 / noise))
    size = {parts: sum(s for s, _ in own) / sum(w for _, w in own) for parts, own in of.items()}
    large = [parts for parts, squared in size.items() if squared > LEAST_EFFECT**2]
    return sorted(large, key=lambda parts: (-size[parts], parts))[:MAX_PERTURBATIONS]
