from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from celldit.errors import UnknownNameError
from celldit.flow.grids import cosine_grid, quadratic_grid, uniform_grid
from celldit.flow.noise import CellNoise
from celldit.flow.solvers import EulerMaruyama, resolve_solver

ORDERS = {"euler": 1, "heun": 2, "rk4": 4}
GRIDS = [uniform_grid, quadratic_grid, cosine_grid]


def rotation(x, t):
    """Linear: a damped rotation with a drive; x' = A x + (cos 3t, 0)."""
    drive = torch.stack([torch.cos(3 * t), torch.zeros_like(t)], dim=-1)
    return x @ torch.tensor([[-0.5, 2.0], [-2.0, -0.5]], dtype=x.dtype) + drive


def logistic(x, t):
    """Non-linear: growth with a rate 4 sin(4t) that changes sign."""
    return 4 * torch.sin(4 * t)[:, None] * x * (1 - x)


def logistic_solution(x0, t):
    odds = x0 / (1 - x0) * np.exp(1 - np.cos(4 * t))
    return odds / (1 + odds)


def start():
    return torch.tensor([[0.2, 0.6], [0.4, 0.9], [0.7, 0.1]], dtype=torch.float64)


def made(name):
    return EulerMaruyama(Draws()) if name == "sde" else resolve_solver(name)


class Draws:
    """Noise for any number of cells."""

    def __call__(self, draw, like):
        return CellNoise(torch.arange(len(like)), seed=0)(draw, like)


@cache
def rotation_solution():
    return resolve_solver("rk4").solve(rotation, start(), uniform_grid(2000))


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("problem", ["linear", "non-linear"])
def test_order_of_convergence(name, problem, grid):
    if problem == "linear":
        field, exact = rotation, rotation_solution()
    else:
        field, exact = logistic, logistic_solution(start(), 1.0)
    solver, n_steps = resolve_solver(name), [32, 64, 128, 256]
    errors = [float((solver.solve(field, start(), grid(n)) - exact).abs().max()) for n in n_steps]
    order = -np.polyfit(np.log(n_steps), np.log(errors), 1)[0]
    assert order == pytest.approx(ORDERS[name], abs=0.15)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", ["heun", "rk4"])
def test_forward_then_backward_returns_the_start(name, grid):
    solver = resolve_solver(name)
    there = solver.solve(logistic, start(), grid(200))
    back = solver.solve(logistic, there, grid(200, 1.0, 0.0))
    assert float((there - start()).abs().max()) > 0.1
    tolerance = {"heun": 1e-3, "rk4": 1e-7}[name]
    torch.testing.assert_close(back, start(), rtol=0, atol=tolerance)


def test_euler_backward_misses_the_start_by_its_own_order():
    solver = resolve_solver("euler")

    def miss(n):
        there = solver.solve(logistic, start(), uniform_grid(n))
        return float(
            (solver.solve(logistic, there, uniform_grid(n, 1.0, 0.0)) - start()).abs().max()
        )

    assert miss(100) / miss(200) == pytest.approx(2, abs=0.2)


@pytest.mark.parametrize("name", ORDERS)
def test_gaussian_flow_maps_source_to_data(name, gaussian_flow):
    flow = gaussian_flow(mean=1.5, std=0.4)
    x0 = torch.linspace(-3, 3, 13, dtype=torch.float64)[:, None]
    solver, n_steps = resolve_solver(name), 1000 if name == "euler" else 100
    x1 = solver.solve(flow, x0, uniform_grid(n_steps))
    tolerance = 1e-2 if name == "euler" else 1e-3
    torch.testing.assert_close(x1, 1.5 + 0.4 * x0, rtol=0, atol=tolerance)


def test_straight_flow_needs_one_euler_step():
    shift = torch.tensor([1.0, -2.0], dtype=torch.float64)
    end = resolve_solver("euler").solve(lambda x, t: shift.expand_as(x), start(), uniform_grid(1))
    torch.testing.assert_close(end, start() + shift, rtol=0, atol=0)


@given(name=st.sampled_from(list(ORDERS)), rows=st.permutations(range(6)), size=st.integers(1, 6))
@settings(deadline=None, max_examples=20)
def test_fixed_steps_treat_each_row_alone(name, rows, size):
    x0 = torch.rand(6, 2, generator=torch.Generator().manual_seed(0)).double()
    solver, chosen = resolve_solver(name), list(rows)[:size]
    whole = solver.solve(logistic, x0, uniform_grid(5))
    torch.testing.assert_close(
        solver.solve(logistic, x0[chosen], uniform_grid(5)), whole[chosen], rtol=1e-14, atol=1e-14
    )


def test_times_and_states_keep_dtype_and_shape():
    seen = []

    def field(x, t):
        seen.append((t.shape, t.dtype, x.dtype))
        return -x

    x0 = torch.ones(4, 3, 2)
    for name in (*ORDERS, "sde"):
        end = made(name).solve(field, x0, uniform_grid(3))
        assert end.shape == x0.shape
        assert end.dtype == torch.float32
    assert set(seen) == {((4,), torch.float32, torch.float32)}


def test_gradients_flow_through_a_solver():
    x0 = start().requires_grad_()
    resolve_solver("rk4").solve(lambda x, t: -x, x0, uniform_grid(20)).sum().backward()
    torch.testing.assert_close(x0.grad, torch.full_like(x0, float(np.exp(-1))), rtol=1e-6, atol=0)


def test_solvers_are_found_by_name():
    with pytest.raises(UnknownNameError, match="heun"):
        resolve_solver("rk5")
