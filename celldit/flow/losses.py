r"""Losses: regression on the velocity, and the energy distance between sets of latent cells.

References
----------
Lipman et al. Flow matching for generative modeling. ICLR 2023.
Székely, Rizzo. Energy statistics: a class of statistics based on distances. J. Stat. Plan.
Inference 143, 2013.
"""

from __future__ import annotations

import torch
from torch import Tensor


def velocity_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of velocities, both (B, ...)."""
    return (prediction - target).square().flatten(1).mean(dim=1).mean()


def energy_distance_loss(x: Tensor, y: Tensor) -> Tensor:
    r"""Energy distance between two sets, :math:`2E|X-Y| - E|X-X'| - E|Y-Y'|`, without bias.

    A U-statistic: its gradient in expectation is that of the distance between the distributions,
    and near equality it falls below zero half of the time. Of sets (N, ...) and (M, ...) it is a
    scalar in latent units, differentiable in both; 0 where a set has fewer than two.
    """
    x_ND, y_MD = x.flatten(1), y.flatten(1)
    if min(len(x_ND), len(y_MD)) < 2:
        return x_ND.new_zeros(())
    between = _distances(x_ND, y_MD).mean()
    within_x = _off_diagonal_mean(_distances(x_ND, x_ND))
    within_y = _off_diagonal_mean(_distances(y_MD, y_MD))
    return 2 * between - within_x - within_y


def _distances(x_ND: Tensor, y_MD: Tensor) -> Tensor:
    # The matrix-product shortcut loses the small distances that matter near equality.
    return torch.cdist(x_ND, y_MD, compute_mode="donot_use_mm_for_euclid_dist")  # (N, M)


def _off_diagonal_mean(matrix_NN: Tensor) -> Tensor:
    n = len(matrix_NN)
    return (matrix_NN.sum() - matrix_NN.diagonal().sum()) / (n * (n - 1))
