"""An autoencoder trained on one data set serves another."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
import torch

import celldit as cd
from celldit import CellDiT, Pretrained
from celldit.errors import FileError, InputError, NotTrainedError
from celldit.latent import LatentConfig
from celldit.nn.dit import DiTConfig
from celldit.training import TrainingConfig

CONFIG = TrainingConfig(flow_steps_per_epoch=4, n_trials=1, flow_batch=32)
DIT = DiTConfig(width=16, depth=1, n_heads=2)


@pytest.fixture(scope="module")
def other(simulate_screen: Callable[..., ad.AnnData]) -> ad.AnnData:
    """Other cells under other perturbations; 34 of the 40 genes, in another order, and 6 new."""
    adata = simulate_screen(n_cells=240, labels=("control", "D", "E"), seed=3)
    adata = adata[:, np.random.default_rng(0).permutation(40)].copy()
    adata.var_names = [f"new{i}" if i < 6 else gene for i, gene in enumerate(adata.var_names)]
    CellDiT.setup_anndata(adata, perturbation_key="perturbation", covariate_keys=["donor"])
    return adata


@pytest.fixture(scope="module")
def saved(tiny_model: CellDiT, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrained") / "model"
    tiny_model.save(folder)
    return folder


def trained(adata: ad.AnnData, start: Any, max_epochs: int = 1, **options: Any) -> CellDiT:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        model = CellDiT(adata, autoencoder=start, dit=DIT)
    model.train(max_epochs, config=CONFIG, enable_progress_bar=False, **options)
    return model


def test_the_same_cells_keep_their_latent(tiny_screen: ad.AnnData, tiny_model: CellDiT) -> None:
    before = {n: t.clone() for n, t in tiny_model.trained.autoencoder.state_dict().items()}
    model = trained(tiny_screen, Pretrained(tiny_model, train=False))
    mine, theirs = (m.trained.autoencoder for m in (model, tiny_model))
    z, old = (m.get_latent_representation(tiny_screen) for m in (model, tiny_model))
    np.testing.assert_allclose(z, old, atol=1e-4)  # at their own size, whatever the unit scale is
    sizes = torch.full((len(z),), 1e3)
    with torch.no_grad():
        pairs = ((mine, z), (theirs, old))
        a, b = (m.decode(torch.from_numpy(x).view(-1, 2, 3), sizes).mean_BG for m, x in pairs)
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    after = theirs.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before), "the lender is the same"


@pytest.mark.parametrize("train", [True, False])
def test_other_genes_predict_and_survive_a_folder(
    tiny_screen: ad.AnnData,
    train_tiny: Callable[..., CellDiT],
    other: ad.AnnData,
    tmp_path: Path,
    train: bool,
) -> None:
    lender = train_tiny(tiny_screen)
    model = trained(other, Pretrained(lender, train=train))
    autoencoder = model.trained.autoencoder
    z = autoencoder.encode(model._model.cells)
    torch.testing.assert_close(z.square().mean((0, 2)).sqrt(), torch.ones(2), rtol=1e-3, atol=0)
    said = model.trained.trained_with["autoencoder"]
    assert said["from"] == lender.trained.model_id
    assert said["trained_further"] is train
    assert said["genes"].startswith("34 of the model's 40 genes are in the data (85%); 6 genes")
    # The linear encoder is the lender's, whatever is trained further.
    shared = [gene for gene in other.var_names if not gene.startswith("new")]
    mine = autoencoder.loadings[[model.genes.index(gene) for gene in shared]]
    theirs = lender.trained.autoencoder.loadings[[lender.genes.index(g) for g in shared]]
    size = autoencoder.token_scale.repeat_interleave(3)
    torch.testing.assert_close(mine * size, theirs, rtol=1e-4, atol=1e-5)
    # New genes are decoded: at about the level that they have.
    with torch.no_grad():
        size_factors = torch.from_numpy(model._model.cells.size_factors)
        mean = autoencoder.decode(z, size_factors).mean_BG.mean(0).numpy()
    np.testing.assert_allclose(mean[:6], other.X.toarray().mean(0)[:6], rtol=0.3)
    predicted = model.predict(perturbations=["D"])
    assert list(predicted.var_names) == list(other.var_names)
    model.save(tmp_path / "model")
    again = CellDiT.load(tmp_path / "model")
    assert again.trained.trained_with["autoencoder"] == said
    once_more = again.predict(other[other.obs["perturbation"] == "control"], perturbations=["D"])
    np.testing.assert_array_equal(once_more.X.toarray(), predicted.X.toarray())


def test_a_folder_is_as_good_as_the_model(
    tiny_model: CellDiT, saved: Path, other: ad.AnnData
) -> None:
    models = [trained(other, start, max_epochs=0) for start in (tiny_model, saved, str(saved))]
    assert len({model.trained.model_id for model in models}) == 1


def test_a_fitted_decoder_starts_there_and_is_better(
    tiny_model: CellDiT, other: ad.AnnData, log_likelihood: Any
) -> None:
    model = trained(other, tiny_model, max_epochs=3)
    kept = trained(other, Pretrained(tiny_model, train=False), max_epochs=3)
    cells = model._model.cells

    def nll(m: CellDiT) -> float:
        autoencoder = m.trained.autoencoder
        with torch.no_grad():
            size = torch.from_numpy(cells.size_factors)
            found = autoencoder.decode(autoencoder.encode(cells), size)
            return -log_likelihood(found, cells.counts.toarray())

    assert nll(model) < nll(kept)


def test_what_does_not_match_is_told_and_refused(
    tiny_model: CellDiT, other: ad.AnnData, saved: Path, tmp_path: Path
) -> None:
    with pytest.warns(UserWarning, match=r"34 of the model's 40 genes are in the data \(85%\)"):
        CellDiT(other, autoencoder=tiny_model)
    few = other.copy()
    few.var_names = [f"x{i}" if i < 30 else gene for i, gene in enumerate(few.var_names)]
    with pytest.raises(InputError, match=r"Only 10 of the model's 40 genes .* at least 50%"):
        CellDiT(few, autoencoder=saved)
    with pytest.warns(UserWarning, match="10 of the model's 40 genes"):
        CellDiT(few, autoencoder=Pretrained(saved, min_overlap=0.2))
    with pytest.raises(InputError, match=r"min_overlap=2 must be a number between 0 and 1"):
        CellDiT(other, autoencoder=Pretrained(saved, min_overlap=2))
    with pytest.raises(InputError, match=r"tokenizer= and autoencoder= exclude each other"):
        CellDiT(other, "modules", autoencoder=saved)
    with pytest.raises(InputError, match=r"latent= and autoencoder= contradict each other"):
        CellDiT(other, latent=LatentConfig(n_dims=4), autoencoder=saved)
    with pytest.raises(InputError, match=r"must be a trained CellDiT.*not int"):
        CellDiT(other, autoencoder=3)  # type: ignore[arg-type]
    with pytest.raises(NotTrainedError):
        CellDiT(other, autoencoder=CellDiT(other, "modules"))
    with pytest.raises(FileError):
        CellDiT(other, autoencoder=tmp_path / "nothing")


def test_checkpoints_know_the_start(tiny_model: CellDiT, other: ad.AnnData, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    model = trained(other, tiny_model, checkpoint_dir=folder)
    again = trained(other, tiny_model, checkpoint_dir=folder)
    assert again.trained.model_id == model.trained.model_id
    for start in (Pretrained(tiny_model, train=False), Pretrained(tiny_model, min_overlap=0.1)):
        with pytest.raises(InputError, match="another training, which differs in start"):
            trained(other, start, checkpoint_dir=folder)
    plain = CellDiT(
        other,
        model._model.design.tokenizer,
        LatentConfig(**vars(model._model.design.latent)),
        dit=DIT,
    )
    with pytest.raises(InputError, match="another training, which differs in start"):
        plain.train(1, config=CONFIG, enable_progress_bar=False, checkpoint_dir=folder)


def test_it_is_a_public_name() -> None:
    assert cd.Pretrained is Pretrained
