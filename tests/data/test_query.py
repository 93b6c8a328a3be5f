"""A query keeps its counts, columns and genes where it has them, and lacks what it lacks."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
from scipy import sparse
from typer.testing import CliRunner

import celldit as cd
from celldit.cli.app import app
from celldit.data import Fields, open_store
from celldit.data.genes import check_are_genes
from celldit.data.query import query_fields
from celldit.errors import CellditError, InputError, UnknownNameError

SETUP: dict[str, Any] = {"perturbation_key": "perturbation", "covariate_keys": ["donor"]}


@pytest.fixture
def moved(tiny_screen: ad.AnnData) -> ad.AnnData:
    """Cells that were not set up, with counts in a layer and logarithms in X."""
    moved = tiny_screen[:60].copy()
    moved.uns.clear()
    moved.layers["umis"] = moved.X.copy()
    moved.X = sparse.csr_matrix(np.log1p(moved.X.toarray() / 7.0)).astype(np.float32)
    return moved


def same(one: ad.AnnData, two: ad.AnnData) -> bool:
    return one.layers["counts"].toarray().tobytes() == two.layers["counts"].toarray().tobytes()


def test_counts_of_a_query_in_a_layer(
    tiny_model: Any, tiny_screen: ad.AnnData, moved: ad.AnnData, tmp_path: Path
) -> None:
    wanted = tiny_model.predict(tiny_screen[:60].copy(), perturbations=["A"])
    with pytest.raises(InputError, match=r"pass counts_layer='umis' to CellDiT\.setup_anndata"):
        tiny_model.predict(moved, perturbations=["A"])
    assert same(tiny_model.predict(moved, perturbations=["A"], counts_layer="umis"), wanted)
    cd.CellDiT.setup_anndata(moved, counts_layer="umis", **SETUP)
    assert same(tiny_model.predict(moved, perturbations=["A"]), wanted)
    assert same(tiny_model.predict(moved[:60], perturbations=["A"]), wanted)
    moved.write_h5ad(tmp_path / "q.h5ad")
    assert same(tiny_model.predict(str(tmp_path / "q.h5ad"), perturbations=["A"]), wanted)
    backed = ad.read_h5ad(tmp_path / "q.h5ad", backed="r")
    assert same(tiny_model.predict(backed, perturbations=["A"]), wanted)
    store = open_store(tmp_path / "q.h5ad")
    assert same(tiny_model.predict(store, perturbations=["A"]), wanted)
    with pytest.raises(UnknownNameError, match="umi"):
        tiny_model.predict(moved, perturbations=["A"], counts_layer="umi")


def test_every_function_that_reads_cells_honours_their_setup(
    tiny_model: Any, moved: ad.AnnData
) -> None:
    uses = {
        "generate": lambda: tiny_model.generate(5, like=moved),
        "latent": lambda: tiny_model.get_latent_representation(moved),
        "interpolate": lambda: tiny_model.interpolate(moved, start="A", end="B"),
        "cells": lambda: tiny_model.interpolate_cells(moved, start="cell0", end="cell1"),
        "counterfactual": lambda: cd.tl.counterfactual(moved, tiny_model, perturbation="A"),
        "embed": lambda: cd.tl.embed(moved, tiny_model),
        "token_activity": lambda: cd.tl.token_activity(moved, tiny_model),
    }
    for use in uses.values():
        with pytest.raises(InputError, match=r"pass counts_layer='umis' to CellDiT\.setup"):
            use()
    cd.CellDiT.setup_anndata(moved, counts_layer="umis", **SETUP)
    for use in uses.values():
        use()


def test_evaluation_reads_each_side_where_its_counts_are(
    tiny_model: Any, tiny_screen: ad.AnnData
) -> None:
    truth = tiny_screen[tiny_screen.obs["perturbation"].isin(["control", "A"])].copy()
    predicted = tiny_model.predict(truth, perturbations=["A"])
    control = truth[truth.obs["perturbation"] == "control"].copy()
    wanted = cd.tl.evaluate(predicted, truth, control, metrics=["nmse"])
    control.layers["umis"] = control.X.copy()
    control.X = sparse.csr_matrix(np.log1p(control.X.toarray())).astype(np.float32)
    control.uns.clear()
    with pytest.raises(InputError, match="pass counts_layer='umis'"):
        cd.tl.evaluate(predicted, truth, control, metrics=["nmse"])
    cd.CellDiT.setup_anndata(control, counts_layer="umis", **SETUP)
    assert cd.tl.evaluate(predicted, truth, control, metrics=["nmse"]).equals(wanted)
    truth.layers["umis"] = truth.X.copy()
    found = cd.tl.evaluate(predicted, truth, control, metrics=["nmse"], counts_layer="umis")
    assert found.equals(wanted)


def test_counts_of_a_query_in_a_layer_in_the_terminal(
    tiny_model: Any, moved: ad.AnnData, tmp_path: Path
) -> None:
    tiny_model.save(tmp_path / "model")
    moved.write_h5ad(tmp_path / "q.h5ad")
    model, query, out = (str(tmp_path / n) for n in ("model", "q.h5ad", "out.h5ad"))
    for command in (
        ["predict", model, query, "-p", "A", "-o", out],
        ["generate", model, "5", "--like", query, "-o", out],
    ):
        command.append("--overwrite")
        refused = CliRunner().invoke(app, command)
        assert refused.exit_code == 1
        (told,) = re.findall(r"pass (--counts-layer \w+)", refused.output)
        done = CliRunner().invoke(app, [*command, *told.split()])
        assert done.exit_code == 0, done.output


def test_a_query_without_the_layer_of_training(tiny_screen: ad.AnnData, train_tiny: Any) -> None:
    elsewhere = tiny_screen.copy()
    elsewhere.uns.clear()
    elsewhere.layers["umis"] = elsewhere.X.copy()
    elsewhere.X = np.log1p(elsewhere.X.toarray())
    cd.CellDiT.setup_anndata(elsewhere, counts_layer="umis", **SETUP)
    model = train_tiny(elsewhere, max_epochs=0)
    plain = tiny_screen[:60].copy()
    plain.uns.clear()
    wanted = model.predict(elsewhere[:60].copy(), perturbations=["A"])
    assert same(model.predict(plain, perturbations=["A"]), wanted)
    plain.raw = plain.copy()
    plain.X = np.log1p(plain.X.toarray())
    with pytest.raises(InputError, match=r"pass adata\.raw\.to_adata\(\) instead of adata"):
        model.predict(plain, perturbations=["A"])
    assert same(model.predict(plain.raw.to_adata(), perturbations=["A"]), wanted)


def test_columns_of_a_query_by_its_own_names(tiny_model: Any, tiny_screen: ad.AnnData) -> None:
    query = tiny_screen[:60].copy()
    wanted = tiny_model.predict(query, perturbations=["A"])
    query.obs.columns = ["gene_ko", "patient"]
    query.obs["gene_ko"] = query.obs["gene_ko"].replace({"control": "NT"})
    query.uns.clear()
    cd.CellDiT.setup_anndata(
        query, perturbation_key="gene_ko", control="NT", covariate_keys=["patient"]
    )
    found = tiny_model.predict(query, perturbations=["A"])
    assert same(found, wanted)
    assert found.obs["donor"].tolist() == wanted.obs["donor"].tolist()


def test_an_old_setup_does_not_lead_astray() -> None:
    model = Fields("p", covariate_keys=("a", "b"), size_factor_key="n", counts_layer="raw")
    query = ad.AnnData(np.ones((2, 2)), obs={"p": ["x", "y"], "a": [1, 1], "b": [2, 2]})
    for own in (
        Fields("gone", counts_layer="gone", size_factor_key="gone"),
        Fields("p", covariate_keys=("b", "a")),
        Fields("p", covariate_keys=("b", "p")),
    ):
        query.uns["celldit"] = {"setup": own.to_dict()}
        found = query_fields(query, model)
        assert (found.perturbation_key, found.covariate_keys) == ("p", ("a", "b"))
        assert found.counts_layer is None
        assert found.size_factor_key == "n"
    query.uns["celldit"] = {"setup": {"not": "ours"}}
    assert query_fields(query, model).counts_layer is None


def renamed(adata: ad.AnnData, change: Any) -> ad.AnnData:
    query = adata[:60].copy()
    query.var_names = [change(name) for name in query.var_names]
    return query


@pytest.mark.parametrize(
    ("ours", "theirs", "hint"),
    [
        (lambda n: f"ENSG{int(n[4:]):011d}.3", lambda n: f"ENSG{int(n[4:]):011d}", "version"),
        (lambda n: f"ENSG{int(n[4:]):011d}", lambda n: f"ENSG{int(n[4:]):011d}.12", "version"),
        (str.upper, str.capitalize, "upper and lower case"),
        (str, lambda n: f" {n} ", "blanks"),
    ],
)
def test_genes_spelt_otherwise(
    tiny_screen: ad.AnnData, train_tiny: Any, ours: Any, theirs: Any, hint: str
) -> None:
    training = tiny_screen.copy()
    training.var_names = [ours(name) for name in training.var_names]
    model = train_tiny(training, max_epochs=0)
    adata = renamed(tiny_screen, theirs)
    with pytest.raises(InputError, match=rf"40 of them differ in {hint}") as caught:
        model.predict(adata, perturbations=["A"])
    exec(str(caught.value).split("as the model does: ")[1], {"adata": adata, "model": model})
    assert same(
        model.predict(adata, perturbations=["A"]),
        model.predict(training[:60].copy(), perturbations=["A"]),
    )


def test_symbols_against_ensembl(tiny_model: Any, tiny_screen: ad.AnnData) -> None:
    query = renamed(tiny_screen, lambda name: f"ENSG{int(name[4:]):011d}")
    with pytest.raises(InputError, match="gene symbols and the data by Ensembl ids"):
        tiny_model.predict(query, perturbations=["A"])


def test_missing_genes_are_imputed_and_flagged(
    tiny_model: Any, tiny_screen: ad.AnnData, tmp_path: Path
) -> None:
    query = tiny_screen[:120, tiny_screen.var_names[4:]].copy()
    with pytest.raises(InputError, match=r"31 of the 40 genes .* more of them were measured\.$"):
        tiny_model.predict(tiny_screen[:, :9].copy(), perturbations="A")  # too few to impute from
    with pytest.raises(InputError, match=r"4 of the 40 genes .*missing=\"impute\""):
        tiny_model.predict(query, perturbations=["A"])
    with pytest.warns(UserWarning, match=r"4 of 40 genes were not measured .* of a cell's counts"):
        found = tiny_model.predict(query, perturbations=["A"], missing="impute")
    whole = tiny_model.predict(tiny_screen[:120].copy(), perturbations=["A"])
    assert found.var_names.tolist() == whole.var_names.tolist()
    assert found.uns["celldit"]["imputed"]["genes"] == [f"gene{i}" for i in range(4)]
    counts = tiny_screen.X.toarray()
    control = (tiny_screen.obs["perturbation"] == "control").to_numpy()
    share = counts[control][:, :4].sum() / counts[control].sum()
    assert found.obs["imputed_share"].mean() == pytest.approx(share, rel=0.15)
    # Sizes are those of whole cells, and the measured genes are predicted about as before.
    ratio = found.obs["size_factor"].sum() / whole.obs["size_factor"].sum()
    assert ratio == pytest.approx(1, abs=0.05)
    ours, theirs = (x.layers["mean"].toarray().mean(axis=0) for x in (found, whole))
    assert np.corrcoef(np.log1p(ours), np.log1p(theirs))[0, 1] > 0.99
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # A cell's draws are its own, whatever is asked for beside it.
        some = tiny_model.predict(query[12:60].copy(), perturbations=["A"], missing="impute")
        rows = found.obs["control_cell"].isin(some.obs["control_cell"]).to_numpy()
        assert some.obs["size_factor"].tolist() == found.obs["size_factor"][rows].tolist()
        query.write_h5ad(tmp_path / "q.h5ad")
        stored = tiny_model.predict(
            str(tmp_path / "q.h5ad"),
            perturbations=["A", "B"],
            missing="impute",
            out=tmp_path / "out.h5ad",
        )
    assert same(stored[stored.obs["perturbation"] == "A"].to_memory(), found)
    assert stored.obs["imputed_share"].notna().all()
    assert list(stored.uns["celldit"]["imputed"]["genes"]) == [f"gene{i}" for i in range(4)]


def test_what_cannot_be_imputed(tiny_model: Any, tiny_screen: ad.AnnData) -> None:
    few = tiny_screen[:60, tiny_screen.var_names[25:]].copy()
    with pytest.raises(InputError, match="more than can be filled in"):
        tiny_model.predict(few, perturbations=["A"], missing="impute")
    with pytest.raises(InputError, match='must be "refuse" or "impute"'):
        tiny_model.predict(few, perturbations=["A"], missing="zero")
    other = renamed(tiny_screen, lambda name: f"other-{name}")
    with pytest.raises(CellditError, match="not in"):
        tiny_model.predict(other, perturbations=["A"], missing="impute")
    whole = tiny_model.predict(tiny_screen[:60].copy(), perturbations=["A"], missing="impute")
    assert "imputed_share" not in whole.obs


KINDS = ["Antibody Capture", "CRISPR Guide Capture", "Multiplexing Capture", "Peaks", "Custom"]
KINDS += ["ADT", "HTO", "protein", "prot", "atac", "Antibody-Derived Tags", "VDJ"]


@pytest.mark.parametrize("column", ["feature_types", "feature_type", "modality"])
@pytest.mark.parametrize("kind", KINDS)
def test_features_that_are_no_genes(
    tiny_screen: ad.AnnData, tmp_path: Path, column: str, kind: str
) -> None:
    adata = tiny_screen
    adata.var[column] = ["Gene Expression"] * 35 + [kind] * 5
    with pytest.raises(InputError, match=rf"5 of 40 features are no genes .5 of '{kind}'") as said:
        cd.CellDiT.setup_anndata(adata, **SETUP)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    with pytest.raises(InputError, match="features are no genes"):
        open_store(tmp_path / "cells.h5ad", **SETUP)
    scope = {"adata": adata}
    exec(str(said.value).split("select the genes: ")[1], scope)
    cd.CellDiT.setup_anndata(scope["adata"], **SETUP)
    assert scope["adata"].n_vars == 35
    adata.var[column] = kind
    with pytest.raises(InputError, match="no gene among them"):
        cd.CellDiT.setup_anndata(adata, **SETUP)


@pytest.mark.parametrize("kind", ["Gene Expression", "protein_coding", "lncRNA", "rna", "GEX", ""])
def test_kinds_of_genes_stay_accepted(tiny_screen: ad.AnnData, kind: str) -> None:
    tiny_screen.var["feature_types"] = kind
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cd.CellDiT.setup_anndata(tiny_screen, **SETUP)


@pytest.mark.parametrize(
    ("kind", "own"),
    [
        ("antibodies", ["CD3_TotalA", "ADT_CD4"]),
        ("guides", ["NT_g1", "STAT1-sg2", "sgIRF1_1", "IFNGR1g2", "non-targeting-3"]),
    ],
)
def test_names_of_antibodies_and_guides_are_told(
    tiny_screen: ad.AnnData, kind: str, own: list[str]
) -> None:
    genes = tiny_screen.var_names[: -len(own)].tolist()
    genes[:3] = "Abcg2", "NKX2-1", "sgk-1"
    tiny_screen.var_names = [*genes, *own]
    said = f"{len(own)} of 40 features are named like {kind}"
    with pytest.warns(UserWarning, match=said) as caught:
        check_are_genes(tiny_screen.var)
    scope = {"adata": tiny_screen}
    exec(str(caught[0].message).split("select the genes: ")[1], scope)
    assert scope["adata"].var_names.tolist() == genes


def test_genes_at_hand_that_controls_do_not_express(
    tiny_screen: ad.AnnData, train_tiny: Any
) -> None:
    """They do not tell how large a cell is, so its size is not made infinite."""
    donor, label = tiny_screen.obs["donor"], tiny_screen.obs["perturbation"]
    counts = tiny_screen.X.tolil()
    counts[np.flatnonzero((donor == "d1") & (label == "control")), :20] = 0
    tiny_screen.X = sparse.csr_matrix(counts)
    model = train_tiny(tiny_screen, max_epochs=0)
    query = tiny_screen[(donor == "d1") & (label == "A"), :20].copy()
    del query.obs["perturbation"]
    with pytest.warns(UserWarning, match="20 of 40 genes were not measured"):
        predicted = model.predict(query, perturbations="A", missing="impute")
    largest = query.X.sum(axis=1).max()
    assert predicted.obs["size_factor"].max() <= 10 * largest
