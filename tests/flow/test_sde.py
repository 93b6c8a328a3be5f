from __future__ import annotations

import pytest
import torch

from celldit.errors import InputError
from celldit.flow.draws import CellNoise, GeneratorNoise
from celldit.flow.path import LinearPath, TrigonometricPath
from celldit.flow.solvers import (
    EulerMaruyama,
    bump_diffusion,
    constant_diffusion,
    resolve_solver,
    sigma_diffusion,
)
from celldit.flow.solvers.grids import cosine_grid, uniform_grid
from celldit.flow.source import GaussianSource

N_CELLS = 20_000
PATHS = [LinearPath(), TrigonometricPath()]
DIFFUSIONS = [sigma_diffusion, constant_diffusion, bump_diffusion]


def normal(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 1, generator=generator, dtype=torch.float64)


def solver(**settings):
    return EulerMaruyama(noise=GeneratorNoise(torch.Generator().manual_seed(1)), **settings)


def assert_moments(x, mean, variance, discretisation=0.01):
    """Five standard errors of the mean and the variance, and what the finite steps add."""
    assert float(x.mean()) == pytest.approx(
        mean, abs=5 * (variance / len(x)) ** 0.5 + discretisation
    )
    assert float(x.var()) == pytest.approx(
        variance, abs=5 * variance * (2 / len(x)) ** 0.5 + discretisation
    )


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("diffusion", DIFFUSIONS)
def test_marginals_are_those_of_the_flow_at_every_time(path, diffusion, gaussian_flow):
    flow = gaussian_flow(mean=1.5, std=0.6, path=path)
    sde = solver(path=path, diffusion=diffusion)
    states = sde.trajectory(flow, normal(N_CELLS), uniform_grid(150))
    for index in (50, 110, 150):
        mean, variance = flow.moments(torch.tensor(index / 150, dtype=torch.float64))
        assert_moments(states[index], float(mean), float(variance))


@pytest.mark.parametrize("path", PATHS)
def test_marginals_are_kept_for_any_gaussian_source(path, gaussian_flow):
    source = GaussianSource(-2.0, 0.3)
    flow = gaussian_flow(mean=1.5, std=0.6, path=path, source=source)
    sde = solver(path=path, source=source, strength=3.0)
    states = sde.trajectory(flow, source(normal(N_CELLS)), uniform_grid(200))
    for index in (80, 150, 200):
        mean, variance = flow.moments(torch.tensor(index / 200, dtype=torch.float64))
        assert_moments(states[index], float(mean), float(variance))


@pytest.mark.parametrize("path", PATHS)
def test_marginals_are_kept_backward(path, gaussian_flow):
    flow = gaussian_flow(mean=1.5, std=0.6, path=path)
    data = 1.5 + 0.6 * normal(N_CELLS)
    noise = solver(path=path).solve(flow, data, cosine_grid(150, 1.0, 0.0))
    assert_moments(noise, 0.0, 1.0)


@pytest.mark.parametrize("diffusion", DIFFUSIONS)
def test_it_forgets_where_it_came_from_and_the_flow_does_not(diffusion, gaussian_flow):
    flow, x0 = gaussian_flow(), normal(2000)

    def memory(strength):
        sde = solver(strength=strength, diffusion=diffusion)
        x1 = sde.solve(flow, x0, uniform_grid(100))
        return float(torch.corrcoef(torch.cat([x0, x1], dim=1).T)[0, 1])

    assert memory(0.0) == pytest.approx(1)
    assert memory(4.0) < memory(1.0) < 0.95


def test_it_repairs_a_start_that_the_flow_would_carry_along(gaussian_flow):
    flow, wrong = gaussian_flow(std=0.6), 2 + 0.2 * normal(N_CELLS)
    by_ode = solver(strength=0.0).solve(flow, wrong, uniform_grid(100))
    by_sde = solver(strength=8.0).solve(flow, wrong, uniform_grid(100))
    assert abs(float(by_sde.mean()) - 1.5) < 0.2 * abs(float(by_ode.mean()) - 1.5)
    assert abs(float(by_sde.std()) - 0.6) < 0.2 * abs(float(by_ode.std()) - 0.6)


@pytest.mark.parametrize("diffusion", DIFFUSIONS)
def test_last_step_on_to_the_data_adds_no_noise(diffusion, gaussian_flow):
    flow, x = gaussian_flow(), normal(10)
    end = solver(diffusion=diffusion).solve(flow, x, uniform_grid(1, 0.8, 1.0))
    assert torch.equal(end, resolve_solver("euler").solve(flow, x, uniform_grid(1, 0.8, 1.0)))
    before = solver(diffusion=diffusion).solve(flow, x, uniform_grid(1, 0.7, 0.9))
    assert not torch.allclose(
        before, resolve_solver("euler").solve(flow, x, uniform_grid(1, 0.7, 0.9))
    )


def test_strength_zero_is_euler(gaussian_flow):
    flow, x0 = gaussian_flow(), normal(10)
    euler = resolve_solver("euler").solve(flow, x0, uniform_grid(20))
    assert torch.equal(solver(strength=0.0).solve(flow, x0, uniform_grid(20)), euler)


def test_a_cell_has_its_own_noise_whatever_its_batch(gaussian_flow):
    flow, x0, keys = gaussian_flow(), normal(40).float(), torch.arange(40) * 7

    def run(rows):
        sde = resolve_solver("sde", noise=CellNoise(keys[rows], seed=3))
        return sde.solve(flow, x0[rows], uniform_grid(10))

    whole = run(slice(None))
    assert torch.equal(run([17]), whole[[17]])
    assert torch.equal(run([30, 17, 2]), whole[[30, 17, 2]])
    with pytest.raises(InputError, match="one key per cell"):
        EulerMaruyama(noise=CellNoise(keys[:3], 0)).solve(flow, x0, uniform_grid(2))


def test_bad_settings_are_refused(gaussian_flow):
    with pytest.raises(InputError, match="strength"):
        EulerMaruyama(strength=-1.0)
    with pytest.raises(InputError, match="within"):
        solver().solve(gaussian_flow(), normal(3), uniform_grid(4, 0.0, 1.5))
