"""An effect that was measured once, in one context: what is said of others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anndata as ad
import numpy as np
import pytest

import celldit as cd
from celldit.conditions import Condition
from celldit.conditions.condition import ConditionTable
from celldit.data.cells import Cells
from celldit.data.fields import Fields
from celldit.effects.fit_prior import fit_prior


@pytest.fixture(scope="module")
def screen(simulate_screen: Callable[..., ad.AnnData]) -> ad.AnnData:
    """A in the first donor alone, controls in both."""
    adata = simulate_screen(800, 60, labels=("control", "control", "A"))
    kept = (adata.obs["perturbation"] == "control") | (adata.obs["donor"] == "d1")
    adata = adata[kept.to_numpy()].copy()
    cd.CellDiT.setup_anndata(adata, perturbation_key="perturbation", covariate_keys=["donor"])
    return adata


def test_part_of_it_carries_over_and_the_rest_is_doubt(screen: ad.AnnData) -> None:
    # Once strengths were fitted to the one effect, which was the same elsewhere to the hundredth.
    cells = Cells.from_anndata(screen, Fields.from_anndata(screen))
    table = ConditionTable.from_cells(cells, "+")
    rng = np.random.default_rng(0)
    z_NF = rng.normal(size=(cells.n_cells, 8))
    z_NF[(screen.obs["perturbation"] == "A").to_numpy(), 0] += 4.0
    prior = fit_prior(z_NF, table)
    seen, other = prior.estimate([Condition(("A",), context=c) for c in ("d1", "d2")]).mean
    share = np.linalg.norm(other) / np.linalg.norm(seen)
    assert 0.5 < share < 0.9
    variance_F = prior.estimate([Condition(("A",), context="d2")]).variance[0]
    assert 0.1 < variance_F.sum() / (seen**2).sum() < 1


def test_no_interval_is_without_bounds(screen: ad.AnnData, train_tiny: Any) -> None:
    # One multiple of what was hardly predicted at all made standard deviations of millions.
    model = train_tiny(screen, max_epochs=0)
    effects = model.predict_effects(["A"])
    new = effects[effects["context"] == "d2"]
    assert new["sd"].max() < 10
    assert new["sd"].median() < 1.5
    assert new["sd"].min() > 0.01
