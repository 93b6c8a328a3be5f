"""A draw belongs to the seed, the cell's name and the condition, not to what else is asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse

from celldit import CellDiT
from celldit.latent import LatentConfig
from celldit.nn.dit import DiTConfig
from celldit.random import draw_keys, keys_of
from celldit.training import TrainingConfig

LABELS = ("A", "B", "A+B", "B+C", "control")
SAMPLERS = ("transport", "inversion", "edit")


def dense(matrix: Any) -> np.ndarray:
    return matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)


def assert_same_cells(some: ad.AnnData, whole: ad.AnnData) -> None:
    """Every cell of the first is the cell of its name in the second, to the byte."""
    some, whole = some.to_memory(), whole.to_memory()
    whole = whole[some.obs_names]
    for name in ("counts", "mean"):
        assert dense(some.layers[name]).tobytes() == dense(whole.layers[name]).tobytes()
    assert dense(some.X).tobytes() == dense(whole.X).tobytes()
    assert some.obsm["X_celldit"].tobytes() == whole.obsm["X_celldit"].tobytes()


@pytest.fixture(scope="module")
def model(_tiny_screen: ad.AnnData) -> CellDiT:
    """A model whose flow moves cells visibly, of a latent as wide as those of real data."""
    small = CellDiT(
        _tiny_screen,
        "modules",
        LatentConfig(n_dims=16),
        dit=DiTConfig(width=16, depth=1, n_heads=2),
    )
    config = TrainingConfig(flow_steps_per_epoch=4, n_trials=1, flow_batch=32)
    small.train(1, config=config, enable_progress_bar=False)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in small.trained.flow.named_parameters():
            if "modulation" in name or "project_out" in name:
                weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    return small.weighted(1.0)


@pytest.fixture(scope="module")
def controls(_tiny_screen: ad.AnnData) -> ad.AnnData:
    return _tiny_screen[_tiny_screen.obs["perturbation"] == "control"].copy()


@pytest.fixture(scope="module")
def whole(model: CellDiT, controls: ad.AnnData) -> dict[str, ad.AnnData]:
    return {
        sampler: model.predict(controls, perturbations=LABELS, sampler=sampler, n_steps=2)
        for sampler in SAMPLERS
    }


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    sampler=st.sampled_from(SAMPLERS),
    labels=st.lists(st.sampled_from(LABELS), min_size=1, max_size=3, unique=True),
    rows=st.lists(st.integers(0, 95), min_size=1, max_size=96, unique=True),
    batch_size=st.sampled_from([1, 300]),
)
def test_predicted_cells_do_not_depend_on_the_request(
    model: CellDiT,
    controls: ad.AnnData,
    whole: dict[str, ad.AnnData],
    sampler: str,
    labels: list[str],
    rows: list[int],
    batch_size: int,
) -> None:
    """A part of the cells, in any order, under some perturbations, in any order."""
    some = model.predict(
        controls[rows].copy(),
        perturbations=labels,
        sampler=sampler,
        n_steps=2,
        batch_size=batch_size,
    )
    assert_same_cells(some, whole[sampler])


def test_draws_differ_between_cells_and_conditions() -> None:
    """Equal expectations, other random numbers."""
    names = [f"cell{i}" for i in range(1000)]
    keys = [draw_keys(keys_of(names), keys_of([label] * 1000)) for label in ("A", "B")]
    assert len(np.unique(np.concatenate(keys))) == 2000
    bits = np.unpackbits(np.concatenate(keys).view(np.uint8))
    assert abs(bits.mean() - 0.5) < 0.01


def test_shards_and_files_hold_the_cells_of_one_call(
    model: CellDiT, controls: ad.AnnData, tmp_path: Path
) -> None:
    many = ad.concat([controls] * 3, index_unique="-")
    one = model.predict(many, perturbations=["A", "B"], n_steps=2)
    parts = [
        model.predict(
            many, perturbations=["A", "B"], n_steps=2, out=tmp_path / "parts", shard=(i, 2)
        )
        for i in (2, 1)
    ]
    assert sum(part.n_obs for part in parts) == one.n_obs
    file = tmp_path / "cells.h5ad"
    for part in (*parts, model.predict(many[::2].copy(), perturbations="B", n_steps=2,
                                               out=file)):  # fmt: skip
        assert_same_cells(part, one)


@pytest.mark.parametrize(("start", "end"), [("A", "B+C"), ("control", "A")])
def test_the_ends_of_an_interpolation_are_the_predictions_to_the_count(
    model: CellDiT, controls: ad.AnnData, start: str, end: str
) -> None:
    ends = model.predict(controls, perturbations=[end, start])
    way = model.interpolate(controls[::-3].copy(), start=start, end=end, shares=[1, 0.5, 0])
    for share, label in ((1.0, end), (0.0, start)):
        at_end = way[way.obs["share"] == share].copy()
        at_end.obs_names = [f"{name}|{label}" for name in at_end.obs["control_cell"]]
        assert_same_cells(at_end, ends)
    some = model.interpolate(controls[::-3][:5].copy(), start=start, end=end, shares=[0.5])
    assert_same_cells(some, way)


@pytest.fixture(scope="module")
def timed(
    simulate_screen: Callable[..., ad.AnnData], train_tiny: Callable[..., CellDiT]
) -> tuple[CellDiT, ad.AnnData]:
    adata = simulate_screen(360, 12, ("control", "A"), ("d1",))
    adata.obs["day"] = np.repeat([1.0, 2.0, 4.0], 120)
    CellDiT.setup_anndata(adata, perturbation_key="perturbation", control="control", time_key="day")
    return train_tiny(adata), adata


def test_cells_at_other_times_do_not_depend_on_the_request(
    timed: tuple[CellDiT, ad.AnnData],
) -> None:
    model, adata = timed
    whole = model.trajectory(adata, times=[1, 1.5, 3])
    some = model.trajectory(adata[350:20:-7].copy(), times=[3, 1.5])
    assert_same_cells(some, whole)
    predicted = model.predict(adata, perturbations=["A", "control"], time=3)
    assert_same_cells(model.predict(adata[100:5:-3], perturbations="A", time=3), predicted)


def test_new_cells_of_a_condition_do_not_depend_on_the_others(
    model: CellDiT, timed: tuple[CellDiT, ad.AnnData]
) -> None:
    mixed = model.generate(300, n_steps=2)
    obs = mixed.obs.astype(str)
    for label, donor in (("A", "d1"), ("control", "d2")):
        own = ((obs["perturbation"] == label) & (obs["donor"] == donor)).to_numpy()
        assert own.any()
        alone = model.generate(300, perturbation=label, covariates={"donor": donor}, n_steps=2)
        assert_same_cells(mixed[own].copy(), alone)
    of_times, _ = timed
    many, few = (of_times.generate(n, perturbation="A", time=1.5, n_steps=2) for n in (300, 10))
    assert_same_cells(few, many)


def test_new_cells_of_two_conditions_are_drawn_apart(model: CellDiT) -> None:
    """With one stream for both, differences between conditions would be too exact."""
    first, second = (
        model.generate(200, perturbation=label, n_steps=1).obsm["X_celldit"]
        for label in ("control", "A")
    )
    centred = [z - z.mean(0) for z in (first, second)]
    alike = np.corrcoef(*(z.ravel() for z in centred))[0, 1]
    assert abs(alike) < 0.3
