r"""Losses: regression on the velocity, and distances between sets of latent cells.

The set distances are U-statistics: unbiased, so their gradient in expectation is that of the
distance between the distributions, and near equality they fall below zero half of the time.

References
----------
Lipman et al. Flow matching for generative modeling. ICLR 2023.
Székely, Rizzo. Energy statistics: a class of statistics based on distances. J. Stat. Plan.
Inference 143, 2013.
Gretton et al. A kernel two-sample test. JMLR 13, 2012, equation 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from celldit.errors import InputError

__all__ = ["energy_distance_loss", "mmd_loss", "velocity_loss"]


def velocity_loss(
    prediction: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean squared error of the velocity, weighted by sample.

    Parameters
    ----------
    prediction
        Predicted velocities, (B, ...).
    target
        Velocity targets, (B, ...).
    weight
        One weight per sample, (B,), not negative; equal weights when None. Only their ratios count.

    Returns
    -------
    torch.Tensor
        The weighted mean over samples of the mean over dimensions, a scalar.

    Raises
    ------
    InputError
        The shapes do not fit together.
    """
    if prediction.shape != target.shape:
        raise InputError(
            f"The prediction has shape {tuple(prediction.shape)} and the target "
            f"{tuple(target.shape)}; they must be equal."
        )
    error_B = (prediction - target).square().flatten(1).mean(dim=1)  # (B,)
    if weight is None:
        return error_B.mean()
    if weight.shape != error_B.shape:
        raise InputError(
            f"weight has shape {tuple(weight.shape)} for {len(error_B)} samples; give one each."
        )
    # A batch whose weights are all zero teaches nothing; it must not make the loss NaN.
    total = weight.sum().clamp(min=torch.finfo(weight.dtype).tiny)
    return (weight * error_B).sum() / total


def energy_distance_loss(
    x: torch.Tensor,
    y: torch.Tensor,
    x_groups: torch.Tensor | None = None,
    y_groups: torch.Tensor | None = None,
) -> torch.Tensor:
    r"""Energy distance between two sets, :math:`2E|X-Y| - E|X-X'| - E|Y-Y'|`, without bias.

    Parameters
    ----------
    x
        One set, (N, ...).
    y
        The other, (M, ...).
    x_groups
        Group of each row of x, (N,), integers; all in one group when None. The mean is taken over
        groups that have at least two rows on both sides; the rest are left aside.
    y_groups
        Group of each row of y, (M,); given if and only if ``x_groups`` is.

    Returns
    -------
    torch.Tensor
        A scalar in latent units, differentiable in both sets; 0 when no group is large enough.

    Raises
    ------
    InputError
        The shapes do not fit together.
    """
    return _mean_over_groups(_energy_distance, x, y, x_groups, y_groups)


def mmd_loss(
    x: torch.Tensor,
    y: torch.Tensor,
    x_groups: torch.Tensor | None = None,
    y_groups: torch.Tensor | None = None,
    bandwidths: Sequence[float] = (0.5, 1.0, 2.0),
) -> torch.Tensor:
    r"""Squared maximum mean discrepancy with a mean of Gaussian kernels, without bias.

    :math:`k(a, b)` is the mean over bandwidths h of :math:`\exp(-|a - b|^2 / (2 h^2 m^2))`, with m
    the median distance between the two sets of a group, held constant under differentiation.

    Parameters
    ----------
    x
        One set, (N, ...).
    y
        The other, (M, ...).
    x_groups
        As in :func:`energy_distance_loss`.
    y_groups
        As in :func:`energy_distance_loss`.
    bandwidths
        Bandwidths in units of the median distance, all positive.

    Returns
    -------
    torch.Tensor
        A scalar without unit, differentiable in both sets; 0 when no group is large enough.

    Raises
    ------
    InputError
        The shapes do not fit together, or a bandwidth is not positive.
    """
    if not bandwidths or any(not h > 0 for h in bandwidths):
        raise InputError(f"bandwidths must be positive numbers, at least one, not {bandwidths}.")

    def statistic(x_ND: torch.Tensor, y_MD: torch.Tensor) -> torch.Tensor:
        return _mmd(x_ND, y_MD, bandwidths)

    return _mean_over_groups(statistic, x, y, x_groups, y_groups)


def _energy_distance(x_ND: torch.Tensor, y_MD: torch.Tensor) -> torch.Tensor:
    between = _distances(x_ND, y_MD).mean()
    within_x = _off_diagonal_mean(_distances(x_ND, x_ND))
    within_y = _off_diagonal_mean(_distances(y_MD, y_MD))
    return 2 * between - within_x - within_y


def _mmd(x_ND: torch.Tensor, y_MD: torch.Tensor, bandwidths: Sequence[float]) -> torch.Tensor:
    xy, xx, yy = _distances(x_ND, y_MD), _distances(x_ND, x_ND), _distances(y_MD, y_MD)
    # All points in one place have median 0; any positive unit then gives the right answer, 0.
    unit = xy.detach().median()
    unit = torch.where(unit > 0, unit, torch.ones_like(unit))

    def kernel(distances: torch.Tensor) -> torch.Tensor:
        square = (distances / unit).square()
        return torch.stack([torch.exp(-square / (2 * h * h)) for h in bandwidths]).mean(dim=0)

    return _off_diagonal_mean(kernel(xx)) + _off_diagonal_mean(kernel(yy)) - 2 * kernel(xy).mean()


def _distances(x_ND: torch.Tensor, y_MD: torch.Tensor) -> torch.Tensor:
    # The matrix-product shortcut loses the small distances that matter near equality.
    return torch.cdist(x_ND, y_MD, compute_mode="donot_use_mm_for_euclid_dist")  # (N, M)


def _off_diagonal_mean(matrix_NN: torch.Tensor) -> torch.Tensor:
    n = len(matrix_NN)
    return (matrix_NN.sum() - matrix_NN.diagonal().sum()) / (n * (n - 1))


def _mean_over_groups(
    statistic: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    y: torch.Tensor,
    x_groups: torch.Tensor | None,
    y_groups: torch.Tensor | None,
) -> torch.Tensor:
    if x.shape[1:] != y.shape[1:] or x.ndim < 2:
        raise InputError(
            f"The sets have shapes {tuple(x.shape)} and {tuple(y.shape)}; rows must be points of "
            "one space."
        )
    if (x_groups is None) != (y_groups is None):
        raise InputError("Give groups for both sets, or for neither.")
    if x_groups is None or y_groups is None:
        x_groups = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        y_groups = torch.zeros(len(y), dtype=torch.int64, device=y.device)
    if x_groups.shape != x.shape[:1] or y_groups.shape != y.shape[:1]:
        raise InputError(
            f"There are {tuple(x_groups.shape)} and {tuple(y_groups.shape)} groups for {len(x)} "
            f"and {len(y)} rows; give one group per row."
        )
    x_ND, y_MD = x.flatten(1), y.flatten(1)
    values = []
    for group in torch.unique(x_groups):
        x_in, y_in = x_ND[x_groups == group], y_MD[y_groups == group]
        if min(len(x_in), len(y_in)) >= 2:
            values.append(statistic(x_in, y_in))
    if not values:
        # Still part of the graph, so that a training step with such a batch runs through.
        return 0.0 * (x_ND.sum() + y_MD.sum())
    return torch.stack(values).mean()
