"""Log fold changes of genes, and what is known of how far they are off."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from torch import Tensor

from celldit.calibration.effects import Spread
from celldit.calibration.rates.fold_change import PSEUDO_RATE, ControlRates, FoldChanges
from celldit.calibration.rates.means import mean_rates
from celldit.calibration.reference_controls import N_CELLS
from celldit.conditions import Condition, ConditionTable
from celldit.conditions.extrapolation import Extrapolation
from celldit.conditions.strata import StratumKey
from celldit.data.store import CellStore
from celldit.inference.batch import ConditionBatch
from celldit.inference.maps.transport import Route, Sampler, TransportMap, transport_map
from celldit.training.trained import Trained

BLOCK = 64
"""Conditions at a time."""


@dataclass(frozen=True, eq=False)
class NewControls:
    """Control cells of contexts that training did not see."""

    positions: Mapping[StratumKey, np.ndarray]  # their mean latent, shape (F,)
    rates: ControlRates  # their mean counts per 10,000, shape (G,)
    n_cells: Mapping[StratumKey, int]


@dataclass(frozen=True, eq=False)
class Effect:
    """Log fold changes of the G genes under one condition."""

    condition: Condition
    kind: Extrapolation  # how far it is from training
    beyond_range: bool | None  # whether its dose or time lies outside training; None without
    spread: Spread  # of true log fold changes about those predicted, natural logarithms
    base_G: np.ndarray  # mean counts per 10,000 in the controls

    @property
    def sd_G(self) -> np.ndarray:
        """Standard deviation of each log fold change; none where nothing was done."""
        return np.zeros_like(self.base_G) if self.condition.is_control else self.spread.sd_G


def _at(mapping: TransportMap, at_N: np.ndarray, z_NKD: Tensor) -> Tensor:
    return mapping(z_NKD, at_N)


def effects_of(
    trained: Trained,
    conditions: Sequence[Condition],
    controls: NewControls | None = None,
    at_once: int = BLOCK,
) -> Iterator[Effect]:
    """Predict the log fold change of every gene in every condition, `at_once` of them together.

    Cells drawn about the controls' mean are sent on their way, and mean rates after and before are
    compared, counted from those that were measured in the controls
    (:mod:`celldit.calibration.rates.fold_change`), or in `controls` of new contexts. How far they
    are off is what the effect model says, carried to genes by the decoder's loadings and calibrated
    on training conditions (:mod:`celldit.calibration.effects`).
    """
    new = NewControls({}, {}, {}) if controls is None else controls
    trained = trained.of_effects
    rates = {**trained.control_rates, **new.rates}
    changes = FoldChanges(trained.reference_controls, rates, trained.mean_calibration)
    distinct = list(dict.fromkeys(conditions))
    for start in range(0, len(distinct), at_once):
        yield from _block(trained, distinct[start : start + at_once], new, changes)


def _block(
    trained: Trained, conditions: Sequence[Condition], new: NewControls, changes: FoldChanges
) -> Iterator[Effect]:
    population, fields, calibration = trained.population, trained.fields, trained.calibration
    requested = ConditionBatch.of(trained, conditions, new.positions)
    n = len(requested.conditions)
    estimate = population.prior.estimate(requested.conditions, requested.references)
    _, sd_QG = estimate.project(trained.autoencoder.decoder.loadings.detach().double().numpy())
    each = replace(requested, row=np.arange(n))
    before = ConditionBatch.of_rows(
        trained, [c.control() for c in requested.conditions], each.row, new.positions
    )
    mapping = transport_map(trained, Route(before, each, each.row), Sampler())
    extrapolations = requested.extrapolations(trained)
    effects_QF = requested.embedding.effects_QKD.flatten(1).double().numpy()
    residual_effects = trained.mean_calibration.residual_effects(
        population.prior, trained.genes, requested.conditions, requested.references
    )
    ranged = fields.dose_key is not None or fields.time_key is not None
    of_controls = {c.stratum: n for c, n in trained.frequencies.items() if c.is_control}
    n_controls = {**of_controls, **new.n_cells}
    for row, (condition, kind) in enumerate(
        zip(requested.conditions, requested.kinds, strict=True)
    ):
        stratum, reference_F = condition.stratum, requested.references.get(condition.stratum)
        calibrated_G, decoded_G = changes.of(
            stratum,
            extrapolations[row],
            residual_effects[row],
            effects_QF[row],
            reference_F,
            move=partial(_at, mapping, np.full(N_CELLS, row)),
        )
        base_G = changes.control_rate(stratum, reference_F)
        added_G = np.zeros(len(trained.genes))
        added_G[residual_effects[row].new_genes] = trained.mean_calibration.on_target.spread
        added_G = np.hypot(added_G, residual_effects[row].further.sd_G)
        spread = calibration.spread(
            np.zeros_like(sd_QG[row]) if condition.is_control else sd_QG[row],
            calibration.fold_change(calibrated_G, decoded_G, extrapolations[row]),
            extrapolations[row],
            control_rate_G=base_G,
            n_controls=n_controls.get(stratum, 0),
            n_cells=trained.frequencies.get(condition, 0),
            n_parts=len(condition.parts),
            added_sd_G=added_G,
        )
        yield Effect(
            condition, kind, requested.beyond_range[row] if ranged else None, spread, base_G
        )


def new_controls(trained: Trained, cells: CellStore) -> NewControls:
    """Where the controls lie of those contexts of some cells that training did not see."""
    known = {c.context for c in trained.frequencies}
    is_new = ~np.isin(cells.contexts.astype(str), sorted(known)) & cells.is_control
    if not is_new.any():
        return NewControls({}, {}, {})
    controls = cells.select(is_new)
    table = ConditionTable.from_cells(controls, trained.fields.perturbation_sep)
    z_NF = trained.autoencoder.encode(controls).flatten(1).double().numpy()
    rates = mean_rates(controls, table.index, range(len(table)))
    keys = {c.stratum: i for i, c in enumerate(table.conditions)}
    return NewControls(
        {key: z_NF[table.index == i].mean(axis=0) for key, i in keys.items()},
        {key: rates[i].mean_G - PSEUDO_RATE for key, i in keys.items()},
        {key: int(table.counts[i]) for key, i in keys.items()},
    )
