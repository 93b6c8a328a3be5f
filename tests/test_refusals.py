"""What no other test refuses: damaged files, odd tables, and settings that mean nothing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest

import celldit as cd
from celldit.cli.demo import run_demo
from celldit.data.counts import select_matrix
from celldit.data.disk.matrix import DiskMatrix
from celldit.data.fields import Fields
from celldit.errors import FileError, InputError
from celldit.evaluation.baselines import Additive, predict_anndata
from celldit.evaluation.expression import read_predicted
from celldit.evaluation.task import Task
from celldit.io.files import read_h5ad, refuse_existing


def test_threads_are_a_whole_number(tiny_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLDIT_THREADS", "two")
    with pytest.raises(InputError, match="CELLDIT_THREADS='two' must be a whole number"):
        tiny_model.predict(perturbations=["A"])


@pytest.mark.parametrize(
    ("latent", "said"),
    [
        ("set", r"^Set attention is now in the flow network, by default; leave latent= out\."),
        ("vae", "latent='vae' is not known; use 'pca' or a LatentConfig"),
        (3, "latent must be 'pca' or a LatentConfig, not 3"),
    ],
)
def test_latents_of_another_name(tiny_screen: ad.AnnData, latent: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        cd.CellDiT(tiny_screen, latent=latent)


# --- features of genes --------------------------------------------------------------------------


def test_sets_of_no_use(tiny_screen: ad.AnnData) -> None:
    names = list(tiny_screen.var_names)
    with pytest.raises(InputError, match="No gene set lists between"):
        cd.pp.gene_features(tiny_screen, {"one": names[:1]}, allow_missing=True)


def test_too_few_controls_for_co_expression(tiny_screen: ad.AnnData) -> None:
    is_control = (tiny_screen.obs["perturbation"] == "control").to_numpy()
    few = tiny_screen[~is_control | (np.cumsum(is_control) <= 4)].copy()
    with pytest.raises(InputError, match="adata has 4 control cells, too few for co-expression"):
        cd.pp.gene_features(few, "expression", allow_missing=True)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (pd.DataFrame({"x": [1.0, 2.0]}, index=["A", "A"]), "names a gene twice"),
        (pd.DataFrame({"x": [1.0, np.nan]}, index=["A", "B"]), "empty or has missing values"),
        (pd.DataFrame({"x": [1.0, 1.0]}, index=["A", "B"]), "tells no gene from another"),
    ],
)
def test_tables_of_no_use(table: pd.DataFrame, said: str, tiny_screen: ad.AnnData) -> None:
    with pytest.raises(InputError, match=said):
        cd.pp.gene_features(tiny_screen, table, allow_missing=True)


def test_features_of_a_backed_file(tiny_screen: ad.AnnData, tmp_path: Path) -> None:
    tiny_screen.write_h5ad(tmp_path / "screen.h5ad")
    with pytest.raises(InputError, match=r"backed by a file; .*adata\.to_memory"):
        cd.pp.gene_features(ad.read_h5ad(tmp_path / "screen.h5ad", backed="r"), "expression")


@pytest.mark.parametrize(
    ("smiles", "options", "said"),
    [
        ({}, {}, "smiles is empty; pass"),
        ({"a": "CCO"}, {"radius": -1}, "radius=-1 must be a whole number of at least 0"),
        ({"a": "CCO", "b": "no drug"}, {}, "1 SMILES cannot be read .'b'.; correct or drop"),
    ],
)
def test_drugs_that_cannot_be_read(smiles: dict, options: dict, said: str) -> None:
    pytest.importorskip("rdkit")
    with pytest.raises(InputError, match=said):
        cd.pp.drug_features(smiles, **options)


# --- files --------------------------------------------------------------------------------------


def test_a_matrix_of_another_kind() -> None:
    """Such as dask's, whose package is not a dependency."""
    lazy = SimpleNamespace(n_obs=2, n_vars=2, X=range(4), layers={}, is_view=False)
    with pytest.raises(InputError, match=r"is a range, which cannot be read .*adata\.to_memory"):
        select_matrix(lazy, None)


def write(tmp_path: Path, adata: ad.AnnData) -> Path:
    path = tmp_path / "screen.h5ad"
    adata.write_h5ad(path)
    return path


def test_a_matrix_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"There is no .*gone\.h5ad; check the path"):
        DiskMatrix(tmp_path / "gone.h5ad", None)


def test_a_store_without_counts(tiny_screen: ad.AnnData, tmp_path: Path) -> None:
    path = write(tmp_path, tiny_screen)
    with h5py.File(path, "a") as file:
        del file["X"]
    with pytest.raises(InputError, match="has no X; name the layer of counts"):
        cd.open_store(path)


