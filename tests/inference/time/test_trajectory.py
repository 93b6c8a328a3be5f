"""Cells through time."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace

import numpy as np
import pytest

from celldit import CellDiT
from celldit.errors import InputError


@pytest.fixture(scope="module")
def timed(simulate_screen, train_tiny):
    """A model of three days whose later cells express one gene more and more, and its cells."""
    adata = simulate_screen(360, labels=("control",))
    adata.obs["day"] = np.repeat([1.0, 2.0, 4.0], 120)
    raised = adata.X.toarray()
    raised[:, 5] = np.random.default_rng(1).poisson(8 * adata.obs["day"].to_numpy() ** 2)
    adata.X = type(adata.X)(raised)
    CellDiT.setup_anndata(adata, covariate_keys=(), time_key="day")
    return train_tiny(adata), adata


def test_cells_move_with_time_and_stay_themselves(timed):
    model, adata = timed
    early = adata[adata.obs["day"] == 1].copy()
    shown = model.trajectory(early, times=[1, 1.5, 2, 3, 4])
    assert list(shown.obs["day"].unique()) == [1, 1.5, 2, 3, 4]
    assert list(shown.obs["source_cell"]) == list(early.obs_names) * 5
    assert (shown.obs["source_time"] == 1).all()
    n = early.n_obs
    assert (shown.layers["counts"][:n] != early.X).nnz == 0  # at its own time a cell is itself
    level = [float(shown.layers["mean"][i * n : (i + 1) * n, 5].mean()) for i in range(5)]
    assert level == sorted(level)


def test_at_a_trained_time_cells_have_the_mean_that_was_measured(timed):
    model, adata = timed
    log = np.log1p(adata.X.toarray() * (1e4 / adata.X.sum(axis=1).A1[:, None]))
    days = adata.obs["day"].to_numpy()
    early = adata[days == 1].copy()
    sent = model.trajectory(early, times=[4])
    there = np.log1p(
        sent.layers["counts"].toarray() * (1e4 / sent.obs["size_factor"].to_numpy())[:, None]
    )
    way = log[days == 4].mean(0) - log[days == 1].mean(0)
    gone = there.mean(0) - log[days == 1].mean(0)
    # The tiny latent alone keeps a part of the change.
    assert gone[5] == pytest.approx(way[5], rel=0.15)
    assert np.abs(gone - way).mean() < 0.3 * np.abs(way).mean()


def test_a_model_without_new_cells_refuses(timed):
    model, adata = timed
    alone = copy.copy(model)
    unlearned = replace(model.trained.new_cell_model, learned=False)
    alone._trained = replace(model.trained, new_cell_model=unlearned)
    with pytest.raises(InputError, match="cannot draw new cells"):
        alone.trajectory(adata[:3].copy(), times=[2])


def test_a_time_outside_warns_and_one_inside_does_not(timed):
    model, adata = timed
    with pytest.warns(UserWarning, match="outside the trained range 1 to 4"):
        model.trajectory(adata[:3].copy(), times=[9])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.trajectory(adata[:3].copy(), times=[3])


def test_what_cannot_be_shown(timed, tiny_model):
    model, _ = timed
    with pytest.raises(InputError, match="time_key"):
        tiny_model.trajectory(times=[1])
    with pytest.raises(InputError, match="finite"):
        model.trajectory(times=[])
    with pytest.raises(InputError, match="finite"):
        model.trajectory(times=[float("nan")])


def test_at_its_own_time_a_cell_is_itself_though_that_was_not_trained(timed):
    model, adata = timed
    few = adata[:20].copy()
    few.obs["day"] = [3.0] * 10 + [2.0] * 10
    shown = model.trajectory(few, times=[3])
    same = np.asarray((shown.layers["counts"] != few.X).sum(axis=1)).ravel() == 0
    assert same[:10].all()
    assert not same[10:].any()


def test_a_cell_is_the_same_with_whatever_times_it_is_asked_for(timed):
    model, adata = timed
    few = adata[:40].copy()
    alone = model.trajectory(few, times=[3])
    among = model.trajectory(few, times=[3, 4, 1.5])
    assert (alone.layers["mean"] != among.layers["mean"][:40]).nnz == 0
    assert (alone.layers["counts"] != among.layers["counts"][:40]).nnz == 0
