"""Features of genes and drugs."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import celldit as cd
from celldit.errors import CellditError, FileError, InputError, UnknownNameError

HAS_RDKIT = importlib.util.find_spec("rdkit") is not None


@pytest.fixture
def screen(simulate_screen: Callable[..., ad.AnnData]) -> ad.AnnData:
    adata = simulate_screen(n_cells=120, labels=("control", "STAT1", "JAK2", "JAK2+STAT1"))
    cd.CellDiT.setup_anndata(adata, perturbation_key="perturbation", control="control")
    return adata


def correlation(table: pd.DataFrame, a: str, b: str) -> float:
    x, y = table.loc[a].to_numpy(), table.loc[b].to_numpy()
    return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


def test_reactome_puts_relatives_together(screen: ad.AnnData) -> None:
    table = cd.pp.gene_features(screen, "reactome", n_components=32)
    assert screen.uns["gene_features"] is table
    assert table.shape[1] == 32
    assert correlation(table, "IFNGR1", "STAT1") > 0.5
    assert abs(correlation(table, "IFNGR1", "MYC")) < 0.3
    again = cd.pp.gene_features(screen, "reactome", n_components=32)
    pd.testing.assert_frame_equal(table, again)


def test_all_components_keep_the_inner_products(screen: ad.AnnData) -> None:
    sets = {"a": ["STAT1", "JAK2", "X"], "b": ["X", "Y", "Z", "W"], "c": ["STAT1", "Y", "V"]}
    table = cd.pp.gene_features(screen, sets, n_components=100)
    gram = table.to_numpy() @ table.to_numpy().T
    np.testing.assert_allclose(np.diag(gram), 1, atol=1e-8)
    at = {gene: i for i, gene in enumerate(table.index)}
    assert gram[at["JAK2"], at["V"]] == pytest.approx(0, abs=1e-8)
    assert gram[at["Z"], at["W"]] == pytest.approx(1, abs=1e-8)


def test_a_perturbation_without_a_set_is_named(screen: ad.AnnData) -> None:
    sets = {"a": ["STAT1", "X", "Y"]}
    with pytest.raises(InputError, match="'JAK2'"):
        cd.pp.gene_features(screen, sets)
    assert "gene_features" not in screen.uns
    with pytest.warns(UserWarning, match="'JAK2'"):
        table = cd.pp.gene_features(screen, sets, allow_missing=True)
    assert "JAK2" not in table.index


def test_expression_gives_correlations_of_the_controls(
    simulate_screen: Callable[..., ad.AnnData],
) -> None:
    adata = simulate_screen(n_cells=200, n_genes=12, labels=("control", "gene1", "gene2"))
    cd.CellDiT.setup_anndata(adata, perturbation_key="perturbation", control="control")
    table = cd.pp.gene_features(adata, "expression", n_components=12)
    controls = adata[adata.obs["perturbation"] == "control"]
    controls = controls[:, table.index]
    counts = controls.X.toarray()
    totals = np.asarray(adata[controls.obs_names].X.sum(axis=1))
    log = np.log1p(1e4 * counts / totals)
    expected = np.corrcoef(log.T)
    x = table.to_numpy()
    assert len(x) >= 10
    np.testing.assert_allclose(x @ x.T, expected, atol=1e-3)


def test_tables_and_files_are_sources(screen: ad.AnnData, tmp_path: Any) -> None:
    given = pd.DataFrame(
        np.random.default_rng(0).normal(size=(5, 9)), index=["STAT1", "JAK2", "P", "Q", "R"]
    )
    table = cd.pp.gene_features(screen, given, n_components=3, key_added="given")
    assert table.shape == (5, 3)
    assert "given" in screen.uns
    path = tmp_path / "sets.gmt"
    path.write_text("ONE\t-\tSTAT1\tJAK2\tP\nTWO\t-\tP\tQ\tR\n")
    from_file = cd.pp.gene_features(screen, path)
    from_text = cd.pp.gene_features(screen, str(path))
    pd.testing.assert_frame_equal(from_file, from_text)


def test_sources_that_cannot_be_used_say_what_to_do(screen: ad.AnnData) -> None:
    with pytest.raises(InputError, match="GMT"):
        cd.pp.gene_features(screen, "go")
    with pytest.raises(UnknownNameError, match="reactome"):
        cd.pp.gene_features(screen, "reactom")
    with pytest.raises(FileError):
        cd.pp.gene_features(screen, "nowhere/sets.gmt")
    with pytest.raises(InputError, match="n_components"):
        cd.pp.gene_features(screen, n_components=0)
    with pytest.raises(InputError, match="numbers"):
        cd.pp.gene_features(screen, pd.DataFrame({"a": ["x"]}, index=["STAT1"]))
    with pytest.raises(InputError, match="source must be"):
        cd.pp.gene_features(screen, 3)  # type: ignore[arg-type]


def test_a_model_takes_the_features_and_knows_unseen_genes(
    screen: ad.AnnData, train_tiny: Callable[..., Any]
) -> None:
    table = cd.pp.gene_features(screen, "reactome", n_components=8)
    model = train_tiny(screen, features=table, max_epochs=0)
    predicted = model.predict(perturbations="IFNGR1")
    assert set(predicted.obs["extrapolation"]) == {"unseen with features"}


def test_split_is_that_of_data() -> None:
    assert cd.pp.split is cd.data.split


def test_missing_rdkit_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rdkit", None)
    with pytest.raises(CellditError, match=r"celldit\[drugs\]"):
        cd.pp.drug_features({"aspirin": "CC(=O)Oc1ccccc1C(=O)O"})


@pytest.mark.skipif(not HAS_RDKIT, reason="RDKit is not installed")
def test_drugs_with_like_structures_are_alike() -> None:
    smiles = {
        "aspirin": "CC(=O)Oc1ccccc1C(=O)O",
        "salicylic acid": "OC(=O)c1ccccc1O",
        "caffeine": "Cn1cnc2c1c(=O)n(C)c(=O)n2C",
    }
    table = cd.pp.drug_features(smiles)
    assert list(table.index) == list(smiles)
    assert np.isfinite(table.to_numpy()).all()
    near = correlation(table, "aspirin", "salicylic acid")
    assert near > correlation(table, "aspirin", "caffeine")
    with pytest.raises(InputError, match="'broken'"):
        cd.pp.drug_features({**smiles, "broken": "C1CC"})
