r"""Probability paths from a source (t = 0) to data (t = 1).

Every path is affine, :math:`x_t = \alpha(t)\, x_1 + \sigma(t)\, x_0`, so its velocity target is
:math:`\dot\alpha(t)\, x_1 + \dot\sigma(t)\, x_0`. The network learns the mean of that target given
:math:`x_t`, from which the means of x0 and x1, and for a Gaussian source the score, follow by
solving two linear equations.

References
----------
Liu, Gong, Liu. Flow straight and fast: learning to generate and transfer data with rectified flow.
ICLR 2023 (linear path).
Albergo, Boffi, Vanden-Eijnden. Stochastic interpolants: a unifying framework for flows and
diffusions. arXiv:2303.08797 (trigonometric path, score).
Ma et al. SiT: exploring flow and diffusion-based generative models with scalable interpolant
transformers. ECCV 2024, equation 9 (score from velocity).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch

from celldit.errors import InputError

__all__ = [
    "LinearPath",
    "Path",
    "PathSample",
    "TrigonometricPath",
    "source_from_velocity",
]


@dataclass(frozen=True)
class PathSample:
    """A point on a path and what the network has to say about it.

    Attributes
    ----------
    x_t
        The point, (B, ...).
    t
        Its time in [0, 1], (B,).
    velocity
        The derivative of the point in t with both ends held, (B, ...): the regression target.
    """

    x_t: torch.Tensor
    t: torch.Tensor
    velocity: torch.Tensor


class Path(Protocol):
    """An affine path: four coefficients, each a function (B,) -> (B,), and sampling."""

    def alpha(self, t: torch.Tensor) -> torch.Tensor:
        """Coefficient of the data, 0 at t = 0 and 1 at t = 1."""
        ...

    def sigma(self, t: torch.Tensor) -> torch.Tensor:
        """Coefficient of the source, 1 at t = 0 and 0 at t = 1."""
        ...

    def d_alpha(self, t: torch.Tensor) -> torch.Tensor:
        """Derivative of :meth:`alpha` in t."""
        ...

    def d_sigma(self, t: torch.Tensor) -> torch.Tensor:
        """Derivative of :meth:`sigma` in t."""
        ...

    def sample(self, x0: torch.Tensor, x1: torch.Tensor, t: torch.Tensor) -> PathSample:
        """Point and velocity target at time t (B,) between x0 (B, ...) and x1 (B, ...)."""
        ...


@dataclass(frozen=True)
class LinearPath:
    r"""Rectified flow: :math:`x_t = (1 - t)\, x_0 + t\, x_1`, velocity :math:`x_1 - x_0`."""

    def alpha(self, t: torch.Tensor) -> torch.Tensor:
        """Coefficient of the data, t."""
        return t

    def sigma(self, t: torch.Tensor) -> torch.Tensor:
        """Coefficient of the source, 1 - t."""
        return 1 - t

    def d_alpha(self, t: torch.Tensor) -> torch.Tensor:
        """Derivative of alpha, 1."""
        return torch.ones_like(t)

    def d_sigma(self, t: torch.Tensor) -> torch.Tensor:
        """Derivative of sigma, -1."""
        return -torch.ones_like(t)

    def sample(self, x0: torch.Tensor, x1: torch.Tensor, t: torch.Tensor) -> PathSample:
        """Point and velocity target at times t (B,); see :func:`sample_affine`."""
        return sample_affine(self, x0, x1, t)


@dataclass(frozen=True)
class TrigonometricPath:
    r"""Variance preserving: :math:`x_t = \cos(\pi t/2)\, x_0 + \sin(\pi t/2)\, x_1`."""

    def alpha(self, t: torch.Tensor) -> torch.Tensor:
        """Coefficient of the data, sin(pi t / 2)."""
        return torch.sin(0.5 * math.pi * t)

    def sigma(self, t: torch.Tensor) -> torch.Tensor:
        """Coefficient of the source, cos(pi t / 2)."""
        # Written as a sine of 1 - t, so that it is exactly 0 at t = 1 in floating point.
        return torch.sin(0.5 * math.pi * (1 - t))

    def d_alpha(self, t: torch.Tensor) -> torch.Tensor:
        """Derivative of alpha, (pi / 2) cos(pi t / 2)."""
        return 0.5 * math.pi * self.sigma(t)

    def d_sigma(self, t: torch.Tensor) -> torch.Tensor:
        """Derivative of sigma, -(pi / 2) sin(pi t / 2)."""
        return -0.5 * math.pi * self.alpha(t)

    def sample(self, x0: torch.Tensor, x1: torch.Tensor, t: torch.Tensor) -> PathSample:
        """Point and velocity target at times t (B,); see :func:`sample_affine`."""
        return sample_affine(self, x0, x1, t)


def sample_affine(path: Path, x0: torch.Tensor, x1: torch.Tensor, t: torch.Tensor) -> PathSample:
    """Sample any affine path from its four coefficients.

    Parameters
    ----------
    path
        The path.
    x0
        Source points, (B, ...).
    x1
        Data points, (B, ...), of the same shape.
    t
        Times in [0, 1], (B,).

    Returns
    -------
    PathSample
        The points at the times, and their velocity targets.

    Raises
    ------
    InputError
        The shapes do not fit together.
    """
    if x0.shape != x1.shape:
        raise InputError(
            f"x0 has shape {tuple(x0.shape)} and x1 {tuple(x1.shape)}; a path joins equal shapes."
        )
    t_col = per_row(t, x1)  # (B, 1, ...)
    return PathSample(
        x_t=path.sigma(t_col) * x0 + path.alpha(t_col) * x1,  # (B, ...)
        t=t,  # (B,)
        velocity=path.d_sigma(t_col) * x0 + path.d_alpha(t_col) * x1,  # (B, ...)
    )


def source_from_velocity(
    path: Path, velocity: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor
) -> torch.Tensor:
    r"""Mean of the source given the point, :math:`E[x_0 \mid x_t]`.

    Solves :math:`x_t = \alpha \bar x_1 + \sigma \bar x_0` and
    :math:`v = \dot\alpha \bar x_1 + \dot\sigma \bar x_0` for :math:`\bar x_0`. The determinant is
    constant on both paths (-1 and -pi/2), so the answer is finite for every t.

    Parameters
    ----------
    path
        The path the velocity was learnt on.
    velocity
        Velocity at the point, (B, ...).
    x_t
        The point, (B, ...).
    t
        Times in [0, 1], (B,).

    Returns
    -------
    torch.Tensor
        Expected source points, (B, ...).
    """
    t_col = per_row(t, x_t)
    alpha, d_alpha = path.alpha(t_col), path.d_alpha(t_col)  # (B, 1, ...)
    determinant = alpha * path.d_sigma(t_col) - d_alpha * path.sigma(t_col)  # (B, 1, ...)
    return (alpha * velocity - d_alpha * x_t) / determinant


def per_row(t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Give times of shape (B,) the trailing axes of x, so that they act row by row: (B, 1, ...)."""
    if t.ndim != 1 or x.ndim < 1 or t.shape[0] != x.shape[0]:
        raise InputError(
            f"t has shape {tuple(t.shape)} for a batch of shape {tuple(x.shape)}; give one time "
            "per row, shape (B,)."
        )
    return t.reshape(-1, *(1,) * (x.ndim - 1))