def test_a_store_of_words(tiny_screen: ad.AnnData, tmp_path: Path) -> None:
    path = write(tmp_path, tiny_screen)
    with h5py.File(path, "a") as file:
        del file["X/data"]
        file["X/data"] = np.full(tiny_screen.X.nnz, b"many")
    with pytest.raises(InputError, match=r"X of .* has the type .*, not numbers"):
        cd.open_store(path)


def test_a_store_whose_parts_do_not_fit(tiny_screen: ad.AnnData, tmp_path: Path) -> None:
    path = write(tmp_path, tiny_screen)
    with h5py.File(path, "a") as file:
        file["X"].attrs["shape"] = np.array([tiny_screen.n_obs, 7])
    with pytest.raises(FileError, match=r"x 7 counts for .* cells and 40 genes; write it again"):
        cd.open_store(path)


def test_a_store_without_names(tiny_screen: ad.AnnData, tmp_path: Path) -> None:
    path = write(tmp_path, tiny_screen)
    with h5py.File(path, "a") as file:
        del file["var"]
    with pytest.raises(FileError, match=r"cannot be read as an AnnData .*; write it again"):
        cd.open_store(path)


def test_a_store_that_is_damaged_further_on(tiny_screen: ad.AnnData, tmp_path: Path) -> None:
    path = write(tmp_path, tiny_screen)
    with h5py.File(path, "a") as file:
        columns = file["X/indices"][:]
        del file["X/indices"]
        file["X/indices"] = columns[: len(columns) // 2]
    with pytest.raises(InputError, match=r"since it has .* values for .* column numbers; write it"):
        cd.open_store(path)


def test_an_empty_store(tiny_screen: ad.AnnData, tmp_path: Path) -> None:
    path = write(tmp_path, tiny_screen[:0].copy())
    with pytest.raises(InputError, match="has no cells"):
        cd.open_store(path)


def test_folders_in_place_of_files(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"is a folder, where an \.h5ad file is needed"):
        read_h5ad(tmp_path)
    with pytest.raises(FileError, match="is a folder, where a file is to be written"):
        refuse_existing([tmp_path], overwrite=True)


def test_a_demo_in_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(FileError, match="is a file, where the demo needs a folder; name another"):
        run_demo(tmp_path / "notes")
    assert (tmp_path / "notes").read_text() == "mine"


# --- splits and evaluation ----------------------------------------------------------------------


def test_splits_that_leave_nothing(simulate_screen: Any) -> None:
    few = simulate_screen(30, labels=("control", "A"))
    cd.CellDiT.setup_anndata(few, perturbation_key="perturbation", covariate_keys=["donor"])
    with pytest.raises(InputError, match="one side is empty; choose another fraction"):
        cd.pp.split(few, by="cells", fraction=1e-9)
    pairs = simulate_screen(60, labels=("control", "A", "C+D"))
    cd.CellDiT.setup_anndata(pairs, perturbation_key="perturbation", covariate_keys=["donor"])
    with pytest.raises(InputError, match=r"with 2 of its parts seen singly.*smaller n_seen"):
        cd.pp.split(pairs, by="combination", n_seen=2, fraction=0.5)


def test_baselines_of_other_genes(tiny_screen: ad.AnnData) -> None:
    fields = Fields.from_anndata(tiny_screen)
    cells = cd.data.Cells.from_anndata(tiny_screen, fields)
    fitted = Additive().fit(cells)
    other = cd.data.Cells.from_anndata(tiny_screen[:, ::-1].copy(), fields)
    with pytest.raises(InputError, match="genes of the control cells are not those of the train"):
        fitted.predict(other.take(other.is_control), "A")
    unlabelled = Fields(covariate_keys=("donor",))
    with pytest.raises(InputError, match="The fields name no perturbation_key"):
        predict_anndata(fitted, cells, ["A"], unlabelled)


def test_predictions_without_expression(tiny_screen: ad.AnnData) -> None:
    fields = Fields.from_anndata(tiny_screen)
    empty = ad.AnnData(obs=tiny_screen.obs, var=tiny_screen.var)
    with pytest.raises(InputError, match="is empty; store log expression in it, or counts in a"):
        read_predicted(empty, fields, 5.0)


def test_a_truth_without_perturbations(tiny_screen: ad.AnnData) -> None:
    unlabelled = tiny_screen.copy()
    unlabelled.uns.clear()
    cd.CellDiT.setup_anndata(unlabelled, covariate_keys=["donor"])
    with pytest.raises(InputError, match=r"The truth was set up without a perturbation_key"):
        Task.prepare(unlabelled)
