from __future__ import annotations

import warnings
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import celldit as cd
from celldit.data.symbols import orthologs
from celldit.effects.tables.matching import match_genes, match_names, match_tables, parts_of
from celldit.effects.tables.reading import read_table
from celldit.effects.tables.table import EffectTable
from celldit.errors import InputError

SYMBOLS = tuple(f"GENE{i}" for i in range(12))


def table(genes: tuple[str, ...], perturbations: tuple[str, ...] = ("A", "B")) -> EffectTable:
    obs = pd.DataFrame({"perturbation": perturbations, "context": "", "direction": ""})
    values = np.zeros((len(obs), len(genes)), np.float32)
    return EffectTable(obs, genes, values, values + 1)


def test_order_does_not_matter() -> None:
    order = np.random.default_rng(0).permutation(12)
    theirs, own = match_genes("t", table(tuple(SYMBOLS[i] for i in order)), SYMBOLS)
    assert [order[i] for i in theirs] == list(range(12)) == own.tolist()


def test_versions_and_aliases() -> None:
    ids = tuple(f"ENSG{i:011d}" for i in range(12))
    versioned = table(tuple(f"{name}.3" for name in ids))
    assert len(match_genes("t", versioned, ids)[1]) == 12
    aliased = replace(versioned, aliases={"symbol": SYMBOLS})
    assert len(match_genes("t", aliased, SYMBOLS)[1]) == 12


def test_another_species_is_named() -> None:
    mouse = tuple(name.capitalize() for name in SYMBOLS)
    with pytest.warns(UserWarning, match="another species"):
        assert len(match_genes("t", table(mouse), SYMBOLS)[1]) == 12


def test_orthologs_of_another_name_and_ids_are_matched() -> None:
    human = ("TP53", "HPRT1", "CA2", "TUBB", "TXN", "FASLG", "GPI", "STAT1", "IRF1", "JAK2")
    mouse = ("Trp53", "Hprt", "Car2", "Tubb5", "Txn1", "Fasl", "Gpi1", "Stat1", "Irf1", "Jak2")
    with pytest.warns(UserWarning, match="another species"):
        theirs, own = match_genes("t", table(mouse), human)
    assert theirs.tolist() == own.tolist() == list(range(10))
    ids = {symbol: name for name, symbol in orthologs().of_id.items() if "MUS" not in name}
    theirs, own = match_genes("t", table(tuple(f"{ids[gene]}.2" for gene in human)), human)
    assert theirs.tolist() == own.tolist() == list(range(10))
    assert match_names(["Trp53", "Stat1"], ["STAT1", "TP53"]) == {"Trp53": "TP53", "Stat1": "STAT1"}


def test_few_genes_are_told() -> None:
    many = tuple(f"OTHER{i}" for i in range(20))
    with pytest.warns(UserWarning, match="12 of the 32 genes"):
        match_genes("t", table(SYMBOLS), SYMBOLS + many)
    with pytest.raises(InputError, match="shares 0 of the 12 genes"):
        match_genes("t", table(many), SYMBOLS)


def test_swapped_axes_are_told() -> None:
    with pytest.raises(InputError, match="transpose"):
        match_genes("t", table(("A", "B", "C"), SYMBOLS), SYMBOLS)


def test_ambiguous_names_are_not_matched() -> None:
    doubled = ("gene0", "GENE0", *SYMBOLS[1:])
    with pytest.warns(UserWarning, match="another species"):
        theirs, own = match_genes("t", table(doubled), tuple(name.lower() for name in SYMBOLS))
    assert 0 not in own.tolist() or doubled[theirs[0]] == "gene0"


def test_perturbations_take_the_spelling_of_the_model() -> None:
    assert match_names(["Stat1", "JAK2", "NEW"], ["STAT1", "JAK2"]) == {
        "Stat1": "STAT1", "JAK2": "JAK2", "NEW": "NEW",
    }  # fmt: skip


def test_the_logarithm_is_asked_for_where_nothing_shows_it() -> None:
    unsaid = replace(table(SYMBOLS), log="")
    with pytest.raises(InputError, match="base of 2"):
        match_tables({"t": unsaid}, SYMBOLS, ("Z",), "+")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = match_tables({"t": unsaid}, SYMBOLS, ("A",), "+")
        in_two = match_tables({"t": replace(unsaid, log="2")}, SYMBOLS, (), "+")
    assert found["t"].factor == 1
    assert in_two["t"].factor == pytest.approx(np.log(2))


def test_missing_errors_are_told() -> None:
    with pytest.warns(UserWarning, match="no standard errors"):
        match_tables({"t": replace(table(SYMBOLS), errors=None)}, SYMBOLS, ("A",), "+")


def screen_of(labels: tuple[str, ...], sep: str) -> ad.AnnData:
    """Sixty cells of each label, and of controls."""
    obs = pd.DataFrame({"perturbation": np.repeat(["control", *labels], 60)})
    obs.index = obs.index.astype(str)
    counts = np.random.default_rng(0).poisson(5.0, (len(obs), len(SYMBOLS)))
    adata = ad.AnnData(sparse.csr_matrix(counts), obs, pd.DataFrame(index=list(SYMBOLS)))
    cd.CellDiT.setup_anndata(adata, perturbation_key="perturbation", perturbation_sep=sep)
    return adata


@pytest.mark.parametrize("sep", ["+", "|", "__"])
@pytest.mark.parametrize("reader", ["+", "|", "_", "-"])
def test_tables_are_understood_whatever_joins_labels_in_either_screen(sep, reader) -> None:
    names = ("A", "HLA-A", "B_2")
    made = cd.pp.effect_table(screen_of((*names, f"A{sep}HLA-A", f"A{sep}B_2"), sep))
    assert {"A+HLA-A", "A+B_2"} <= set(made.obs["perturbation"])
    keys = match_tables({"t": read_table(made)}, SYMBOLS, names, reader)["t"].keys
    assert set(keys) == {("A",), ("HLA-A",), ("B_2",), ("A", "HLA-A"), ("A", "B_2")}


def test_names_that_hold_a_plus_are_not_torn() -> None:
    made = cd.pp.effect_table(screen_of(("CD4+", "B", "CD4+|B"), "|"))
    assert made.uns["effect_table"]["sep"] == "|"
    for reader in ("+", "|"):
        keys = match_tables({"t": read_table(made)}, SYMBOLS, ["B"], reader)["t"].keys
        assert set(keys) == {("CD4+",), ("B",), ("B", "CD4+")}


@pytest.mark.parametrize("written", ["A+B", "A|B", "A_B", "A + B"])
@pytest.mark.parametrize("reader", ["+", "|"])
def test_tables_that_do_not_say_what_joins_labels(written, reader) -> None:
    """Written by others, or before it was said."""
    given = table(SYMBOLS, ("A", written, "HLA-C", "A_long_name"))
    assert parts_of(given, ["B"], reader) == [["A"], ["A", "B"], ["HLA-C"], ["A_long_name"]]
