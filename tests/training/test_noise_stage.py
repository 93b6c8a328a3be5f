"""The flow from noise learns on weights of its own; that from control cells stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
import torch
from scipy import sparse

from celldit import CellDiT
from celldit.conditions import Condition, ConditionTable
from celldit.conditions.embedding import ConditionEmbedding
from celldit.conditions.population import Population
from celldit.conditions.states import States
from celldit.effects.fit_prior import fit_prior
from celldit.errors import InputError
from celldit.flow.anchored import AnchoredFlow
from celldit.inference.noise import NoiseSources
from celldit.inference.solver import SolverConfig, carry
from celldit.nn.dit import DiTConfig
from celldit.training import TrainingConfig
from celldit.training.design import Run
from celldit.training.loop.finite import FiniteLoss
from celldit.training.noise_stage import train_from_noise


@pytest.fixture(scope="module")
def pair(_tiny_screen: ad.AnnData, train_tiny: Callable[..., Any]) -> tuple[CellDiT, CellDiT]:
    """The same training without and with the stage, on cells of two kinds that no label tells."""
    adata = _tiny_screen.copy()
    rng = np.random.default_rng(0)
    counts = adata.X.toarray()
    kind = rng.random(adata.n_obs) < 0.5
    counts[kind, :15] += rng.poisson(30, (int(kind.sum()), 15))
    adata.X = sparse.csr_matrix(counts)
    steps = {"flow_steps_per_epoch": 60, "flow_rate": 5e-3, "noise_patience": 9}
    models = [
        train_tiny(adata, max_epochs=4, config={**steps, "flow_epochs": 1, "noise_epochs": n})
        for n in (0, 4)
    ]
    return models[0], models[1]


def test_predictions_do_not_depend_on_the_stage(pair: tuple[CellDiT, CellDiT]) -> None:
    without, with_stage = (model.predict(perturbations=["A"]) for model in pair)
    assert without.obsm["X_celldit"].tobytes() == with_stage.obsm["X_celldit"].tobytes()
    assert (without.layers["counts"] != with_stage.layers["counts"]).nnz == 0


def test_without_epochs_new_cells_are_those_of_the_mixture(pair: tuple[CellDiT, CellDiT]) -> None:
    assert pair[0].history["noise"] == []
    assert float(pair[0].trained.flow.noise_trust) == 0.0
    course = pair[1].history["noise"]
    assert course
    assert all(np.isfinite(row["held_out_error"]) for row in course)
    assert 0.0 <= float(pair[1].trained.flow.noise_trust) <= 1.0


def test_a_shape_that_is_no_gaussian_is_learned_and_trusted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, 4000)
    ring_N2 = 2 * np.stack([np.cos(angle), np.sin(angle)], 1) + rng.normal(0, 0.1, (4000, 2))
    z_NKD = torch.from_numpy(ring_N2.astype(np.float32))[:, None]
    table = ConditionTable((Condition(),), np.zeros(4000, dtype=np.int64))
    prior = fit_prior(z_NKD, table, features=None, seed=0)
    population = Population.fit(z_NKD, table, prior)
    states = States.single(population, table)
    flow = AnchoredFlow(1, 2, DiTConfig(width=32, depth=1, n_heads=2, dropout=0.0))
    monkeypatch.setattr(States, "fit", lambda *_: states)
    run = Run(None, 0, TrainingConfig(noise_epochs=6, flow_steps_per_epoch=60, flow_rate=3e-3), {})
    _, state_N, course = train_from_noise(
        flow, z_NKD, table, population, run, FiniteLoss(None), {"accelerator": "cpu"}
    )
    assert not state_N.any()
    assert min(row["held_out_error"] for row in course) < 0.9 * course[0]["before"]
    assert float(flow.noise_trust) > 0.7

    def radii(source: NoiseSources) -> np.ndarray:
        briefing = ConditionEmbedding.of(population, [Condition()], (1, 2))
        row_B = np.zeros(1000, dtype=np.int64)
        conditioning, start = source.end(briefing, row_B, row_B)
        x0_BKD = start(torch.randn(1000, 1, 2, generator=torch.Generator().manual_seed(0)))
        return carry(flow, x0_BKD, conditioning, SolverConfig())[:, 0].norm(dim=1)

    sources = NoiseSources.of(states, [Condition()], torch.zeros(1, 1, 2))
    learned = radii(sources)
    flow.noise_trust.fill_(0.0)
    assert learned.std() < 0.6 * radii(sources).std()


def test_both_networks_are_saved(pair: tuple[CellDiT, CellDiT], tmp_path: Path) -> None:
    for i, model in enumerate(pair):
        model.save(tmp_path / str(i))
        again = CellDiT.load(tmp_path / str(i))
        assert again.trained.flow.from_noise is not None
        assert again.trained.flow.noise_trust == model.trained.flow.noise_trust
        cells = [m.generate(40).layers["counts"] for m in (model, again)]
        assert (cells[0] != cells[1]).nnz == 0


@pytest.mark.parametrize("name", ["noise_epochs", "noise_patience"])
def test_negative_numbers_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=name):
        TrainingConfig(**{name: -1})
