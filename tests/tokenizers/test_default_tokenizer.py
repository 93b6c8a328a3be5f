"""Data whose genes are not in the gene sets get modules, and are told so."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import anndata as ad
import pytest

import celldit as cd
from celldit.data import Cells, Fields
from celldit.tokenizers import GeneSets, Modules, default_tokenizer


def cells_named(papalexi: ad.AnnData, rename: Callable[[str], str]) -> Cells:
    adata = papalexi[:60].copy()
    adata.var_names = [rename(gene) for gene in adata.var_names]
    cd.CellDiT.setup_anndata(adata, size_factor_key="total_umis")
    return Cells.from_anndata(adata, Fields.from_anndata(adata))


@pytest.fixture(scope="module")
def papalexi() -> ad.AnnData:
    return cd.datasets.papalexi()


@pytest.mark.parametrize("rename", [str, str.capitalize])
def test_human_and_mouse_symbols_take_gene_sets(
    papalexi: ad.AnnData, rename: Callable[[str], str]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert isinstance(default_tokenizer(cells_named(papalexi, rename)), GeneSets)


def test_ensembl_ids_take_modules_with_a_warning(papalexi: ad.AnnData) -> None:
    names = iter(range(10_000))
    cells = cells_named(papalexi, lambda gene: f"ENSG{next(names):011d}")
    with pytest.warns(UserWarning, match="modules"):
        assert isinstance(default_tokenizer(cells), Modules)
