"""Settings of the solver, guidance and the stochastic sampler, through the public interface."""

from __future__ import annotations

import numpy as np
import pytest

from celldit.errors import InputError, UnknownNameError
from celldit.inference.solver import SolverConfig


@pytest.fixture(scope="module")
def guidable(_tiny_screen, train_tiny):
    return train_tiny(_tiny_screen, config={"drop_condition": 0.3})


def latents(model, **how):
    return model.generate(60, perturbation="A", n_steps=4, **how).obsm["X_celldit"]


def test_guidance_acts_within_its_interval(guidable):
    plain = latents(guidable)
    everywhere = latents(guidable, guidance=4.0)
    late = latents(guidable, guidance=4.0, guidance_interval=(0.6, 1.0))
    assert not np.array_equal(plain, everywhere)
    assert not np.array_equal(late, everywhere)
    assert np.array_equal(plain, latents(guidable, guidance=1.0, guidance_interval=(0.6, 1.0)))


def test_guidance_needs_dropped_conditions(tiny_model):
    for call in (
        lambda: tiny_model.generate(3, guidance=2.0),
        lambda: tiny_model.predict(perturbations=["A"], guidance=2.0),
    ):
        with pytest.raises(InputError, match="drop_condition"):
            call()


def test_grids_differ_and_converge(flowing_model):
    coarse = {g: latents(flowing_model, grid=g) for g in ("uniform", "quadratic", "cosine")}
    assert not np.array_equal(coarse["uniform"], coarse["quadratic"])
    fine = [
        flowing_model.generate(60, perturbation="A", n_steps=64, grid=g).obsm["X_celldit"]
        for g in ("uniform", "quadratic", "cosine")
    ]
    for name, other in zip(("quadratic", "cosine"), fine[1:], strict=True):
        apart = abs(coarse[name] - coarse["uniform"]).max()
        assert abs(other - fine[0]).max() < min(0.02 * abs(fine[0]).max(), apart)


def test_the_sde_stirs_with_the_cells_own_noise(flowing_model):
    ode, sde = latents(flowing_model), latents(flowing_model, solver="sde")
    assert not np.allclose(ode, sde)
    assert np.array_equal(sde, latents(flowing_model, solver="sde", batch_size=1))
    few = flowing_model.generate(9, perturbation="A", n_steps=4, solver="sde")
    assert np.array_equal(few.obsm["X_celldit"], sde[:9])
    other = flowing_model.generate(60, perturbation="A", n_steps=4, solver="sde", seed=1)
    assert not np.allclose(other.obsm["X_celldit"], sde)


@pytest.mark.parametrize(
    "settings",
    [
        {"n_steps": 0},
        {"n_steps": True},
        {"guidance": -1},
        {"guidance": float("inf")},
        {"guidance_interval": (0.8, 0.2)},
        {"guidance_interval": (-0.1, 0.5)},
        {"guidance_interval": (0.1,)},
    ],
)
def test_numbers_that_cannot_be_used(settings):
    with pytest.raises(InputError, match=next(iter(settings))):
        SolverConfig(**settings)


def test_unknown_names():
    with pytest.raises(UnknownNameError, match="grid"):
        SolverConfig(grid="linear")
    with pytest.raises(UnknownNameError, match="solver"):
        SolverConfig(solver="rk5")
