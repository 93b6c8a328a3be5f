"""Draws that stand in for the control cells of a context."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from celldit.conditions.population import Population
from celldit.conditions.strata import StratumKey
from celldit.flow import cell_noise
from celldit.random import CONTROLS_STREAM

N_CELLS = 256


def control_draws(
    population: Population,
    shape: tuple[int, int],
    stratum: StratumKey,
    reference_F: np.ndarray | None = None,
) -> Tensor:
    """Draw latents about the mean of a context's controls, always the same ones.

    What is said of a condition as a whole must not depend on which cells were passed in which
    batch, and a loaded model holds no cells.

    Parameters
    ----------
    population
        Where controls lie and how they scatter.
    shape
        Latent tokens K and dimensions D.
    stratum
        Context and time.
    reference_F
        Mean latent of the controls where training had none.

    Returns
    -------
    Tensor
        Shape (256, K, D), float32.
    """
    noise_NF = cell_noise(torch.arange(N_CELLS), (shape[0] * shape[1],), 0, CONTROLS_STREAM)
    mean_F = population.references.get(stratum, reference_F)
    drawn_NF = mean_F + noise_NF.double().numpy() @ population.factor(stratum).T
    return torch.from_numpy(drawn_NF.astype(np.float32)).view(-1, *shape)
