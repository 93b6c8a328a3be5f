"""Odd but right inputs go the whole way: set up, trained, predicted; none is refused.

Each says what it is warned of, if anything; another warning, or a refusal, fails.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from celldit import CellDiT, tl
from celldit.errors import InputError

KEY = "perturbation"


@dataclass(frozen=True)
class Odd:
    """What is odd about the cells, how they are set up, asked for, and what is said of them."""

    change: Callable[[ad.AnnData], ad.AnnData | None] = lambda adata: None
    setup: dict[str, Any] = field(default_factory=dict)
    asked: str = "A"
    predict: dict[str, Any] = field(default_factory=dict)
    said: tuple[str, ...] = ()


def relabelled(names: dict[str, Any]) -> Callable[[ad.AnnData], None]:
    def change(adata: ad.AnnData) -> None:
        adata.obs[KEY] = [names.get(label, label) for label in adata.obs[KEY]]

    return change


def genes(name: Callable[[int], str]) -> Callable[[ad.AnnData], None]:
    def change(adata: ad.AnnData) -> None:
        adata.var_names = [name(i) for i in range(adata.n_vars)]

    return change


def matrix(make: Callable[[Any], Any]) -> Callable[[ad.AnnData], None]:
    def change(adata: ad.AnnData) -> None:
        adata.X = make(adata.X)

    return change


def column(name: str, values: Callable[[ad.AnnData], Any]) -> Callable[[ad.AnnData], None]:
    def change(adata: ad.AnnData) -> None:
        adata.obs[name] = values(adata)

    return change


def both(*changes: Callable[[ad.AnnData], Any]) -> Callable[[ad.AnnData], None]:
    def change(adata: ad.AnnData) -> None:
        for one in changes:
            one(adata)

    return change


def fractions_in_x(adata: ad.AnnData) -> None:
    adata.layers["umis"] = adata.X.copy()
    adata.raw = adata.copy()
    adata.X = sparse.csr_matrix(np.log1p(adata.X.toarray()))
    adata.obsm["X_pca"] = np.zeros((adata.n_obs, 2))
    adata.uns["log1p"] = {"base": None}


def kept(where: Callable[[ad.AnnData], Any]) -> Callable[[ad.AnnData], ad.AnnData]:
    return lambda adata: adata[np.asarray(where(adata))].copy()


def is_label(adata: ad.AnnData, *labels: str) -> Any:
    return adata.obs[KEY].isin(labels)


def two_of_c(adata: ad.AnnData) -> Any:
    here = is_label(adata, "C").to_numpy()
    return ~here | (np.cumsum(here) <= 2)


def empty_genes(counts: Any) -> Any:
    table = counts.toarray()
    table[:, 5:9] = 0
    return sparse.csr_matrix(table)


def one_gene_in_all(counts: Any) -> Any:
    table = counts.toarray()
    table[:, 3] = 1
    return sparse.csr_matrix(table)


def dose(adata: ad.AnnData) -> Any:
    return np.where(is_label(adata, "control"), 0.0, 1.0 + np.arange(adata.n_obs) % 2)


def doses_in_order(adata: ad.AnnData) -> Any:
    of = {"control": "0", "A": "0.5", "B": "1", "C": "2", "A+B": "0.5+1"}
    return [of[label] for label in adata.obs[KEY]]


def minutes(adata: ad.AnnData) -> Any:
    return np.where(is_label(adata, "control"), 0, 5 + 85 * (np.arange(adata.n_obs) // 6 % 2))


def no_controls_in_d3(adata: ad.AnnData) -> Any:
    return ~(is_label(adata, "control") & (adata.obs["donor"] == "d3"))


def wide_indices(counts: Any) -> Any:
    wide = counts.copy()
    wide.indices, wide.indptr = wide.indices.astype("i8"), wide.indptr.astype("i8")
    return wide


def unsorted(counts: Any) -> Any:
    rows = counts.tolil()[:, ::-1].tocsr()
    rows.indices, rows.has_sorted_indices = (rows.shape[1] - 1 - rows.indices).astype("i4"), False
    return rows


def explicit_zeros(counts: Any) -> Any:
    rows = counts.tocoo()
    ends = np.arange(10)
    data = np.r_[rows.data, np.zeros(10, dtype=rows.data.dtype)]
    # Entries that are given twice count together.
    return sparse.csr_matrix((data, (np.r_[rows.row, ends], np.r_[rows.col, ends])), rows.shape)


COVARIATES = {"covariate_keys": ["donor"]}
NUMBERED = {"control": 0, "A": 1, "B": 2, "C": 3, "A+B": 4}
HALLMARK = ["STAT1", "IRF1", "JAK2", "CD86", "MYC", "TNF", "IL6", "JUN", "FOS", "EGR1"]
# fmt: off
RIGHT: dict[str, Odd] = {
    "as most": Odd(setup=COVARIATES),
    "28 genes": Odd(lambda a: a[:, :28].copy(), COVARIATES),
    "two genes": Odd(lambda a: a[:, :2].copy()),
    "Ensembl ids": Odd(genes(lambda i: f"ENSG{i:011}"), COVARIATES),
    "versioned Ensembl ids": Odd(genes(lambda i: f"ENSG{i:011}.{i % 9 + 1}"), COVARIATES),
    "mouse genes": Odd(genes(lambda i: (HALLMARK[i] if i < 10 else f"Rik{i}").capitalize())),
    "genes named by numbers": Odd(genes(str)),
    "genes in unicode": Odd(genes(lambda i: f"IFN-β₁{i}")),
    "guides removed": Odd(lambda a: _without_guides(a), COVARIATES),
    "gene kinds given": Odd(lambda a: a.var.insert(0, "feature_types", "Gene Expression")),
    "whole-number labels": Odd(relabelled(NUMBERED), {"control": 0}, "1"),
    "float labels": Odd(relabelled({k: float(v) for k, v in NUMBERED.items()}),
                        {"control": 0.0}, "1"),
    "boolean labels": Odd(both(relabelled({}), column(KEY, lambda a: ~is_label(a, "control"))),
                          {"control": False}, "True"),
    "categorical labels": Odd(column(KEY, lambda a: pd.Categorical(a.obs[KEY]))),
    "categories that no cell has": Odd(column(KEY, lambda a: pd.Categorical(
        a.obs[KEY], categories=["never", "A", "B", "A+B", "C", "control"]))),
    "categories of numbers": Odd(both(relabelled(NUMBERED),
                                      column(KEY, lambda a: a.obs[KEY].astype("category"))),
                                 {"control": "0"}, "2"),
    "strings of pandas": Odd(column(KEY, lambda a: a.obs[KEY].astype("string"))),
    "labels in unicode": Odd(relabelled({"A": "IFN-β", "B": "干扰素", "A+B": "干扰素+IFN-β"}),
                             asked="IFN-β"),
    "commas in drug names": Odd(relabelled({"A": "2,4-D", "B": "N,N-DMT", "A+B": "2,4-D+N,N-DMT"}),
                                asked="2,4-D"),
    "brackets and another separator": Odd(relabelled({"A": "(+)-JQ1", "A+B": "(+)-JQ1;B"}),
                                          {"perturbation_sep": ";"}, "(+)-JQ1"),
    "another control": Odd(relabelled({"control": "non-targeting"}), {"control": "non-targeting"}),
    "a control with the separator": Odd(relabelled({"control": "NT+NT"}), {"control": "NT+NT"}),
    "several controls": Odd(relabelled({"C": "safe-targeting"}),
                            {"control": ["control", "safe-targeting"]}),
    "one condition": Odd(kept(lambda a: is_label(a, "control", "A")), COVARIATES),
    "pairs alone": Odd(kept(lambda a: is_label(a, "control", "A+B")), asked="A+B",
                       said=("labels are split at",)),
    "two cells of a condition": Odd(kept(two_of_c), COVARIATES, "C"),
    "a batch without controls": Odd(kept(no_controls_in_d3), COVARIATES,
                                  said=("control cells of their own",)),
    "one donor": Odd(kept(lambda a: a.obs["donor"] == "d1"), COVARIATES),
    "a donor of each cell's number": Odd(column("n", lambda a: np.arange(a.n_obs) // 6 % 2),
                                         {"covariate_keys": ["n"]}),
    "two covariates": Odd(column("lane", lambda a: pd.Categorical(np.arange(a.n_obs) % 7 % 2)),
                          {"covariate_keys": ["donor", "lane"]},
                          said=("too few for optimal transport",)),
    "a covariate with bars": Odd(column("donor", lambda a: "d | " + a.obs["donor"].astype(str)),
                                 COVARIATES),
    "a boolean covariate": Odd(column("old", lambda a: np.arange(a.n_obs) // 6 % 2 == 0),
                               {"covariate_keys": ["old"]}),
    "minutes as times": Odd(column("t", minutes), {"time_key": "t"}, predict={"time": 5},
                            said=("no controls of the same time",)),
    "times as text": Odd(column("t", lambda a: minutes(a).astype(str)), {"time_key": "t"},
                         predict={"time": 90}, said=("no controls of the same time",)),
    "dose 0 of controls": Odd(column("d", dose), {"dose_key": "d"}, predict={"dose": 1}),
    "doses of each part": Odd(column("d", doses_in_order), {"dose_key": "d"},
                              predict={"dose": 0.5}),
    "doses as categories": Odd(column("d", lambda a: pd.Categorical(dose(a))), {"dose_key": "d"},
                               predict={"dose": 2}),
    "library sizes": Odd(column("n", lambda a: 10.0 * a.X.sum(axis=1).A1),
                         {"size_factor_key": "n"}),
    "empty genes": Odd(matrix(empty_genes)),
    "a gene of one value": Odd(matrix(one_gene_in_all)),
    "layers and raw": Odd(fractions_in_x, {"counts_layer": "umis"}),
    "doubled names of cells": Odd(lambda a: setattr(a, "obs_names", ["cell"] * a.n_obs),
                                  said=("Observation names are not unique",)),
    "a view": Odd(lambda a: a[::-1, ::-1]),
    "by columns": Odd(matrix(sparse.csc_matrix)),
    "dense": Odd(matrix(lambda x: x.toarray())),
    "dense by columns": Odd(matrix(lambda x: np.asfortranarray(x.toarray()))),
    "a sparse array": Odd(matrix(sparse.csr_array)),
    "64-bit indices": Odd(matrix(wide_indices)),
    "unsorted rows": Odd(matrix(unsorted)),
    "zeros and doubles stored": Odd(matrix(explicit_zeros)),
    "read-only": Odd(lambda a: a.X.data.setflags(write=False)),
    **{kind: Odd(matrix(lambda x, kind=kind: x.astype(kind))) for kind in
       ("uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64")},
    "float16": Odd(matrix(lambda x: x.toarray().astype("float16"))),
}
# fmt: on


def _without_guides(adata: ad.AnnData) -> ad.AnnData:
    kinds = ["Gene Expression"] * 38 + ["CRISPR Guide Capture"] * 2
    adata.var["feature_types"] = pd.Categorical(kinds)
    return adata[:, adata.var["feature_types"] == "Gene Expression"].copy()


def said_during(use: Callable[[], Any]) -> tuple[Any, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = use()
    return found, [str(w.message) for w in caught if w.category is UserWarning]


def check_said(said: list[str], expected: tuple[str, ...]) -> None:
    """Each warning was expected, and each that was expected came."""
    unexpected = [text for text in said if not any(one in text for one in expected)]
    assert not unexpected
    assert all(any(one in text for text in said) for one in expected)


@pytest.mark.parametrize("what", RIGHT)
def test_odd_but_right_inputs_go_the_whole_way(
    what: str, simulate_screen: Any, train_tiny: Any
) -> None:
    odd = RIGHT[what]
    adata = simulate_screen(n_cells=144)
    changed = odd.change(adata)
    adata = adata if changed is None else changed

    def use() -> ad.AnnData:
        CellDiT.setup_anndata(adata, **{"perturbation_key": KEY, **odd.setup})
        model = train_tiny(adata, config={"new_cells": False})
        return model.predict(perturbations=odd.asked, **odd.predict)

    predicted, said = said_during(use)
    check_predicted(predicted)
    check_said(said, odd.said)


def check_predicted(predicted: ad.AnnData) -> None:
    assert predicted.n_obs > 0
    assert np.isfinite(predicted.X.data).all()
    assert predicted.layers["counts"].dtype == np.int32


def shards(adata: ad.AnnData, folder: Path) -> Path:
    folder.mkdir()
    for i in range(3):
        adata[i * 48 : (i + 1) * 48].copy().write_h5ad(folder / f"{i}.h5ad")
    return folder


def written(adata: ad.AnnData, path: Path, **options: Any) -> Path:
    adata.write_h5ad(path, **options)
    return path


def written_zarr(adata: ad.AnnData, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata.write_zarr(path)
    return path


def backed(adata: ad.AnnData, path: Path, make: Callable[[Any], Any] = lambda x: x) -> ad.AnnData:
    adata.X = make(adata.X)
    return ad.read_h5ad(written(adata, path), backed="r")


FILES: dict[str, Callable[[ad.AnnData, Path], Any]] = {
    "backed": lambda a, d: backed(a, d / "a.h5ad"),
    "backed by columns": lambda a, d: backed(a, d / "a.h5ad", sparse.csc_matrix),
    "backed and dense": lambda a, d: backed(a, d / "a.h5ad", lambda x: x.toarray()),
    "h5ad": lambda a, d: written(a, d / "a.h5ad"),
    "h5ad, gzip": lambda a, d: written(a, d / "a.h5ad", compression="gzip"),
    "h5ad, lzf": lambda a, d: written(a, d / "a.h5ad", compression="lzf"),
    "h5ad, path as text": lambda a, d: str(written(a, d / "ä b.h5ad")),
    "zarr": lambda a, d: written_zarr(a, d / "a.zarr"),
    "shards": lambda a, d: shards(a, d / "store"),
}


@pytest.mark.parametrize("what", FILES)
def test_files_of_every_kind_go_the_whole_way(
    what: str, simulate_screen: Any, train_tiny: Any, tmp_path: Path
) -> None:
    adata = simulate_screen(n_cells=144)
    adata.obs[KEY] = pd.Categorical(
        adata.obs[KEY], categories=["C", "never", "control", "A", "B", "A+B"]
    )
    CellDiT.setup_anndata(adata, perturbation_key=KEY, **COVARIATES)
    in_memory = train_tiny(adata, max_epochs=0).predict_effects("A")

    def use() -> Any:
        source = FILES[what](adata, tmp_path)
        model = train_tiny(source, max_epochs=0, config={"new_cells": False})
        check_predicted(model.predict(source, perturbations="A"))
        return model.predict_effects("A")

    effects, said = said_during(use)
    check_said(said, ())
    np.testing.assert_allclose(effects["log_fold_change"], in_memory["log_fold_change"], atol=1e-6)


def test_controls_only_are_for_generation_only(simulate_screen: Any, train_tiny: Any) -> None:
    adata = simulate_screen(n_cells=144, labels=("control",))
    CellDiT.setup_anndata(adata, perturbation_key=KEY)
    model = train_tiny(adata)
    assert model.generate(5).n_obs == 5
    with pytest.raises(InputError, match="so it can generate cells but knows no perturbation"):
        model.predict(perturbations="A")


def test_a_panel_of_one_gene_has_effects_without_gaps(
    simulate_screen: Any, train_tiny: Any
) -> None:
    # Its share of all counts is one whatever is done.
    adata = simulate_screen(n_cells=144)[:, :1].copy()
    adata.X = adata.X + sparse.csr_matrix(np.ones(adata.shape))
    CellDiT.setup_anndata(adata, perturbation_key=KEY)
    table = tl.effects(adata, train_tiny(adata, max_epochs=0), "A")
    assert not table.isna().any().any()
    assert table["z"].eq(0).all()
