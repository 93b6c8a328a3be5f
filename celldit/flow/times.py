r"""How training times are drawn from (0, 1).

A sampler is a distribution given by its quantile function, so any of them can be stratified. Draws
never reach 0 or 1: there the conditional velocity of some paths carries no information.

References
----------
Esser et al. Scaling rectified flow transformers for high-resolution image synthesis. ICML 2024
(logit-normal times).
Kingma, Salimans, Poole, Ho. Variational diffusion models. NeurIPS 2021, appendix I.1 (evenly
spread times within a batch).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch

from celldit.errors import InputError, UnknownNameError
from celldit.flow.transfer import to_device

__all__ = ["LogitNormal", "Stratified", "TimeSampler", "Uniform", "resolve_times"]

# 1 - 2**-24 is the largest float32 below 1; the same distance is kept from 0.
_EDGE = 2.0**-24


class TimeSampler(Protocol):
    """Draws training times."""

    def __call__(
        self,
        batch: int,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
    ) -> torch.Tensor:
        """Draw ``batch`` times in (0, 1), shape (B,), float32."""
        ...


class TimeDistribution(TimeSampler, Protocol):
    """A sampler that also knows its quantile function."""

    def quantile(self, u: torch.Tensor) -> torch.Tensor:
        """Time below which a share u (B,) of the draws lies."""
        ...


@dataclass(frozen=True)
class Uniform:
    """Every time is as likely as any other."""

    def quantile(self, u: torch.Tensor) -> torch.Tensor:
        """Quantile function, the identity on (B,)."""
        return u

    def __call__(
        self,
        batch: int,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
    ) -> torch.Tensor:
        """Draw ``batch`` independent times, shape (B,)."""
        return _draw(self.quantile, _uniforms(batch, generator), device)


@dataclass(frozen=True)
class LogitNormal:
    r"""Times whose logit is normal: most draws in the middle of the path, where learning is hard.

    Parameters
    ----------
    mean
        Mean of :math:`\log(t / (1 - t))`; positive values favour the data end.
    std
        Its standard deviation, above 0.

    Raises
    ------
    InputError
        The mean is not finite or the standard deviation not positive.
    """

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.mean) or not (0 < self.std < math.inf):
            raise InputError(
                f"LogitNormal needs a finite mean and a positive std, not mean={self.mean} and "
                f"std={self.std}; the usual choice is LogitNormal(0.0, 1.0)."
            )

    def quantile(self, u: torch.Tensor) -> torch.Tensor:
        """Quantile function, (B,) -> (B,)."""
        return torch.sigmoid(self.mean + self.std * torch.special.ndtri(u))

    def __call__(
        self,
        batch: int,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
    ) -> torch.Tensor:
        """Draw ``batch`` independent times, shape (B,)."""
        return _draw(self.quantile, _uniforms(batch, generator), device)


@dataclass(frozen=True)
class Stratified:
    """One draw from each of B equally likely strata, in random order.

    The batch covers the whole distribution every time, so the loss varies less between steps.

    Parameters
    ----------
    of
        The distribution to stratify.
    """

    of: TimeDistribution = field(default_factory=Uniform)

    def __call__(
        self,
        batch: int,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
    ) -> torch.Tensor:
        """Draw ``batch`` times, one per stratum, shape (B,)."""
        u_B = _uniforms(batch, generator)
        order_B = torch.randperm(batch, generator=generator, device=u_B.device)
        return _draw(self.of.quantile, (order_B + u_B) / batch, device)


def _uniforms(batch: int, generator: torch.Generator | None) -> torch.Tensor:
    # Drawn in double precision where the generator lives, then moved.
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise InputError(f"The number of times must be a positive integer, not {batch!r}.")
    device = generator.device if generator is not None else torch.device("cpu")
    return torch.rand(batch, generator=generator, device=device, dtype=torch.float64)


def _draw(
    quantile: Callable[[torch.Tensor], torch.Tensor],
    u_B: torch.Tensor,
    device: torch.device | str | None,
) -> torch.Tensor:
    # Clamped before, for the quantile function's sake, and after, since it may round to the edge.
    t_B = quantile(u_B.clamp(_EDGE, 1 - _EDGE)).clamp(_EDGE, 1 - _EDGE)
    t_B = t_B.to(torch.float32)
    return t_B if device is None else to_device(t_B, torch.device(device))


_TIMES: dict[str, Callable[[], TimeSampler]] = {
    "uniform": Uniform,
    "logit_normal": LogitNormal,
    "stratified": Stratified,
}


def resolve_times(name: str) -> TimeSampler:
    """Find a time sampler with its default settings by name.

    Parameters
    ----------
    name
        ``"uniform"``, ``"logit_normal"`` or ``"stratified"`` (uniform, one draw per stratum).

    Returns
    -------
    TimeSampler
        The sampler.

    Raises
    ------
    UnknownNameError
        No sampler has that name.
    """
    if name not in _TIMES:
        raise UnknownNameError.among("time sampler", name, _TIMES)
    return _TIMES[name]()
