"""Cells on the way between two conditions, or between two cells."""

from __future__ import annotations

import numpy as np
import pytest

from celldit.errors import InputError, UnknownNameError


def test_the_ends_of_an_interpolation_are_the_predictions(flowing_model):
    way = flowing_model.interpolate(start="A", end="B", shares=[0, 0.5, 1])
    ends = flowing_model.predict(perturbations=["A", "B"])
    n = ends.n_obs // 2
    z = way.obsm["X_celldit"]
    assert np.array_equal(z[:n], ends.obsm["X_celldit"][:n])
    assert np.array_equal(z[2 * n :], ends.obsm["X_celldit"][n:])
    np.testing.assert_allclose(z[n : 2 * n], (z[:n] + z[2 * n :]) / 2, atol=1e-5)
    assert list(way.obs["share"]) == [0.0] * n + [0.5] * n + [1.0] * n


def test_interpolation_from_the_control_starts_at_the_cell(flowing_model, tiny_screen):
    way = flowing_model.interpolate(tiny_screen, start="control", end="A", shares=[0])
    controls = tiny_screen[tiny_screen.obs["perturbation"] == "control"]
    assert (way.layers["counts"] != controls.X).nnz == 0


def test_shares_and_labels_are_checked(tiny_model):
    with pytest.raises(InputError, match="shares"):
        tiny_model.interpolate(start="A", end="B", shares=[1.2])
    with pytest.raises(InputError, match="shares"):
        tiny_model.interpolate(start="A", end="B", shares=[])
    with pytest.raises(UnknownNameError, match="Q"):
        tiny_model.interpolate(start="A", end="Q")


@pytest.mark.parametrize("several", [None, ["A", "B"], []])
def test_each_end_is_one_condition(tiny_model, several):
    with pytest.raises(InputError, match="start must be the label of one condition"):
        tiny_model.interpolate(start=several, end="A")
    with pytest.raises(InputError, match="end must be the label of one condition"):
        tiny_model.interpolate(start="A", end=several)


def test_the_ends_between_cells_are_the_cells(tiny_model, tiny_screen):
    names = list(tiny_screen.obs_names[[3, 40, 41]])
    way = tiny_model.interpolate_cells(start=names[0], end=names[1:], shares=[0, 0.3, 0.5, 1])
    assert way.shape == (8, tiny_screen.n_vars)
    counts = way.layers["counts"]
    assert (counts[0] != tiny_screen[names[0]].X).nnz == 0
    assert (counts[6:] != tiny_screen[names[1:]].X).nnz == 0
    assert list(way.obs["start_cell"]) == [names[0]] * 8
    assert list(way.obs["end_cell"]) == names[1:] * 4
    z = way.obsm["X_celldit"]
    np.testing.assert_allclose(z[2:4], 0.7 * z[:2] + 0.3 * z[6:], atol=1e-5)
    np.testing.assert_allclose(z[4:6], 0.5 * z[:2] + 0.5 * z[6:], atol=1e-5)


def test_cells_of_other_data_are_found_by_name(tiny_model, tiny_screen):
    some = tiny_screen[:4].copy()
    some.obs_names = [f"new {i}" for i in range(4)]
    way = tiny_model.interpolate_cells(some, start="new 1", end="new 3", shares=[0.5])
    assert list(way.obs_names) == ["new 1 to new 3|0.5"]
    with pytest.raises(UnknownNameError, match=r"cell 'new 9' .*Did you mean"):
        tiny_model.interpolate_cells(some, start="new 1", end="new 9")


def test_cells_must_pair_up(tiny_model):
    with pytest.raises(InputError, match="start= names 2 cells and end= 3; name as many"):
        tiny_model.interpolate_cells(start=["a", "b"], end=["a", "b", "c"])
    with pytest.raises(InputError, match="start"):
        tiny_model.interpolate_cells(start=[], end=[])
    with pytest.raises(InputError, match="from 'a' to 'b' is asked for twice"):
        tiny_model.interpolate_cells(start=["a", "a"], end="b")


def test_a_name_of_several_cells_is_refused(tiny_model, tiny_screen):
    tiny_screen.obs_names = ["twice", "twice", *tiny_screen.obs_names[2:]]
    with pytest.raises(InputError, match="2 cells are called 'twice', so that it is not clear"):
        tiny_model.interpolate_cells(tiny_screen, start="twice", end="cell5")
    tiny_screen.obs_names_make_unique()
    assert tiny_model.interpolate_cells(tiny_screen, start="twice", end="cell5").n_obs == 5
