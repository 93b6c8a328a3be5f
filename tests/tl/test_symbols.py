"""Genes that are Ensembl ids are shown by symbols: in tables, for enrichment, and on the page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import celldit as cd
from celldit.errors import UnknownNameError


@pytest.fixture(scope="module")
def by_ids(_tiny_screen: ad.AnnData, train_tiny: Callable[..., Any]) -> tuple[ad.AnnData, Any]:
    """A screen whose genes are ids, with their symbols in a column of ``var``."""
    adata = _tiny_screen.copy()
    adata.var["feature_name"] = [f"SYM{g}" for g in range(adata.n_vars)]
    adata.var_names = [f"ENSG{990000 + g:011d}" for g in range(adata.n_vars)]
    return adata, train_tiny(adata)


def test_effects_bring_symbols_along(by_ids: tuple[ad.AnnData, Any]) -> None:
    adata, model = by_ids
    table = cd.tl.effects(adata.copy(), model, ["A", "B"], contexts="d1")
    expected = adata.var["feature_name"]
    assert list(table["symbol"]) == list(expected[table["gene"]])
    figure = cd.pl.volcano(table, "A", return_fig=True)
    assert any(text.get_text().startswith("SYM") for text in figure.axes[0].texts)


def test_effects_have_no_symbols_where_genes_are_symbols(
    tiny_screen: ad.AnnData, tiny_model: Any
) -> None:
    tiny_screen.var["feature_name"] = "x"
    assert "symbol" not in cd.tl.effects(tiny_screen, tiny_model, "A")


def test_enrichment_gets_symbols(by_ids: tuple[ad.AnnData, Any]) -> None:
    adata, model = by_ids
    table = cd.tl.effects(adata.copy(), model, ["A", "B"], contexts="d1")
    ranked = cd.tl.ranked_genes(table)
    assert sorted(ranked.columns) == sorted(adata.var["feature_name"])
    own = table[table["perturbation"] == "B"].set_index("symbol")["z"]
    pd.testing.assert_series_equal(ranked.loc["B", own.index], own, check_names=False)
    others = {gene: f"other {gene}" for gene in adata.var_names}
    assert ranked.shape == cd.tl.ranked_genes(table, gene_symbols=others).shape
    assert cd.tl.ranked_genes(table, gene_symbols=others).columns.str.startswith("other").all()
    with pytest.raises(UnknownNameError, match="symbols"):
        cd.tl.ranked_genes(table, gene_symbols="symbols")


def test_measured_answers_bring_symbols_along(by_ids: tuple[ad.AnnData, Any]) -> None:
    adata = by_ids[0].copy()
    expected = adata.var["feature_name"]
    cd.tl.interactions(adata)
    drug = adata[adata.obs["perturbation"].isin(["control", "A"]).to_numpy()].copy()
    is_a = (drug.obs["perturbation"] == "A").to_numpy()
    drug.obs["um"] = np.where(is_a, np.cumsum(is_a) % 3 + 1.0, 0.0)
    cd.CellDiT.setup_anndata(drug, perturbation_key="perturbation", dose_key="um")
    curves = cd.tl.dose_response(drug)
    points = drug.uns["dose_response_points"]
    for table in (adata.uns["interactions_genes"], curves, points):
        assert list(table["symbol"]) == list(expected[table["gene"]])
    ax = cd.pl.dose_response(points, curves=curves, show=False)
    assert ax.get_legend_handles_labels()[1][0].startswith("SYM")


def test_programs_name_genes_by_symbols(by_ids: tuple[ad.AnnData, Any]) -> None:
    adata, model = by_ids
    genes = cd.tl.programs(adata.copy(), model, "A")["genes"]
    assert genes.str.startswith("SYM").all()


def test_the_page_shows_symbols(by_ids: tuple[ad.AnnData, Any], tmp_path: Path) -> None:
    adata, model = by_ids
    page = cd.report.explore(adata, model, tmp_path / "page.html").read_text("utf-8")
    found = re.search(r'<script id="content" type="application/json">(.*?)</script>', page, re.S)
    assert found is not None
    content = json.loads(found[1])
    assert content["symbols"] == list(adata.var["feature_name"][content["genes"]])
