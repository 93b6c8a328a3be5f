"""What stands in for controls lies where they do, and answers cell by cell."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from celldit import CellDiT
from celldit.calibration.reference_controls import N_CELLS, Change, ReferenceControls, read
from celldit.calibration.responses import LOG_FACTORS

HERE = ("d1", None)


@pytest.fixture(scope="module")
def controls(tiny_model: CellDiT) -> ReferenceControls:
    """Those of a trained model."""
    return tiny_model.trained.reference_controls


def test_they_have_the_mean_of_the_controls(controls: ReferenceControls) -> None:
    own = controls.of(HERE)
    assert len(own.z_NKD) == N_CELLS
    mean_F = own.z_NKD.flatten(1).double().mean(0).numpy()
    np.testing.assert_allclose(mean_F, controls.population.references[HERE], atol=1e-5)
    elsewhere_F = mean_F + 1
    new = controls.of(("new", None), elsewhere_F).z_NKD.flatten(1).double().mean(0).numpy()
    np.testing.assert_allclose(new, elsewhere_F, atol=1e-5)


def test_one_factor_for_all_is_read_from_what_was_measured(controls: ReferenceControls) -> None:
    own = controls.of(HERE)
    change = own.change(own.z_NKD + 0.1)
    np.testing.assert_array_equal(change.curve_PG, own.curve_PG)
    np.testing.assert_allclose(change.shift_F, 0.1, atol=1e-5)
    loadings_G = own.autoencoder.decoder.loadings.detach().sum(0).double().numpy()
    np.testing.assert_allclose(change.log_factor_G, 0.1 * loadings_G, atol=1e-4)


def test_cells_that_move_alike_and_almost_alike_change_alike(controls: ReferenceControls) -> None:
    own = controls.of(HERE)
    moved_NKD = own.z_NKD + 0.3
    together = own.change(moved_NKD)
    noise_NKD = 2e-4 * torch.randn(moved_NKD.shape, generator=torch.Generator().manual_seed(0))
    singly = own.change(moved_NKD + noise_NKD)
    assert not singly.log_factor_G.any()
    np.testing.assert_allclose(singly.decoded_G, together.decoded_G, atol=0.01)


def test_where_half_of_the_cells_respond_one_factor_does_as_much(
    controls: ReferenceControls,
) -> None:
    own = controls.of(HERE)
    half_N11 = (torch.arange(N_CELLS) % 2 == 0).float()[:, None, None]
    change = own.change(own.z_NKD + half_N11)
    # A mean over cells: half of them at the new level, half at the old one.
    whole = own.change(own.z_NKD + 1.0)
    ratio_G = change.decoded_G / whole.decoded_G
    plain = np.abs(whole.decoded_G) > 0.1
    assert plain.sum() > 5
    assert (np.abs(ratio_G[plain] - 0.5) < 0.2).all()
    factor_G = change.rate_G / own.rate_G
    assert (np.sign(factor_G - 1) == np.sign(whole.rate_G - own.rate_G)).mean() > 0.9


def test_curves_are_read_between_their_points() -> None:
    curve_PG = np.stack([LOG_FACTORS, 2 * LOG_FACTORS], axis=1)
    value_QG, slope_QG = read(curve_PG, np.array([[0.1, -20.0]]))
    np.testing.assert_allclose(value_QG, [[0.1, -16.0]], atol=1e-3)
    np.testing.assert_allclose(slope_QG, [[1.0, 2.0]], atol=1e-3)


@pytest.mark.parametrize("noise", [0.0, 0.25, 4.0])
def test_a_noisy_mean_is_followed_as_far_as_it_is_known(noise: float) -> None:
    """A normal factor, N(0, 1/4), seen with normal noise: the posterior mean."""
    curve_PG = np.repeat(LOG_FACTORS[:, None], 3, axis=1)
    change = Change(np.zeros(1), np.ones(3), curve_PG, np.zeros(3))
    wanted_G = np.array([-1.0, 0.2, 1.5])
    offset_G = change.offset(wanted_G, np.full(3, noise))
    np.testing.assert_allclose(offset_G, wanted_G * 0.25 / (0.25 + noise), rtol=0.01)
