"""Log fold changes of genes, with their standard deviation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from torch import Tensor

from celldit.conditions import Condition
from celldit.flow.anchored import FlowCondition
from celldit.samplers.flow import SolverConfig, transport
from celldit.samplers.fold_change import N_CELLS, decoded_fold_change
from celldit.samplers.trained import Asked, Trained, references_for


def effect_table(trained: Trained, conditions: Sequence[Condition]) -> pd.DataFrame:
    """Predict the log fold change of every gene in every condition.

    The mean is that of the decoded flow over cells drawn about the controls' mean. The standard
    deviation is that of the effect prior, carried to genes by the decoder's loadings and calibrated
    on training conditions (:mod:`celldit.samplers.calibration`).

    Parameters
    ----------
    trained
        The model.
    conditions
        Q conditions.

    Returns
    -------
    DataFrame
        Q·G rows: perturbation, context, gene, log_fold_change, sd, extrapolation.
    """
    population, fields, calibration = trained.population, trained.fields, trained.calibration
    asked = Asked.of(trained, conditions)
    references = references_for(population, asked.conditions, {})
    estimate = population.prior.estimate(asked.conditions, references)
    _, sd_QG = estimate.project(trained.autoencoder.decoder.loadings.detach().double().numpy())
    frames = []
    for row, (condition, kind) in enumerate(zip(asked.conditions, asked.kinds, strict=True)):
        told = asked.briefing.tell(np.full(N_CELLS, row), from_noise=False)
        trust_B = asked.trust_Q[row].expand(N_CELLS)

        def move(x: Tensor, told: FlowCondition = told, trust_B: Tensor = trust_B) -> Tensor:
            return transport(trained.flow, x, told, trust_B, SolverConfig())

        fold_G = decoded_fold_change(
            trained.autoencoder,
            population,
            condition.surroundings,
            estimate.mean[row],
            references.get(condition.surroundings),
            move,
        )
        frames.append(
            pd.DataFrame(
                {
                    "perturbation": condition.label(fields.perturbation_sep, fields.control),
                    "context": condition.context,
                    "gene": list(trained.genes),
                    "log_fold_change": fold_G,
                    "sd": 0.0 if condition.is_control else calibration.sd(sd_QG[row], fold_G),
                    "extrapolation": str(kind),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)
