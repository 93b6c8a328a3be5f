from __future__ import annotations

import pytest
import torch

from celldit.flow.grids import cosine_grid, uniform_grid
from celldit.flow.noise import CellNoise
from celldit.flow.path import GaussianSource
from celldit.flow.solvers import EulerMaruyama, resolve_solver

N_CELLS = 20_000


def normal(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 1, generator=generator, dtype=torch.float64)


def solver(**settings):
    generator = torch.Generator().manual_seed(1)

    def noise(draw, like):
        return torch.randn(like.shape, generator=generator, dtype=like.dtype)

    return EulerMaruyama(noise, **settings)


def assert_moments(x, mean, variance, discretisation=0.01):
    """Five standard errors of the mean and the variance, and what the finite steps add."""
    assert float(x.mean()) == pytest.approx(
        mean, abs=5 * (variance / len(x)) ** 0.5 + discretisation
    )
    assert float(x.var()) == pytest.approx(
        variance, abs=5 * variance * (2 / len(x)) ** 0.5 + discretisation
    )


@pytest.mark.parametrize("source", [GaussianSource(), GaussianSource(-2.0, 0.3)])
def test_marginals_are_those_of_the_flow_at_every_time(source, gaussian_flow):
    flow = gaussian_flow(mean=1.5, std=0.6, source=source)
    for index in (50, 110, 150):
        times = uniform_grid(150)[: index + 1]
        states = solver(source=source).solve(flow, source(normal(N_CELLS)), times)
        mean, variance = flow.moments(torch.tensor(index / 150, dtype=torch.float64))
        assert_moments(states, float(mean), float(variance))


def test_marginals_are_kept_backward(gaussian_flow):
    flow = gaussian_flow(mean=1.5, std=0.6)
    data = 1.5 + 0.6 * normal(N_CELLS)
    noise = solver().solve(flow, data, cosine_grid(150, 1.0, 0.0))
    assert_moments(noise, 0.0, 1.0)


def test_it_forgets_where_it_came_from_and_the_flow_does_not(gaussian_flow):
    flow, x0 = gaussian_flow(), normal(2000)

    def memory(by):
        x1 = by.solve(flow, x0, uniform_grid(100))
        return float(torch.corrcoef(torch.cat([x0, x1], dim=1).T)[0, 1])

    assert memory(resolve_solver("euler")) == pytest.approx(1)
    assert memory(solver()) < 0.95


def test_it_repairs_a_start_that_the_flow_would_carry_along(gaussian_flow):
    flow, wrong = gaussian_flow(std=0.6), 2 + 0.2 * normal(N_CELLS)
    by_ode, by_sde = (
        by.solve(flow, wrong, uniform_grid(100)) for by in (resolve_solver("euler"), solver())
    )
    assert abs(float(by_sde.mean()) - 1.5) < 0.8 * abs(float(by_ode.mean()) - 1.5)
    assert abs(float(by_sde.std()) - 0.6) < 0.8 * abs(float(by_ode.std()) - 0.6)


def test_last_step_on_to_the_data_adds_no_noise(gaussian_flow):
    flow, x, euler = gaussian_flow(), normal(10), resolve_solver("euler")
    last, before = uniform_grid(1, 0.8, 1.0), uniform_grid(1, 0.7, 0.9)
    assert torch.equal(solver().solve(flow, x, last), euler.solve(flow, x, last))
    assert not torch.allclose(solver().solve(flow, x, before), euler.solve(flow, x, before))


def test_a_cell_has_its_own_noise_whatever_its_batch(gaussian_flow):
    flow, x0, keys = gaussian_flow(), normal(40).float(), torch.arange(40) * 7

    def run(rows):
        sde = EulerMaruyama(CellNoise(keys[rows], seed=3))
        return sde.solve(flow, x0[rows], uniform_grid(10))

    whole = run(slice(None))
    assert torch.equal(run([17]), whole[[17]])
    assert torch.equal(run([30, 17, 2]), whole[[30, 17, 2]])
