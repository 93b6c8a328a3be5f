"""What older releases wrote, of celldit and of anndata, is read by this one."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pytest
from scipy import sparse

from celldit import CellDiT
from celldit.errors import FileError
from celldit.io.files import read_h5ad
from celldit.io.folders import FORMAT

HERE = Path(__file__).resolve().parent


@pytest.mark.parametrize("version", range(1, FORMAT + 1))
def test_the_first_releases_model_says_what_it_said(version: int) -> None:
    folder = HERE / f"format_{version}"
    model = CellDiT.load(folder / "pca")
    said = json.loads((folder / "pca.json").read_text())
    adata = read_h5ad(folder / "cells.h5ad")
    assert model.trained.model_id == said["model"]
    effects = model.predict_effects(["A", "A+B"])["log_fold_change"]
    np.testing.assert_allclose(effects, said["log_fold_change"], atol=1e-4)
    predicted = model.predict(adata, perturbations=["A", "A+B"], seed=1)
    autoencoder = model.trained.autoencoder
    size_F = autoencoder.scale.repeat_interleave(autoencoder.token_dim).numpy()
    mean, latent = predicted.layers["mean"].toarray().mean(0), predicted.obsm["X_celldit"].mean(0)
    np.testing.assert_allclose(mean, said["mean"], rtol=1e-3)
    # The first release wrote latent tokens at unit scale.
    unit = size_F if version == 1 else 1.0
    np.testing.assert_allclose(latent / unit, said["latent"], atol=1e-3)
    assert model.generate(20).n_obs == 20


def test_two_shares_that_differ_are_refused_with_what_to_do(tmp_path: Path) -> None:
    """The first release moved conditions and single cells by a share each."""
    folder = shutil.copytree(HERE / "format_1" / "pca", tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["trust"]["seen"] = {"shift": 1.0, "cells": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(FileError, match=r"celldit 0\.1.*separate shares.*train it again"):
        CellDiT.load(folder)
    config["trust"]["seen"] = {"shift": 0.75, "cells": 0.75}
    (folder / "config.json").write_text(json.dumps(config))
    assert CellDiT.load(folder).flow_weight["seen"] == 0.75


@pytest.mark.parametrize("version", [1, 2])
def test_a_set_latent_is_refused_with_what_to_do(version: int) -> None:
    with pytest.raises(FileError, match=r"the kind 'set' of its latent has left; train it again"):
        CellDiT.load(HERE / f"format_{version}" / "set")


@pytest.mark.parametrize(
    ("part", "option", "value"),
    [
        ("latent", "likelihood", "zinb"),
        ("latent", "likelihood", "gaussian"),
        ("latent", "decoder", "cross_attention"),
        ("network", "conditioning", "both"),
        ("network", "context_embedding", True),
    ],
)
def test_parts_that_left_are_refused_with_what_to_do(
    tmp_path: Path, part: str, option: str, value: str | bool
) -> None:
    folder = shutil.copytree(HERE / "format_1" / "pca", tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (config["latent"]["config"] if part == "latent" else config["dit"])[option] = value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(FileError, match=rf"the {option} {value!r} of its {part} has left; train"):
        CellDiT.load(folder)


def test_every_format_so_far_has_a_model_here() -> None:
    """Whoever raises the format commits a model of the new one, and keeps the old ones."""
    folders = {path.name for path in HERE.iterdir() if re.fullmatch(r"format_\d+", path.name)}
    assert folders == {f"format_{i}" for i in range(1, FORMAT + 1)}
    size = sum(p.stat().st_size for p in HERE.rglob("*") if p.is_file())
    assert size < 300_000 * FORMAT


def old_layout(path: Path, adata: ad.AnnData) -> None:
    """A file as anndata 0.6 wrote it: tables as records, sparse matrices without encodings."""
    with h5py.File(path, "w") as file:
        group = file.create_group("X")
        group.attrs["h5sparse_format"] = "csr"
        group.attrs["h5sparse_shape"] = np.array(adata.shape)
        for name in ("data", "indices", "indptr"):
            group.create_dataset(name, data=getattr(adata.X, name))
        columns = [("index", "S16"), *[(name, "i1") for name in adata.obs]]
        obs = np.empty(adata.n_obs, dtype=columns)
        obs["index"] = adata.obs_names.to_numpy(dtype="S16")
        for name in adata.obs:
            levels, codes = np.unique(adata.obs[name].astype(str), return_inverse=True)
            obs[name] = codes
            text = h5py.string_dtype()
            file.create_dataset(f"uns/{name}_categories", data=levels.astype(object), dtype=text)
        file.create_dataset("obs", data=obs)
        var = np.empty(adata.n_vars, dtype=[("index", "S16")])
        var["index"] = adata.var_names.to_numpy(dtype="S16")
        file.create_dataset("var", data=var)


def test_files_of_older_anndata_load(tmp_path: Path) -> None:
    adata = read_h5ad(HERE / "format_1" / "cells.h5ad")
    old_layout(tmp_path / "old.h5ad", adata)
    old = read_h5ad(tmp_path / "old.h5ad")
    CellDiT.setup_anndata(
        old, perturbation_key="perturbation", control="control", covariate_keys=["donor"]
    )
    model = CellDiT.load(HERE / "format_1" / "pca")
    one, two = (model.predict(cells, perturbations="A", seed=2) for cells in (old, adata))
    assert sparse.issparse(one.X)
    assert one.layers["counts"].toarray().tobytes() == two.layers["counts"].toarray().tobytes()
    assert list(one.obs["control_cell"]) == list(two.obs["control_cell"])
