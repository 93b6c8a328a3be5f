"""Training from disk is training from memory, with counts and latents left in files."""

from __future__ import annotations

import pickle
import shutil
import tempfile
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
import torch

import celldit as cd
from celldit.conditions import ConditionTable
from celldit.conditions.population import Population
from celldit.data import Cells, Fields, StoredCells
from celldit.effects.fit_prior import fit_prior
from celldit.errors import FileError
from celldit.latent import Autoencoder, LatentConfig
from celldit.tokenizers import resolve
from celldit.training import latents
from celldit.training.latents import LatentFile, encoded_once


@pytest.fixture
def kang() -> ad.AnnData:
    """Every second of Kang's cells in the 60 genes of most counts, set up."""
    adata = cd.datasets.kang()
    most = np.argsort(-np.asarray(adata.X.sum(axis=0)).ravel())[:60]
    adata = adata[::2, np.sort(most)].copy()
    cd.CellDiT.setup_anndata(
        adata,
        perturbation_key="condition",
        covariate_keys=["cell_type"],
        size_factor_key="total_umis",
    )
    return adata


@pytest.fixture
def no_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files that must be empty at the end."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_on_kang_disk_and_memory_train_the_same_model(
    kang: ad.AnnData, train_tiny: Callable[..., Any], tmp_path: Path, no_scratch: Path
) -> None:
    kang[:500].copy().write_h5ad(tmp_path / "a.h5ad", compression="gzip")
    kang[500:].copy().write_zarr(tmp_path / "b.zarr")
    shards = tmp_path / "shards"
    shards.mkdir()
    for name in ("a.h5ad", "b.zarr"):
        (tmp_path / name).rename(shards / name)
    expected, model = train_tiny(kang), train_tiny(shards)
    assert isinstance(model._model.cells, StoredCells)
    assert model.trained.model_id == expected.trained.model_id
    assert model.trained.calibration.to_config() == expected.trained.calibration.to_config()
    assert model.history == expected.history
    assert list(no_scratch.glob("celldit*")) == []
    a, b = (m.predict(perturbations="IFNB", batch_size=500) for m in (expected, model))
    assert a.obs.equals(b.obs)
    np.testing.assert_array_equal(a.layers["counts"].toarray(), b.layers["counts"].toarray())
    np.testing.assert_array_equal(a.obsm["X_celldit"], b.obsm["X_celldit"])
    some = cd.open_store(shards).select(np.arange(450, 550))
    mixed = expected.predict(some, perturbations="IFNB")
    in_memory = expected.predict(kang[450:550].copy(), perturbations="IFNB")
    np.testing.assert_array_equal(mixed.X.toarray(), in_memory.X.toarray())


@pytest.fixture
def encoder(tiny_screen: ad.AnnData, tmp_path: Path) -> tuple[Autoencoder, Cells, StoredCells]:
    tiny_screen.write_h5ad(tmp_path / "a.h5ad")
    cells = Cells.from_anndata(tiny_screen, Fields.from_anndata(tiny_screen))
    config = LatentConfig(n_dims=6, token_dim=3)
    model = Autoencoder.fit(cells, resolve("modules").fit(cells), config, 0)
    return model, cells, cd.open_store(tmp_path / "a.h5ad")


def test_latents_in_a_file_are_those_in_memory(encoder: tuple, no_scratch: Path) -> None:
    model, cells, store = encoder
    with encoded_once(model, cells) as z_NKD, encoded_once(model, store) as in_file:
        assert isinstance(z_NKD, torch.Tensor)
        assert isinstance(in_file, LatentFile)
        assert in_file.shape == tuple(z_NKD.shape)
        assert torch.equal(in_file[:], z_NKD)
        for seed in range(4):
            rows = torch.from_numpy(np.random.default_rng(seed).integers(0, 480, 40))
            assert torch.equal(in_file[rows], z_NKD[rows])
        assert torch.equal(pickle.loads(pickle.dumps(in_file))[:], z_NKD)
        table = ConditionTable.from_cells(cells, "+")
        for z in (in_file, z_NKD.flatten(1).double().numpy()):
            prior = fit_prior(z, table)
            population = Population.fit(z, table, prior)
            if z is in_file:
                from_file = population.arrays()
        for name, array in population.arrays().items():
            np.testing.assert_array_equal(array, from_file[name])
    assert list(no_scratch.glob("celldit*")) == []


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="Linux tells what is mapped")
def test_no_page_of_the_latents_stays_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "latents.npy"
    np.save(path, np.ones((4_096, 6, 8), np.float32))
    in_file = LatentFile(path)
    assert float(in_file[torch.arange(0, 4_096, 7)].sum()) == 586 * 48
    assert path.name not in Path("/proc/self/smaps").read_text()


def test_blocks_do_not_change_what_is_estimated(
    encoder: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    from celldit.conditions import latents as of_conditions

    model, cells, _ = encoder
    z, table = (
        model.encode(cells).flatten(1).double().numpy(),
        ConditionTable.from_cells(cells, "+"),
    )
    whole = Population.fit(z, table, fit_prior(z, table)).arrays()
    monkeypatch.setattr(of_conditions, "BLOCK", 37)
    parts = Population.fit(z, table, fit_prior(z, table)).arrays()
    for name, array in whole.items():
        np.testing.assert_allclose(parts[name], array, rtol=1e-6, atol=1e-9, err_msg=name)


def test_a_full_disk_says_how_much_room_is_needed(
    encoder: tuple, no_scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _, store = encoder
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 1000))
    with (
        pytest.raises(FileError, match=r"need 67 MB in .*scratch.*TMPDIR"),
        encoded_once(model, store),
    ):
        pass
    monkeypatch.undo()
    monkeypatch.setattr(tempfile, "tempdir", str(no_scratch))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(latents, "_write", full)
    with pytest.raises(FileError, match="need 67 MB in"), encoded_once(model, store):
        pass
    assert list(no_scratch.glob("celldit*")) == []


def test_a_store_that_vanishes_during_training_is_an_error(
    tiny_screen: ad.AnnData,
    train_tiny: Callable[..., Any],
    tmp_path: Path,
    no_scratch: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tiny_screen.write_h5ad(tmp_path / "a.h5ad")
    fit = Autoencoder._fit

    def remove(self: Autoencoder, cells: StoredCells, seed: int) -> None:
        fit(self, cells, seed)
        (tmp_path / "a.h5ad").unlink()

    monkeypatch.setattr(Autoencoder, "_fit", remove)
    with pytest.raises(FileError, match=r"a\.h5ad vanished while it was in use"):
        train_tiny(tmp_path / "a.h5ad")
    assert list(no_scratch.glob("celldit*")) == []
