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
from celldit.effects.features.features import read_features
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
    # Any seed that models take, also beyond those of scikit-learn.
    cd.pp.gene_features(screen, "reactome", n_components=32, seed=2**40)
    with pytest.raises(InputError, match="seed=-1 must be a whole number"):
        cd.pp.gene_features(screen, "reactome", n_components=32, seed=-1)


SETS = {"a": ["STAT1", "JAK2", "X"], "b": ["X", "Y", "Z", "W"], "c": ["STAT1", "Y", "V"]}


def test_gene_sets_are_kept_whole(screen: ad.AnnData, tmp_path: Any) -> None:
    table = cd.pp.gene_features(screen, SETS)
    assert list(table.columns) == ["a", "b", "c"]
    dense = table.sparse.to_dense()
    for name, genes in SETS.items():
        assert set(dense.index[dense[name] > 0]) == set(genes)
    # Of two sets a narrow one weighs more, and two say more of a gene than one.
    assert dense.loc["Y", "c"] > dense.loc["Y", "b"]
    length = (dense**2).sum(axis=1)
    assert length["JAK2"] < length["STAT1"] < 2 * length["JAK2"]

    screen.write_h5ad(tmp_path / "screen.h5ad")
    stored = ad.read_h5ad(tmp_path / "screen.h5ad").uns["gene_features"]
    (one,), (two,) = read_features(table).values(), read_features(stored).values()
    assert one[0] == two[0]
    np.testing.assert_array_equal(one[1].toarray(), two[1].toarray())


def test_all_components_keep_the_inner_products(screen: ad.AnnData) -> None:
    table = cd.pp.gene_features(screen, SETS, n_components=100)
    gram = table.to_numpy() @ table.to_numpy().T
    whole = cd.pp.gene_features(screen, SETS).sparse.to_dense().to_numpy()
    np.testing.assert_allclose(gram, whole @ whole.T, atol=1e-8)


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


def test_human_sets_serve_mouse_data(simulate_screen: Callable[..., ad.AnnData]) -> None:
    adata = simulate_screen(n_cells=40, n_genes=8, labels=("control", "Stat1", "Jak2"))
    cd.CellDiT.setup_anndata(adata, perturbation_key="perturbation", control="control")
    with pytest.raises(InputError, match=r"2 of 2 .* another name: .*ignore_case=True"):
        cd.pp.gene_features(adata, "reactome")
    table = cd.pp.gene_features(adata, ["reactome"], ignore_case=True)["reactome"]
    assert {"Stat1", "Jak2", "Ifngr1"} <= set(table.index)
    assert "STAT1" not in table.index


# --- several sources ----------------------------------------------------------------------------


def test_several_sources_are_kept_apart(screen: ad.AnnData, tmp_path: Any) -> None:
    own = pd.DataFrame({"a": [1.0, 2.0, 4.0]}, index=["JAK2", "P", "Q"])
    sets = {"a": ["STAT1", "X", "Y"]}
    tables = cd.pp.gene_features(screen, ["expression", own, sets, own], n_components=4)
    assert list(tables) == ["expression", "table", "gene_sets", "table_2"]
    pd.testing.assert_frame_equal(
        tables["table"], cd.pp.gene_features(screen, own, n_components=4, allow_missing=True)
    )
    cd.pp.gene_features(screen, [own, sets], key_added="several")
    screen.write_h5ad(tmp_path / "screen.h5ad")
    again = ad.read_h5ad(tmp_path / "screen.h5ad").uns["several"]
    assert set(again) == {"table", "gene_sets"}


def test_one_source_suffices_for_a_gene(screen: ad.AnnData) -> None:
    one = pd.DataFrame({"a": [1.0, 2.0]}, index=["JAK2", "P"])
    two = pd.DataFrame({"a": [1.0, 2.0]}, index=["STAT1", "P"])
    assert set(cd.pp.gene_features(screen, [one, two])) == {"table", "table_2"}
    with pytest.raises(InputError, match=r"1 of 2 perturbations .* by table or table_2 \('JAK2'\)"):
        cd.pp.gene_features(screen, [two, two])
    with pytest.raises(InputError, match="names no source"):
        cd.pp.gene_features(screen, [])


@pytest.mark.parametrize("source", ["reactome", "go", "GO", "go_bp"])
def test_bundled_sets_know_the_screen(screen: ad.AnnData, source: str) -> None:
    assert {"STAT1", "JAK2"} <= set(cd.pp.gene_features(screen, source).index)


@pytest.mark.filterwarnings("ignore:1 of 2 perturbations are not described")
def test_expression_looks_at_controls_only(simulate_screen: Callable[..., ad.AnnData]) -> None:
    adata = simulate_screen(n_cells=120, n_genes=12, labels=("control", "gene1", "gene2"))
    other = adata.copy()
    perturbed = (other.obs["perturbation"] != "control").to_numpy()
    other.X[perturbed] *= 7
    tables = []
    for one in (adata, other):
        cd.CellDiT.setup_anndata(one, perturbation_key="perturbation")
        tables.append(cd.pp.gene_features(one, "expression", allow_missing=True))
    pd.testing.assert_frame_equal(*tables)


def test_what_is_known_decides_what_can_be_asked(
    screen: ad.AnnData, train_tiny: Callable[..., Any], tmp_path: Any
) -> None:
    """Trained without features is fine; unseen needs a row in one source; unknown is refused."""
    rng = np.random.default_rng(0)
    one = pd.DataFrame(rng.normal(size=(3, 2)), index=["STAT1", "NEW1", "OTHER"])
    two = pd.DataFrame(rng.normal(size=(3, 2)), index=["STAT1", "NEW2", "OTHER"])
    with pytest.warns(UserWarning, match=r"1 training perturbations have no features \('JAK2'\)"):
        model = train_tiny(screen, features=[one, two], max_epochs=0)
    model.save(tmp_path / "model")
    again = cd.CellDiT.load(tmp_path / "model")
    for m, data in ((model, None), (again, screen)):
        predicted = m.predict(data, perturbations=["NEW1", "NEW2+JAK2", "JAK2"])
        kinds = predicted.obs.groupby("perturbation", observed=True)["extrapolation"].first()
        assert kinds.to_dict() == {
            "NEW1": "unseen with features",
            "JAK2+NEW2": "unseen with features",
            "JAK2": "seen",
        }
        assert np.isfinite(predicted.obsm["X_celldit"]).all()
        with pytest.raises(UnknownNameError, match=r"'NEW3' .*gene_features.* a DataFrame of your"):
            m.predict(data, perturbations=["NEW1", "JAK2+NEW3"])
        with pytest.raises(UnknownNameError, match="'NEW3'"):
            m.predict_effects(["NEW3"])


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
