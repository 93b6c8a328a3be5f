"""Data whose genes are not in the gene sets get modules, and are told so."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import anndata as ad
import pytest

import celldit as cd
from celldit.data import Cells, Fields
from celldit.data.symbols import orthologs
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


@pytest.mark.parametrize("species", ["ENSG", "ENSMUSG"])
@pytest.mark.parametrize("ignore_case", [True, False])
def test_ensembl_ids_find_the_sets_of_their_symbols(
    papalexi: ad.AnnData, species: str, ignore_case: bool
) -> None:
    id_of = {s: i for i, s in orthologs().of_id.items() if i.startswith(species)}
    known = papalexi[:, [gene in id_of for gene in papalexi.var_names]]
    assert known.n_vars > 150
    by_symbol = GeneSets().fit(cells_named(known, str))
    cells = cells_named(known, lambda gene: f"{id_of[gene]}.4")
    by_id = GeneSets(ignore_case=ignore_case).fit(cells)
    assert by_id.token_names == by_symbol.token_names
    # Genes in no set form modules in the order of their names.
    of_sets = [name for name in by_symbol.report().index if not name.startswith("remainder")]
    assert by_id.report().loc[of_sets].equals(by_symbol.report().loc[of_sets])
    assert isinstance(default_tokenizer(cells), GeneSets)


def test_ids_that_nobody_knows_take_modules_with_a_warning(papalexi: ad.AnnData) -> None:
    names = iter(range(10_000))
    cells = cells_named(papalexi, lambda gene: f"ENSG{next(names):011d}")
    with pytest.warns(UserWarning, match="modules"):
        assert isinstance(default_tokenizer(cells), Modules)
