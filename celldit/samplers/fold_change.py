"""What a shift of the latent does to the expectation of genes, over the cells of a context."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from celldit.conditions.population import Population, Surroundings
from celldit.flow import cell_noise
from celldit.latent.autoencoder import Autoencoder

N_CELLS = 256
EFFECT_STREAM = 1 << 21
PSEUDO_RATE = 0.05  # counts per 10,000: below this a gene counts as hardly expressed


def decoded_fold_change(
    autoencoder: Autoencoder,
    population: Population,
    surroundings: Surroundings,
    effect_F: np.ndarray,
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
        Shift of the latent.
    reference_F
        Mean latent of the controls where training had none.
    move
        What the flow adds: shifted cells (B, K, D) to predicted cells; None adds nothing.
    """
    shape = autoencoder.n_tokens, autoencoder.token_dim
    noise_NF = cell_noise(torch.arange(N_CELLS), (shape[0] * shape[1],), 0, EFFECT_STREAM)
    mean_F = population.references.get(surroundings, reference_F)
    control_NF = mean_F + noise_NF.double().numpy() @ population.factor(surroundings).T
    control = torch.from_numpy(control_NF.astype(np.float32)).view(-1, *shape)
    moved = control + torch.from_numpy(effect_F.astype(np.float32)).view(*shape)
    if move is not None:
        moved = move(moved)
    size_N = torch.full((N_CELLS,), 1e4)
    with torch.no_grad():
        before_G = autoencoder.decode(control, size_N).mean_BG.double().mean(0)
        after_G = autoencoder.decode(moved, size_N).mean_BG.double().mean(0)
    return torch.log((after_G + PSEUDO_RATE) / (before_G + PSEUDO_RATE)).numpy()
