"""The flow from noise beside its anchor: what was not learned moves nothing, in any steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from celldit.flow import on_path, resolve_solver, uniform_grid
from celldit.flow.anchored import matched_velocity
from celldit.inference.solver import Beside


def test_the_anchor_is_the_best_velocity_between_a_gaussian_and_itself() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, scale = torch.tensor([3.0, -1.0]), torch.tensor([0.5, 2.0])
    x0, x1 = (mean + scale * torch.randn(40_000, 2, generator=generator) for _ in range(2))
    for time in (0.1, 0.5, 0.8):
        t_B = torch.full((len(x0),), time)
        point, velocity = on_path(x0[:, None], x1[:, None], t_B)
        away = point[:, 0] - mean
        slope = (away * velocity[:, 0]).sum(0) / (away**2).sum(0)
        anchor = matched_velocity(point, t_B, mean)
        expected = (anchor[:, 0] / away).mean(0)
        torch.testing.assert_close(slope, expected, atol=0.02, rtol=0.02)


def test_the_anchor_ends_where_it_starts() -> None:
    x0, position = torch.randn(5, 2, 3), torch.randn(5, 2, 3)

    def field(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return matched_velocity(x, t, position)

    end = resolve_solver("rk4").solve(field, x0, uniform_grid(64))
    torch.testing.assert_close(end, x0, atol=1e-4, rtol=1e-4)
    still = resolve_solver("euler").solve(Beside(field, position), x0, uniform_grid(1))
    torch.testing.assert_close(still, x0, atol=1e-6, rtol=1e-6)


def test_it_is_the_same_flow_in_other_variables() -> None:
    x0, position = torch.randn(5, 2, 3), torch.randn(5, 2, 3)

    def field(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return matched_velocity(x, t, position) + torch.sin(x) * t[:, None, None]

    plain = resolve_solver("rk4").solve(field, x0, uniform_grid(64))
    beside = Beside(field, position)
    moved = position + resolve_solver("rk4").solve(beside, x0 - position, uniform_grid(64))
    torch.testing.assert_close(moved, plain, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("n_steps", [1, 8])
def test_without_trust_new_cells_start_and_end_at_the_mixture(
    tiny_model: Any, n_steps: int
) -> None:
    import copy
    from dataclasses import replace

    model = copy.copy(tiny_model)
    model._trained = replace(tiny_model.trained, flow=copy.deepcopy(tiny_model.trained.flow))
    model.trained.flow.noise_trust.fill_(0.0)
    first, second = (
        model.generate(30, solver=solver, n_steps=n_steps).obsm["X_celldit"]
        for solver in ("euler", "heun")
    )
    assert abs(first - second).max() < 1e-5
