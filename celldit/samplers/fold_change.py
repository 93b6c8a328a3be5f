"""What a shift of the latent does to the expectation of genes, over the cells of a context."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from celldit.conditions.population import Population, Surroundings
from celldit.latent.autoencoder import Autoencoder
from celldit.samplers.standins import N_CELLS, control_draws

PSEUDO_RATE = 0.05  # counts per 10,000: below this a gene counts as hardly expressed


def decoded_fold_change(
    autoencoder: Autoencoder,
    population: Population,
    surroundings: Surroundings,
    effect_F: np.ndarray | None = None,
    reference_F: np.ndarray | None = None,
    move: Callable[[Tensor], Tensor] | None = None,
) -> np.ndarray:
    """Log ratio of mean expected rates after and before, natural logarithm, shape (G,).

    A pseudo-rate of 0.05 counts per 10,000 is added to both, so that genes which are hardly
    expressed do not show large ratios of next to nothing.

    Parameters
    ----------
    autoencoder
        For its decoder.
    population
        Where control cells lie and how they scatter.
    surroundings
        Context and time.
    effect_F
        Shift of the latent, the same for every cell; None for none.
    reference_F
        Mean latent of the controls where training had none.
    move
        Control cells (N, K, D) to predicted cells, before the shift; None moves nothing.
    """
    shape = autoencoder.n_tokens, autoencoder.token_dim
    control = control_draws(population, shape, surroundings, reference_F)
    moved = control if move is None else move(control)
    if effect_F is not None:
        moved = moved + torch.from_numpy(effect_F.astype(np.float32)).view(*shape)
    size_N = torch.full((N_CELLS,), 1e4)
    with torch.no_grad():
        before_G = autoencoder.decode(control, size_N).mean_BG.double().mean(0)
        after_G = autoencoder.decode(moved, size_N).mean_BG.double().mean(0)
    return torch.log((after_G + PSEUDO_RATE) / (before_G + PSEUDO_RATE)).numpy()
