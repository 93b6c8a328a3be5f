"""Log fold changes of genes, with their standard deviation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from celldit.conditions import Condition
from celldit.flow import cell_noise
from celldit.samplers.flow import SolverConfig, transport
from celldit.samplers.trained import Asked, Trained, references_for

N_CELLS = 256
EFFECT_STREAM = 1 << 21


def effect_table(trained: Trained, conditions: Sequence[Condition]) -> pd.DataFrame:
    """Predict the log fold change of every gene in every condition.

    The mean is that of the decoded flow over cells drawn about the controls' mean; the standard
    deviation is that of the effect prior, carried to genes by the decoder's loadings.

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
    autoencoder, population, shape = trained.autoencoder, trained.population, trained.shape
    fields = trained.fields
    asked = Asked.of(trained, conditions)
    references = references_for(population, asked.conditions, {})
    estimate = population.prior.estimate(asked.conditions, references)
    loadings_FG = autoencoder.decoder.loadings.detach().double().numpy()
    _, sd_QG = estimate.project(loadings_FG)
    keys = torch.arange(N_CELLS)
    noise_NF = cell_noise(keys, (shape[0] * shape[1],), 0, EFFECT_STREAM).double().numpy()
    size_N = torch.full((N_CELLS,), 1e4)
    frames = []
    for row, (condition, kind) in enumerate(zip(asked.conditions, asked.kinds, strict=True)):
        told = asked.briefing.tell(np.full(N_CELLS, row), from_noise=False)
        briefing = asked.briefing
        mean_F = (briefing.positions_QKD[row] - briefing.effects_QKD[row]).flatten()
        factor_FF = population.factor(condition.surroundings)
        control_NF = mean_F.double().numpy() + noise_NF @ factor_FF.T
        control = torch.from_numpy(control_NF.astype(np.float32)).view(-1, *shape)
        trust = asked.trust_Q[row].expand(N_CELLS)
        moved = transport(trained.flow, control + told.effect_BKD, told, trust, SolverConfig())
        with torch.no_grad():
            before = autoencoder.decode(control, size_N).mean_BG.double().mean(0)
            after = autoencoder.decode(moved, size_N).mean_BG.double().mean(0)
        frames.append(
            pd.DataFrame(
                {
                    "perturbation": condition.label(fields.perturbation_sep, fields.control),
                    "context": condition.context,
                    "gene": list(trained.genes),
                    "log_fold_change": torch.log((after + 1e-8) / (before + 1e-8)).numpy(),
                    "sd": sd_QG[row],
                    "extrapolation": str(kind),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)
