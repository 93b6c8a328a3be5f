"""Log fold changes of genes, with their standard deviation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from torch import Tensor

from celldit.calibration.control_draws import N_CELLS
from celldit.calibration.rates.fold_change import FoldChanges
from celldit.conditions import Condition
from celldit.conditions.extrapolation import Extrapolation
from celldit.errors import OutOfMemoryError
from celldit.inference.batch import ConditionBatch
from celldit.inference.edit import EditConfig
from celldit.inference.solver import SolverConfig
from celldit.inference.transport import Route, TransportMap, transport_map
from celldit.memory import bound
from celldit.training.trained import Trained

BLOCK = 64
"""Conditions at a time."""
ROW_BYTES = 100
"""Of a row of the table, with what making it takes."""


def _at(way: TransportMap, at_N: np.ndarray, z_NKD: Tensor) -> Tensor:
    return way(z_NKD, at_N)


class EffectBlock(NamedTuple):
    """Effects of some conditions.

    Attributes
    ----------
    conditions, kinds
        Q conditions, and how far each is from training.
    beyond_range
        Whether a dose or the time of each lies outside those of training.
    log_fold_change_QG, sd_QG
        Of every gene, float64.
    """

    conditions: list[Condition]
    kinds: list[Extrapolation]
    beyond_range: list[bool]
    log_fold_change_QG: np.ndarray
    sd_QG: np.ndarray

    def obs(self, trained: Trained) -> dict[str, list]:
        """What the rows are."""
        fields = trained.fields
        sep, control = fields.perturbation_sep, fields.control
        ranged = fields.dose_key is not None or fields.time_key is not None
        return {
            "perturbation": [c.label(sep, control) for c in self.conditions],
            "context": [c.context for c in self.conditions],
            "extrapolation": [str(kind) for kind in self.kinds],
            **({"beyond_range": self.beyond_range} if ranged else {}),
        }


def effect_blocks(
    trained: Trained, conditions: Sequence[Condition], size: int = BLOCK
) -> Iterator[EffectBlock]:
    """Predict the log fold change of every gene, some conditions at a time.

    Cells drawn about the controls' mean are sent on their way, and mean rates after and before are
    compared, counted from those that were measured in the controls
    (:mod:`celldit.calibration.rates.fold_change`). The standard deviation is that of the effect
    prior, carried to genes by the decoder's loadings and calibrated on training conditions
    (:mod:`celldit.calibration.effects`).

    Parameters
    ----------
    trained
        The model.
    conditions
        Different conditions.
    size
        How many at a time.
    """
    parts = trained.autoencoder, trained.population
    changes = FoldChanges(*parts, trained.control_rates, trained.mean_calibration)
    for start in range(0, len(conditions), size):
        yield _block(trained, conditions[start : start + size], changes)


def _block(trained: Trained, conditions: Sequence[Condition], changes: FoldChanges) -> EffectBlock:
    population, calibration = trained.population, trained.calibration
    asked = ConditionBatch.of(trained, conditions)
    n = len(asked.conditions)
    estimate = population.prior.estimate(asked.conditions, asked.references)
    _, sd_QG = estimate.project(trained.autoencoder.decoder.loadings.detach().double().numpy())
    each = replace(asked, row=np.arange(n))
    here = ConditionBatch.of_rows(trained, [c.control() for c in asked.conditions], each.row)
    journey = Route(here, each, each.row, asked.weight_Q)
    way = transport_map(trained, journey, "transport", SolverConfig(), EditConfig(), seed=0)
    reaches = asked.reaches(trained)
    beyond = trained.mean_calibration.beyond(
        population.prior, trained.genes, asked.conditions, asked.references
    )
    fold_QG = np.empty_like(sd_QG)
    for row, condition in enumerate(asked.conditions):
        calibrated_G, decoded_G = changes.of(
            condition.stratum,
            reaches[row],
            beyond[row],
            reference_F=asked.references.get(condition.stratum),
            move=partial(_at, way, np.full(N_CELLS, row)),
        )
        fold_QG[row] = calibration.fold_change(calibrated_G, decoded_G, reaches[row])
        sd_QG[row] = calibration.sd(sd_QG[row], fold_QG[row], reaches[row])
        new = beyond[row].new_genes
        sd_QG[row, new] = np.hypot(sd_QG[row, new], trained.mean_calibration.on_target.spread)
        sd_QG[row] = np.hypot(sd_QG[row], beyond[row].further.sd_G)
        if condition.is_control:
            sd_QG[row] = 0.0
    return EffectBlock(asked.conditions, asked.kinds, asked.beyond, fold_QG, sd_QG)


def check_table(n_conditions: int, n_genes: int) -> None:
    """Raise OutOfMemoryError if a table of so many effects takes more than half of the memory."""
    needed, (most, whose) = ROW_BYTES * n_conditions * n_genes, bound()
    if needed > most / 2:
        raise OutOfMemoryError(
            f"A table of {n_conditions:,} conditions x {n_genes:,} genes takes about "
            f"{needed / 1e9:,.1f} GB, and {whose} is {most / 1e9:,.1f} GB; write it to disk with "
            'out="effects.zarr", or ask for fewer perturbations at a time.'
        )


def effect_table(trained: Trained, conditions: Sequence[Condition]) -> pd.DataFrame:
    """Effects of Q conditions, as :func:`effect_blocks` predicts them, in one table.

    Returns
    -------
    DataFrame
        Q·G rows: perturbation, context, gene, log_fold_change, sd, extrapolation, and
        with doses or times beyond_range.
    """
    blocks = list(effect_blocks(trained, conditions))
    parts = [pd.DataFrame(block.obs(trained)) for block in blocks]
    obs, n_genes = pd.concat(parts, ignore_index=True), len(trained.genes)
    columns = {name: np.repeat(obs[name].to_numpy(), n_genes) for name in obs}
    genes = np.array(trained.genes, dtype=object)
    fold, sd = (
        np.concatenate([values.ravel() for values in each])
        for each in zip(*(block[3:] for block in blocks), strict=True)
    )
    return pd.DataFrame(
        {
            "perturbation": columns.pop("perturbation"),
            "context": columns.pop("context"),
            "gene": np.tile(genes, len(obs)),
            "log_fold_change": fold,
            "sd": sd,
            **columns,
        }
    )
