"""Weights are found where there is something to find, and tied where there is little."""

from __future__ import annotations

from collections.abc import Callable

import anndata as ad
import numpy as np
import pytest

from celldit import CellDiT
from celldit.calibration.fit_means import _least_squares, _line
from celldit.calibration.means import START_WEIGHTS
from celldit.conditions import ConditionTable
from celldit.conditions.extrapolation import Extrapolation
from celldit.data.cells import Cells
from celldit.data.fields import Fields


def test_weights_are_found() -> None:
    rng = np.random.default_rng(0)
    products = []
    for _ in range(50):
        decoded_G, straight_G, further_G = rng.normal(size=(3, 300))
        measured_G = 0.9 * decoded_G + 0.3 * straight_G + 0.6 * further_G
        each_4G = np.stack([decoded_G, straight_G, further_G, measured_G + rng.normal(0, 0.1, 300)])
        products.append(each_4G @ each_4G.T)
    assert _least_squares(products) == pytest.approx((0.9, 0.3, 0.6), abs=0.03)
    # No more is made up for than reading can lose, and the rest is believed at most as it is.
    larger = np.outer([1, 1, 1, 3], [1, 1, 1, 3])
    a, b, c = _least_squares([p * larger for p in products])
    assert a + b < 1.201
    assert c == 1
    # One condition says half of it.
    one = np.array([1, 1e-9, 1e-9, 1.0])
    few = _least_squares([np.outer(one, one) + 1e-12 * np.eye(4)])
    assert START_WEIGHTS[0] < few[0] < 1


def dosed(
    simulate_screen: Callable[..., ad.AnnData], n_cells: int, doses: tuple[str, ...]
) -> ad.AnnData:
    """Three drugs, each at every dose."""
    parts = {
        dose: simulate_screen(n_cells=n_cells, n_genes=40, labels=("control", "A", "B", "C"))
        for dose in doses
    }
    adata = ad.concat(parts, label="dose", index_unique="-")
    control = (adata.obs["perturbation"] == "control").to_numpy()
    adata.obs["dose"] = np.where(control, 0.0, adata.obs["dose"].astype(float))
    CellDiT.setup_anndata(adata, perturbation_key="perturbation", dose_key="dose")
    return adata


def test_another_dose_is_left_out_and_not_seen(
    simulate_screen: Callable[..., ad.AnnData], train_tiny: Callable[..., CellDiT]
) -> None:
    weights = train_tiny(
        dosed(simulate_screen, 400, ("1", "10")), max_epochs=0
    ).trained.mean_calibration.weights
    assert set(weights) == {None}


def test_never_seen_perturbations_are_not_pooled_with_the_rest(
    simulate_screen: Callable[..., ad.AnnData], train_tiny: Callable[..., CellDiT]
) -> None:
    adata = simulate_screen(n_cells=1_200, n_genes=40, labels=("control", *"ABCDE"))
    CellDiT.setup_anndata(adata, perturbation_key="perturbation")
    weights = train_tiny(adata, max_epochs=0).trained.mean_calibration.weights
    assert set(weights) == {Extrapolation.UNSEEN}


def test_a_few_cells_are_as_good_as_they_are(
    simulate_screen: Callable[..., ad.AnnData], train_tiny: Callable[..., CellDiT]
) -> None:
    adata = simulate_screen(n_cells=60, n_genes=40, labels=("control", *"ABCDE"))
    CellDiT.setup_anndata(adata, perturbation_key="perturbation")
    model = train_tiny(adata, max_epochs=0)
    control = adata[adata.obs["perturbation"] == "control"].copy()
    predicted = model.predict(control, perturbations=["A"])
    assert np.isfinite(predicted.X.data).all()


def test_contexts_far_apart_do_not_make_genes_look_well_known(
    simulate_screen: Callable[..., ad.AnnData], train_tiny: Callable[..., CellDiT]
) -> None:
    """The latent tells contexts apart; of cells of one condition it then knows no more."""
    adata = simulate_screen(n_cells=900, donors=("d1", "d2"))
    far = (adata.obs["donor"] == "d2").to_numpy()
    adata.X[far] = adata.X[far].multiply(np.resize([0, 1, 8], adata.n_vars)).tocsr()
    fields = {"perturbation_key": "perturbation", "covariate_keys": ["donor"]}
    CellDiT.setup_anndata(adata, **fields)
    autoencoder = train_tiny(adata, max_epochs=0).trained.autoencoder
    cells = Cells.from_anndata(adata, Fields.from_anndata(adata))
    table = ConditionTable.from_cells(cells, "+")
    slopes_FG, share_G = _line(cells, table, autoencoder, 0)

    log_NG = cells.log_normalized().toarray().astype(float)
    left_NG = log_NG - autoencoder.encode(cells).flatten(1).double().numpy() @ slopes_FG
    whole_G, left_G = np.zeros((2, cells.n_genes))
    for condition in range(len(table)):
        own = table.cells_of(condition)
        whole_G += log_NG[own].var(0) * len(own)
        left_G += left_NG[own].var(0) * len(own)
    varies_G = whole_G > 0
    within_G = (left_G[varies_G] / whole_G[varies_G]).clip(0, 1)
    np.testing.assert_allclose(share_G[varies_G], within_G, atol=1e-3)
    np.testing.assert_array_equal(share_G[~varies_G], 1)
    in_all_G = (left_NG.var(0)[varies_G] / log_NG.var(0)[varies_G]).clip(0, 1)
    assert np.max(within_G - in_all_G) > 0.5, "the contexts are not far apart"
