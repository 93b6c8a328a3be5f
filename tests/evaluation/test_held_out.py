"""What the studies hold out (``notebooks/benchmarks/held_out.py``): no leaks, and controls."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from celldit.errors import InputError

sys.path.insert(0, str(Path(__file__).parents[2] / "notebooks" / "benchmarks"))
from held_out import DATASETS, Problem, pose, problems


@pytest.mark.parametrize("problem", problems(), ids=lambda p: f"{p.dataset} {p.name}")
def test_nothing_that_is_held_out_is_trained_on(problem):
    posed = pose(problem)
    key = DATASETS[problem.dataset]["perturbation_key"]
    context = DATASETS[problem.dataset].get("covariate_keys", [])
    assert not set(posed.train.obs_names) & set(posed.truth.obs_names)
    held_out = set(zip(*(posed.truth.obs[k].astype(str) for k in (key, *context)), strict=True))
    trained = set(zip(*(posed.train.obs[k].astype(str) for k in (key, *context)), strict=True))
    assert not held_out & trained
    assert set(posed.controls.obs[key]) == {"control"}
    assert set(posed.controls.obs_names) <= set(posed.train.obs_names)
    for name in context:
        assert set(posed.controls.obs[name]) == set(posed.truth.obs[name])
    assert set(posed.perturbations) == set(posed.truth.obs[key].astype(str))


def test_full_adds_replicates_and_cell_types():
    more = problems(full=True)
    assert len({(p.dataset, p.name) for p in more}) == len(more) == 13
    assert set(problems()) <= set(more)


def test_a_held_out_context_without_controls_is_refused(tiny_screen):
    keep = ~((tiny_screen.obs["donor"] == "d3") & (tiny_screen.obs["perturbation"] == "control"))
    with pytest.raises(InputError, match="no control cells in 'd3'"):
        pose(
            Problem("small", "A in d3", "pair", (("A", "d3"),)),
            tiny_screen[keep.to_numpy()].copy(),
        )


def test_what_was_fitted_on_all_cells_is_taken_away(tiny_screen):
    adata = tiny_screen.copy()
    adata.obsm["X_pca"] = adata.X.toarray()[:, :3]
    posed = pose(Problem("small", "A in d3", "pair", (("A", "d3"),)), adata)
    for side in (posed.train, posed.controls):
        assert not len(side.obsm)
    assert "X_pca" in adata.obsm
