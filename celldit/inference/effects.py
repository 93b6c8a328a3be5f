"""Log fold changes of genes, with their standard deviation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
from torch import Tensor

from celldit.calibration.control_draws import N_CELLS
from celldit.calibration.rates.fold_change import fold_changes
from celldit.conditions import Condition
from celldit.inference.batch import ConditionBatch
from celldit.inference.edit import EditConfig
from celldit.inference.solver import SolverConfig
from celldit.inference.transport import Route, TransportMap, transport_map
from celldit.training.trained import Trained


def _at(way: TransportMap, at_N: np.ndarray, z_NKD: Tensor) -> Tensor:
    return way(z_NKD, at_N)


def effect_table(trained: Trained, conditions: Sequence[Condition]) -> pd.DataFrame:
    """Predict the log fold change of every gene in every condition.

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
        Q conditions.

    Returns
    -------
    DataFrame
        Q·G rows: perturbation, context, gene, log_fold_change, sd, extrapolation, and
        with doses or times beyond_range.
    """
    population, fields, calibration = trained.population, trained.fields, trained.calibration
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
    frames = []
    for row, (condition, kind) in enumerate(zip(asked.conditions, asked.kinds, strict=True)):
        at_N = np.full(N_CELLS, row)
        calibrated_G, decoded_G = fold_changes(
            trained.autoencoder,
            population,
            condition.stratum,
            trained.control_rates,
            trained.mean_calibration,
            reaches[row],
            beyond[row],
            reference_F=asked.references.get(condition.stratum),
            move=partial(_at, way, at_N),
        )
        fold_G = calibration.fold_change(calibrated_G, decoded_G, reaches[row])
        sd_G = calibration.sd(sd_QG[row], fold_G, reaches[row])
        new = beyond[row].new_genes
        sd_G[new] = np.hypot(sd_G[new], trained.mean_calibration.on_target.spread)
        sd_G = np.hypot(sd_G, beyond[row].further.sd_G)
        ranged = fields.dose_key is not None or fields.time_key is not None
        frames.append(
            pd.DataFrame(
                {
                    "perturbation": condition.label(fields.perturbation_sep, fields.control),
                    "context": condition.context,
                    "gene": list(trained.genes),
                    "log_fold_change": fold_G,
                    "sd": 0.0 if condition.is_control else sd_G,
                    "extrapolation": str(kind),
                    **({"beyond_range": asked.beyond[row]} if ranged else {}),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)
