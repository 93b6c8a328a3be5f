"""What all tests share: one thread, fixed random examples, and a small screen to break."""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import copy
import gc
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, settings
from scipy import sparse
from scipy.stats import nbinom

from .worlds import crossed, world  # noqa: F401

torch.set_num_threads(1)

_SHARED = {
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
}
settings.register_profile("full", max_examples=40, **_SHARED)
settings.register_profile("fast", max_examples=8, **_SHARED)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "full"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first, notebooks and trainings: a file is to one process.

    The short ones that are left then end in both processes at about the same time.
    """
    items.sort(
        key=lambda item: (
            item.get_closest_marker("notebook") is None,
            "training" not in item.path.parts,
        )
    )


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported stays to the end; the garbage collector need not look through it again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()


@pytest.fixture(scope="session")
def make_screen() -> Callable[..., ad.AnnData]:
    """A function that makes a small screen of random counts, the same every time."""

    def make(n_cells: int = 60, n_genes: int = 12, labels: tuple[str, ...] = ()) -> ad.AnnData:
        rng = np.random.default_rng(0)
        names = labels or ("control", "A", "B", "A+B")
        counts = rng.poisson(1.5, size=(n_cells, n_genes)) + np.eye(n_cells, n_genes, dtype=int)
        counts[:, 0] += 1  # no empty cell
        obs = pd.DataFrame(
            {
                "perturbation": [names[i % len(names)] for i in range(n_cells)],
                "donor": [f"d{i // len(names) % 3}" for i in range(n_cells)],
                "batch": [i % 2 for i in range(n_cells)],
                "day": np.where(np.arange(n_cells) % 2, 1.5, 2.0),
                "umis": counts.sum(axis=1) * 10.0,
            },
            index=[f"cell{i}" for i in range(n_cells)],
        )
        var = pd.DataFrame(index=[f"gene{i}" for i in range(n_genes)])
        return ad.AnnData(sparse.csr_matrix(counts.astype(np.int32)), obs=obs, var=var)

    return make


def simulate(
    n_cells: int = 480,
    n_genes: int = 40,
    labels: Sequence[str] = ("control", "control", "A", "B", "C", "A+B"),
    donors: Sequence[str] = ("d1", "d2", "d3"),
    seed: int = 0,
) -> ad.AnnData:
    """Overdispersed counts with gene programmes, donors and additive effects of perturbations."""
    rng = np.random.default_rng(seed)
    label = np.array([labels[i % len(labels)] for i in range(n_cells)])
    donor = np.array([donors[i // len(labels) % len(donors)] for i in range(n_cells)])
    log_rate_NG = np.log(rng.gamma(1.0, 2.0, n_genes)) + rng.normal(size=(n_cells, 2)) @ rng.normal(
        0, 0.3, (2, n_genes)
    )
    for name in donors:
        log_rate_NG[donor == name] += rng.normal(0, 0.3, n_genes)
    for name in sorted({part for text in labels for part in text.split("+")} - {"control"}):
        effect_G = rng.normal(0, 0.8, n_genes) * (rng.random(n_genes) < 0.3)
        log_rate_NG[[name in text.split("+") for text in label]] += effect_G
    counts = rng.poisson(np.exp(log_rate_NG) * rng.gamma(5, 0.2, (n_cells, 1)))
    counts[:, 0] += 1  # no empty cell
    return ad.AnnData(
        sparse.csr_matrix(counts.astype(np.int32)),
        obs=pd.DataFrame(
            {"perturbation": label, "donor": donor}, index=[f"cell{i}" for i in range(n_cells)]
        ),
        var=pd.DataFrame(index=[f"gene{i}" for i in range(n_genes)]),
    )


@pytest.fixture(scope="session")
def simulate_screen() -> Callable[..., ad.AnnData]:
    """A function that simulates a small screen; it still has to be set up."""
    return simulate


@pytest.fixture(scope="session")
def train_tiny() -> Callable[..., Any]:
    """A function that trains a very small model in about half a second."""
    from celldit import CellDiT
    from celldit.latent import LatentConfig
    from celldit.nn.dit import DiTConfig
    from celldit.training import TrainingConfig

    def train(adata: ad.AnnData, *, max_epochs: int = 1, seed: int = 0, **options: Any) -> CellDiT:
        settings_of_training = {
            "flow_steps_per_epoch": 4,
            "n_trials": 1,
            "flow_batch": 32,
            **options.pop("config", {}),
        }
        names = ("checkpoint_dir", "checkpoint_minutes")
        kept = {name: options.pop(name) for name in names if name in options}
        model = CellDiT(
            adata,
            options.pop("tokenizer", "modules"),
            LatentConfig(n_dims=6, token_dim=3),
            dit=options.pop("dit", DiTConfig(width=16, depth=1, n_heads=2)),
            **options,
        )
        config = TrainingConfig(**settings_of_training)
        model.train(max_epochs, seed=seed, config=config, enable_progress_bar=False, **kept)
        return model

    return train


@pytest.fixture(scope="session")
def _tiny_screen() -> ad.AnnData:
    from celldit import CellDiT

    adata = simulate()
    CellDiT.setup_anndata(
        adata, perturbation_key="perturbation", control="control", covariate_keys=["donor"]
    )
    return adata


@pytest.fixture
def tiny_screen(_tiny_screen: ad.AnnData) -> ad.AnnData:
    """480 cells x 40 genes, set up: A, B, C, A+B and controls in three donors; the test's own."""
    return _tiny_screen.copy()


@pytest.fixture(scope="session")
def tiny_model(_tiny_screen: ad.AnnData, train_tiny: Callable[..., Any]) -> Any:
    """A model trained on `tiny_screen` for one epoch; not to be changed."""
    return train_tiny(_tiny_screen)


@pytest.fixture(scope="session")
def flowing_model(tiny_model: Any) -> Any:
    """`tiny_model` with a flow that moves cells visibly and is used in full; not to be changed.

    One epoch leaves the flow close to silent and without weight, which would hide what it does.
    """
    from celldit.io.model_folder import named

    trained = tiny_model.trained
    flow = copy.deepcopy(trained.flow)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in flow.named_parameters():
            if "modulation" in name or "project_out" in name:
                weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    flow.noise_trust.fill_(1.0)
    model = copy.copy(tiny_model)
    weight = dict.fromkeys(trained.flow_weight, 1.0)
    model._trained = named(replace(trained, flow=flow, flow_weight=weight))
    return model


@pytest.fixture
def log_likelihood() -> Callable[[Any, Any], float]:
    """Mean log probability of counts under a count model, in nats per gene, by scipy."""

    def of(model: Any, counts_BG: np.ndarray) -> float:
        mean, theta = (t.detach().double().numpy() for t in (model.mean_BG, model.theta_G))
        return float(nbinom.logpmf(counts_BG, theta, theta / (theta + mean)).mean())

    return of
