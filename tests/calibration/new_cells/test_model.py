"""New cells: their latents, totals, dispersions and sizes are those of measured cells."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import anndata as ad
import numpy as np
import pytest
import torch

from celldit import CellDiT
from celldit.calibration.new_cells.counts import NewCounts, held_total
from celldit.calibration.new_cells.model import NewCellModel
from celldit.calibration.new_cells.quantiles import CountQuantiles
from celldit.latent.likelihoods import CountModel


def test_totals_are_held_to_a_share_of_their_deviation() -> None:
    rate_BG = np.array([[1.0, 1.0], [4.0, 4.0], [0.5, 0.5]])
    usual_B = np.log([2.0, 2.0, 2.0])
    for share in (0.0, 0.4, 1.0):
        held_BG = rate_BG * held_total(rate_BG, usual_B, share)[:, None]
        expected_B = usual_B + share * (np.log(rate_BG.sum(1)) - usual_B)
        np.testing.assert_allclose(np.log(held_BG.sum(1)), expected_B, atol=1e-12)


def test_held_counts_have_the_scatter_of_totals_that_was_asked() -> None:
    n_cells, n_genes = 400, 30
    mean_BG = torch.full((n_cells, n_genes), 50.0)
    theta_G = torch.full((n_genes,), 2.0)
    size_B = torch.full((n_cells,), 1e4)
    usual_B = torch.full((n_cells,), float(np.log(1500.0)))
    spread = {}
    for share in (0.0, 0.5, 1.0):
        as_drawn = CountQuantiles.none(), np.zeros(n_cells, dtype=np.int64)
        model = NewCounts.held(mean_BG, theta_G, size_B, usual_B, share, *as_drawn)
        drawn = np.stack([model.draw(i, np.random.default_rng(i)) for i in range(n_cells)])
        spread[share] = np.log(drawn.sum(1)).std()
        assert abs(drawn.mean() / 50 - 1) < 0.03
    assert spread[0.0] == pytest.approx(1500**-0.5, rel=0.15)  # Poisson alone
    assert spread[0.5] == pytest.approx(np.hypot(spread[0.0], spread[1.0] / 2), rel=0.15)


def test_with_all_of_the_deviation_genes_are_independent_negative_binomials() -> None:
    mean_BG, theta_G = torch.rand(3, 5) * 9, torch.rand(5) + 0.5
    size_B = torch.full((3,), 1e4)
    as_drawn = CountQuantiles.none(), np.zeros(3, dtype=np.int64)
    held = NewCounts.held(mean_BG, theta_G, size_B, torch.zeros(3), 1.0, *as_drawn)
    plain = CountModel(mean_BG, theta_G)
    torch.testing.assert_close(held.mean_BG, plain.mean_BG)
    for i in range(3):
        drawn = [model.draw(i, np.random.default_rng(7)) for model in (held, plain)]
        assert np.array_equal(*drawn)


def test_generated_counts_have_the_moments_of_the_measured(
    tiny_model: CellDiT, tiny_screen: ad.AnnData
) -> None:
    made = tiny_model.generate(2000, like=tiny_screen)
    real_NG = tiny_screen.X.toarray()
    drawn_NG = made.layers["counts"].toarray()
    # Of 480 cells, a share of zeros has a standard error of about 0.02.
    assert abs((drawn_NG == 0).mean(0) - (real_NG == 0).mean(0)).max() < 0.09
    assert abs((drawn_NG == 0).mean() - (real_NG == 0).mean()) < 0.01
    sizes = tiny_model.trained.read(tiny_screen).size_factors
    made_sizes = made.obs["size_factor"].to_numpy()
    log_means, totals = [], []
    for counts_NG, size_N in ((real_NG, sizes), (drawn_NG, made_sizes)):
        log_means.append(np.log1p(1e4 * counts_NG / size_N[:, None]).mean(0))
        totals.append(np.log((counts_NG.sum(1) + 1) / size_N).std())
    assert abs(log_means[1] - log_means[0]).max() < 0.5
    assert abs(log_means[1] - log_means[0]).mean() < 0.12
    # Measured totals are the size factors; drawn ones of about 100 counts are Poisson about it.
    assert totals[0] < 0.02
    assert totals[1] < 1.1 * (1 / np.sqrt(drawn_NG.sum(1).mean())) + 0.02


def test_encoded_again_generated_cells_scatter_as_measured_ones(
    tiny_model: CellDiT, tiny_screen: ad.AnnData
) -> None:
    trained = tiny_model.trained
    measured = trained.autoencoder.encode(trained.read(tiny_screen)).flatten(1)
    made = tiny_model.generate(2000, like=tiny_screen)
    drawn = trained.autoencoder.encode(trained.read(made)).flatten(1)
    ratio = drawn.var(0) / measured.var(0)
    uncorrected = replace(
        trained.new_cell_model,
        maps_XFF=np.tile(np.eye(6), (len(trained.new_cell_model.maps_XFF), 1, 1)),
        share=1.0,
    )
    again = copy.copy(tiny_model)
    again._trained = replace(trained, new_cell_model=uncorrected)
    other = trained.autoencoder.encode(trained.read(again.generate(2000, like=tiny_screen)))
    worse = other.flatten(1).var(0) / measured.var(0)
    assert ratio.max() < 1.5
    assert (ratio.log().abs().mean()) <= worse.log().abs().mean() + 0.02


def test_models_from_before_margins_keep_their_counts(tiny_model: CellDiT) -> None:
    new_cell_model = tiny_model.trained.new_cell_model
    older = {n: a for n, a in new_cell_model.arrays().items() if not n.startswith("margins.")}
    read = NewCellModel.from_config(new_cell_model.to_config(), older)
    assert (read.count_quantiles.groups(np.array([100.0]), np.array([0])) == -1).all()
    whole = NewCellModel.from_config(new_cell_model.to_config(), new_cell_model.arrays())
    for name, array in new_cell_model.arrays().items():
        np.testing.assert_array_equal(whole.arrays()[name], array)


def test_states_of_an_earlier_training_are_beyond_the_margins(tiny_model: CellDiT) -> None:
    new_cell_model = tiny_model.trained.new_cell_model
    n_states = len(new_cell_model.maps_XFF)
    joined = new_cell_model.with_earlier(new_cell_model, np.array([0]))
    size = np.exp(new_cell_model.count_quantiles.log_size_L.mean(keepdims=True))
    assert joined.count_quantiles.groups(size, np.array([n_states - 1])) >= 0
    assert joined.count_quantiles.groups(size, np.array([n_states])) == -1
    # Nor do they deviate from what genes do in all states.
    for now, before in (
        (joined.offset_XG, new_cell_model.offset_XG),
        (joined.log_factor_XG, new_cell_model.log_factor_XG),
    ):
        np.testing.assert_array_equal(now[:n_states], before)
        assert now.shape == (n_states + 1, before.shape[1])
        assert not now[n_states:].any()


def test_what_genes_do_by_state_is_read_where_it_was_written(tiny_model: CellDiT) -> None:
    model = tiny_model.trained.new_cell_model
    arrays = model.arrays()
    older = {n: a for n, a in arrays.items() if n not in ("offset_XG", "log_factor_XG")}
    assert not NewCellModel.from_config(model.to_config(), older).offset_XG.any()
    with pytest.raises(ValueError, match="states"):
        NewCellModel.from_config(
            model.to_config(), {**arrays, "offset_XG": arrays["offset_XG"][:, 1:]}
        )


def test_a_knocked_out_gene_is_as_silent_in_new_cells_as_measured(
    simulate_screen: Callable[..., ad.AnnData], train_tiny: Callable[..., CellDiT]
) -> None:
    labels = ("control", *(f"gene{i}" for i in range(8)))
    adata = simulate_screen(n_cells=2_700, n_genes=60, labels=labels)
    adata.var_names = [f"gene{i}" for i in range(adata.n_vars)]
    counts = adata.X.toarray()
    rng = np.random.default_rng(0)
    of_cell = adata.obs["perturbation"].to_numpy()
    for i in range(8):
        left = np.where(of_cell == f"gene{i}", rng.random(len(counts)) < 0.3, 1)
        counts[:, i] = rng.poisson(3.0, len(counts)) * left
    adata.X = type(adata.X)(counts.astype(np.float32))
    CellDiT.setup_anndata(adata, perturbation_key="perturbation")
    # A latent of six dimensions has no room for eight genes of their own.
    model = train_tiny(adata)
    zeros = []
    for i in range(4):
        new = model.generate(300, perturbation=f"gene{i}")
        zeros.append((new.layers["counts"].toarray()[:, i] == 0).mean())
    measured = np.mean([(counts[of_cell == f"gene{i}", i] == 0).mean() for i in range(4)])
    assert abs(np.mean(zeros) - measured) < 0.15
