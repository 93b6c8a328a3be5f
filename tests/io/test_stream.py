"""Predictions on disk: the same as in memory, whole or not there."""

from __future__ import annotations

import os
import tracemalloc

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from celldit.errors import CellditError, FileError, InputError
from celldit.io.sampling import PredictedCells, Sampling
from celldit.io.stream import stream


def same(a: ad.AnnData, b: ad.AnnData) -> None:
    a, b = a.to_memory(), b.to_memory()
    assert (b.X != a.X).nnz == 0
    for name in ("counts", "mean"):
        assert (a.layers[name] != b.layers[name]).nnz == 0
        assert a.layers[name].dtype == b.layers[name].dtype
    assert np.array_equal(a.obsm["X_celldit"], b.obsm["X_celldit"])
    pd.testing.assert_frame_equal(a.obs, b.obs, check_categorical=False)
    assert list(a.var_names) == list(b.var_names)
    assert a.uns["celldit"]["made_by"]["model"] == b.uns["celldit"]["made_by"]["model"]


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_disk_and_memory_hold_the_same(tiny_model, tmp_path, suffix):
    path = tmp_path / f"cells{suffix}"
    in_memory = tiny_model.generate(600, n_steps=1, batch_size=256)
    on_disk = tiny_model.generate(600, n_steps=1, batch_size=256, out=path)
    same(in_memory, on_disk)
    same(in_memory, ad.read_h5ad(path) if suffix == ".h5ad" else ad.read_zarr(path))
    assert os.listdir(tmp_path) == [path.name]


def test_predictions_go_to_disk_too(tiny_model, tmp_path):
    path = tmp_path / "cells.h5ad"
    same(
        tiny_model.predict(perturbations=["A", "B"]),
        tiny_model.predict(perturbations=["A", "B"], out=path),
    )


@pytest.mark.parametrize("name", ["cells.h5ad", "cells.zarr"])
def test_what_exists_is_replaced_only_when_told(tiny_model, tmp_path, name):
    path = tmp_path / name
    tiny_model.generate(5, n_steps=1, out=path)
    with pytest.raises(FileError, match="overwrite=True"):
        tiny_model.generate(7, n_steps=1, out=path)
    assert tiny_model.generate(9, n_steps=1, out=path, overwrite=True).n_obs == 9
    assert os.listdir(tmp_path) == [name]


def test_paths_are_refused_before_any_sampling(tiny_model, tmp_path, monkeypatch):
    def never(*_):
        raise AssertionError("sampling began")

    monkeypatch.setattr(Sampling, "batches", never)
    (tmp_path / "notes.zarr").mkdir()
    (tmp_path / "notes.zarr" / "thesis.txt").write_text("mine")
    (tmp_path / "folder.h5ad").mkdir()
    for name, error in [
        ("cells.csv", InputError),
        ("missing/cells.h5ad", FileError),
        ("notes.zarr", FileError),
        ("folder.h5ad", FileError),
    ]:
        with pytest.raises(error, match=name.split("/")[0]):
            tiny_model.generate(5, out=tmp_path / name, overwrite=True)
    assert (tmp_path / "notes.zarr" / "thesis.txt").read_text() == "mine"


def planned(n_cells: int, n_genes: int, fail_at: int | None = None, batch: int = 256) -> Sampling:
    """A sampling of random cells that may fail on its way."""
    counts = sparse.random(256, n_genes, 0.3, format="csr", random_state=0).astype(np.int32)
    mean = sparse.csr_matrix(np.ones((256, n_genes), dtype=np.float32))

    def sample(at: np.ndarray) -> PredictedCells:
        if fail_at is not None and at[0] >= fail_at:
            raise KeyboardInterrupt
        return PredictedCells(
            mean, counts, np.ones(256, np.float32), np.zeros((256, 4), np.float32)
        )

    obs = pd.DataFrame(index=[f"c{i}" for i in range(n_cells)])
    genes = tuple(f"g{i}" for i in range(n_genes))
    return Sampling(genes, obs, {"made_by": {"model": "x"}}, sample, batch)


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_an_interruption_leaves_nothing_behind(tmp_path, suffix):
    path = tmp_path / f"cells{suffix}"
    with pytest.raises(KeyboardInterrupt):
        stream(planned(2000, 20, fail_at=1024), path)
    assert os.listdir(tmp_path) == []
    stream(planned(300, 20), path)
    with pytest.raises(KeyboardInterrupt):
        stream(planned(2000, 20, fail_at=1024), path)
    assert os.listdir(tmp_path) == [path.name]
    assert (ad.read_h5ad if suffix == ".h5ad" else ad.read_zarr)(path).n_obs == 300


def test_what_is_not_finite_is_never_written(tmp_path):
    bad = planned(300, 20)
    broken = PredictedCells(
        sparse.csr_matrix(np.full((256, 20), np.nan, dtype=np.float32)),
        sparse.csr_matrix((256, 20), dtype=np.int32),
        np.ones(256, np.float32),
        np.zeros((256, 4), np.float32),
    )
    with pytest.raises(CellditError, match="not finite"):
        stream(Sampling(bad.genes, bad.obs, {}, lambda at: broken, 256), tmp_path / "c.h5ad")
    assert os.listdir(tmp_path) == []


def test_memory_stays_flat(tmp_path):
    held = []
    inner = planned(40 * 256, 1000)

    def sample(at: np.ndarray) -> PredictedCells:
        held.append(tracemalloc.get_traced_memory()[0])
        return inner.sample(at)

    tracemalloc.start()
    try:
        stream(Sampling(inner.genes, inner.obs, {}, sample, 256), tmp_path / "cells.h5ad")
    finally:
        tracemalloc.stop()
    # 10,240 x 1,000 cells are 160 MB of values and columns; of these no more than a batch is held.
    assert max(held[3:]) - held[3] < 4e6


def test_nothing_depends_on_how_many_are_drawn(flowing_model):
    many, few = flowing_model.generate(700, n_steps=2), flowing_model.generate(20, n_steps=2)
    assert np.array_equal(many.obsm["X_celldit"][:20], few.obsm["X_celldit"])
    assert (many.layers["counts"][:20] != few.layers["counts"]).nnz == 0
    assert (many.layers["mean"][:20] != few.layers["mean"]).nnz == 0


def test_a_folder_that_cannot_be_written(tiny_model, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("celldit.io.stream.tempfile.NamedTemporaryFile", refuse)
    with pytest.raises(FileError, match=r"Cannot write into .*Permission denied"):
        tiny_model.generate(5, out=tmp_path / "cells.h5ad")


def test_a_disk_that_fills_up_is_said(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("celldit.io.stream._fill", full)
    with pytest.raises(FileError, match=r"Cannot write .*cells\.h5ad: No space left on device"):
        stream(planned(10, 5), tmp_path / "cells.h5ad")
    assert not list(tmp_path.iterdir())
