"""Numbers: a loss of NaN stops training, odd sizes and constant genes do no harm."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
import torch
from scipy import sparse

from celldit import CellDiT
from celldit.errors import CellditError, InputError
from celldit.io.sampling import PredictedCells
from celldit.training import flow_stage, noise_stage


def poisoned(real: Callable[..., Any], at: int) -> Callable[..., Any]:
    """A function whose result becomes NaN at a certain call."""
    calls = []

    def function(*arguments: Any, **options: Any) -> Any:
        calls.append(None)
        result = real(*arguments, **options)
        return result * float("nan") if len(calls) == at + 1 else result

    return function


def test_nan_in_the_flow_stops_training(
    tiny_screen: ad.AnnData, train_tiny: Callable[..., CellDiT], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow_stage, "velocity_loss", poisoned(flow_stage.velocity_loss, 2))
    with pytest.raises(CellditError, match="loss of the flow stage became nan at step 2") as caught:
        train_tiny(tiny_screen)
    text = str(caught.value)
    assert "in a batch of 32 cells" in text
    assert set(re.findall(r"'(\w+)'", text)) <= set(tiny_screen.obs_names)
    assert "flow_rate" in text
    assert "no checkpoints are kept" in text


def test_nan_in_the_flow_from_noise_stops_training(
    tiny_screen: ad.AnnData,
    train_tiny: Callable[..., CellDiT],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    # The first call is that of the start on the held-out cells.
    real = noise_stage.velocity_loss
    monkeypatch.setattr(noise_stage, "velocity_loss", poisoned(real, 3))
    folder = tmp_path / "kept"
    with pytest.raises(CellditError, match="loss of the noise stage became nan at step 2") as said:
        train_tiny(tiny_screen, checkpoint_dir=folder)
    text = str(said.value)
    assert "in a batch of 32 cells" in text
    named = set(re.findall(r"'(\w+)'", text))
    assert named
    assert named <= set(tiny_screen.obs_names)
    assert "lower flow_rate" in text
    assert f"last good checkpoint is in {folder}" in text
    # The next run goes on from it.
    monkeypatch.setattr(noise_stage, "velocity_loss", real)
    assert train_tiny(tiny_screen, checkpoint_dir=folder).is_trained


def test_the_message_names_the_folder_of_the_last_good_checkpoint(
    tiny_screen: ad.AnnData,
    tiny_model: CellDiT,
    train_tiny: Callable[..., CellDiT],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    real = flow_stage.velocity_loss
    folder = tmp_path / "kept"
    monkeypatch.setattr(flow_stage, "velocity_loss", poisoned(real, 2))
    with pytest.raises(CellditError, match=f"last good checkpoint is in {folder}"):
        train_tiny(tiny_screen, checkpoint_dir=folder, checkpoint_minutes=0.0)
    # The next run goes on from it.
    monkeypatch.setattr(flow_stage, "velocity_loss", real)
    assert train_tiny(tiny_screen, checkpoint_dir=folder).is_trained

    tiny_model.save(tmp_path / "model")
    monkeypatch.setattr(flow_stage, "velocity_loss", poisoned(real, 2))
    tuned = tmp_path / "tuned"
    with pytest.raises(CellditError, match=f"last good checkpoint is in {tuned}"):
        CellDiT.load(tmp_path / "model").fine_tune(
            tiny_screen, max_epochs=1, checkpoint_dir=tuned, enable_progress_bar=False
        )


def test_a_trained_model_survives_a_failed_training(
    tiny_model: CellDiT, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tiny_model.trained.model_id
    monkeypatch.setattr(flow_stage, "velocity_loss", poisoned(flow_stage.velocity_loss, 0))
    with pytest.raises(CellditError, match="as it was before"):
        tiny_model.train(1, enable_progress_bar=False)
    assert tiny_model.trained.model_id == before
    assert tiny_model.predict(perturbations="A").n_obs > 0


def test_one_cell_can_be_trained_on(
    tiny_screen: ad.AnnData, train_tiny: Callable[..., CellDiT]
) -> None:
    one = tiny_screen[tiny_screen.obs["perturbation"] == "control"][:1].copy()
    CellDiT.setup_anndata(one, perturbation_key="perturbation", control="control")
    model = train_tiny(one)
    assert np.isfinite(model.generate(3).layers["mean"].toarray()).all()


def test_extreme_library_sizes_and_constant_genes(
    tiny_screen: ad.AnnData, train_tiny: Callable[..., CellDiT]
) -> None:
    """Cells of one molecule and of ten million, genes that never or always show the same."""
    rng = np.random.default_rng(0)
    counts = tiny_screen.X.toarray().astype(np.float64)
    share = counts / counts.sum(1, keepdims=True)
    size = 10.0 ** rng.integers(0, 8, len(counts))
    counts = rng.poisson(share * size[:, None]).astype(np.float64)
    counts[:, 1], counts[:, 2] = 0, 7
    counts[:5] = np.eye(counts.shape[1])[:5]
    tiny_screen.X = sparse.csr_matrix(counts)
    CellDiT.setup_anndata(
        tiny_screen, perturbation_key="perturbation", covariate_keys=["donor"], control="control"
    )
    model = train_tiny(tiny_screen)
    for cells in (model.predict(perturbations=["A", "B+C"]), model.generate(50)):
        for matrix in (cells.X, cells.layers["mean"], cells.layers["counts"]):
            assert np.isfinite(matrix.data).all()
            assert matrix.data.min() >= 0
        assert np.isfinite(cells.obsm["X_celldit"]).all()
    assert np.isfinite(model.predict_effects(["A"])["log_fold_change"]).all()


def cells(**changes: Any) -> PredictedCells:
    parts = {
        "mean": sparse.csr_matrix(np.ones((2, 3), np.float32)),
        "counts": sparse.csr_matrix(np.ones((2, 3), np.int32)),
        "size_factors": np.ones(2),
        "z": np.zeros((2, 4)),
    }
    return PredictedCells(**{**parts, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"mean": sparse.csr_matrix(np.full((2, 3), np.nan))},
        {"mean": sparse.csr_matrix(np.full((2, 3), np.inf))},
        {"mean": sparse.csr_matrix(np.full((2, 3), -1.0))},
        {"z": np.full((2, 4), np.nan)},
        {"size_factors": np.array([1.0, np.inf])},
        {"size_factors": np.array([1.0, 0.0])},
        {"counts": sparse.csr_matrix(np.full((2, 3), -1, np.int32))},
    ],
)
def test_what_is_not_finite_or_negative_is_never_written(changes: dict[str, Any]) -> None:
    cells().check_finite()
    with pytest.raises(CellditError, match="not finite or negative"):
        cells(**changes).check_finite()


@pytest.mark.parametrize("highest", [2**24 + 2, 1e30])
def test_counts_that_no_cell_has(tiny_screen: ad.AnnData, highest: float) -> None:
    matrix = tiny_screen.X.astype(np.float64)
    matrix.data[0] = highest
    tiny_screen.X = matrix
    with pytest.raises(InputError, match="no counts of molecules"):
        CellDiT.setup_anndata(tiny_screen, perturbation_key="perturbation")


@pytest.mark.parametrize("size", [1e-30, 1e12])
def test_sizes_that_no_cell_has(tiny_screen: ad.AnnData, size: float) -> None:
    tiny_screen.obs["umis"] = 100.0
    tiny_screen.obs.loc[tiny_screen.obs_names[0], "umis"] = size
    with pytest.raises(InputError, match="no library sizes"):
        CellDiT.setup_anndata(tiny_screen, perturbation_key="perturbation", size_factor_key="umis")


def test_cells_that_are_all_alike(train_tiny: Callable[..., CellDiT]) -> None:
    """No variation at all: there is nothing to whiten by."""
    adata = ad.AnnData(np.full((24, 6), 3.0))
    adata.obs["perturbation"] = ["control", "A"] * 12
    CellDiT.setup_anndata(adata, perturbation_key="perturbation")
    predicted = train_tiny(adata).predict(perturbations="A")
    assert np.allclose(predicted.layers["mean"].toarray(), 3.0, atol=0.2)


def test_torch_is_left_as_it_was(tiny_model: CellDiT) -> None:
    before = torch.get_rng_state().clone(), torch.get_num_threads()
    tiny_model.predict(perturbations="A")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.get_num_threads() == before[1]
