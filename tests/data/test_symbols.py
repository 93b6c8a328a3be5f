from __future__ import annotations

import pytest

from celldit.data.symbols import (
    columns_of,
    human_symbols,
    is_mouse,
    mouse_symbol,
    orthologs,
    shown_symbol,
)
from celldit.datasets import gene_set_file
from celldit.tokenizers.gmt import read_gmt


@pytest.mark.parametrize(
    "names",
    [
        ["TP53", "STAT1", "TRAV1"],
        ["ENSG00000141510.18", "ENSG00000115415", "TRAV1"],
        ["Trp53", "Stat1", "Trav1"],
        ["ENSMUSG00000059552.14", "ENSMUSG00000026104", "Trav1"],
        [" trp53 ", "stat1", "trav1"],
        ["trp53", "Stat1", "TRAV1"],
    ],
)
def test_one_gene_has_one_symbol(names: list[str]) -> None:
    assert human_symbols(names) == ["TP53", "STAT1", "TRAV1"]


def test_human_names_are_not_taken_for_those_of_mouse() -> None:
    # FCGR4 is no human gene, but as a mouse's it would be FCGR3A.
    assert human_symbols(["FCGR4", "STAT1"]) == ["FCGR4", "STAT1"]


def test_ids_that_are_not_in_the_table_stay() -> None:
    assert human_symbols(["ENSG99999999999.1", "guide-7"]) == ["ENSG99999999999", "GUIDE-7"]


def test_there_and_back() -> None:
    table = orthologs()
    assert human_symbols([mouse_symbol(gene) for gene in table.to_mouse]) == [*table.to_mouse]
    assert mouse_symbol("STAT1") == "Stat1"


def test_most_genes_of_the_bundled_sets_have_an_id() -> None:
    known = set(orthologs().of_id.values())
    for name in ("hallmark", "reactome", "go"):
        genes = {gene for one in read_gmt(gene_set_file(name)).values() for gene in one}
        assert len(genes & known) > 0.93 * len(genes), name


def test_which_names_are_those_of_mouse() -> None:
    assert is_mouse(["Stat1", "Actb", "ENSMUSG00000026104"])
    assert not is_mouse(["STAT1", "ACTB", "C1orf43", "ENSG00000115415"])
    assert not is_mouse([])


def test_targets_are_found_among_genes_of_other_names() -> None:
    genes = ["ENSG00000115415.19", "ENSG00000141510", "guide", "IRF1"]
    found = columns_of(["STAT1", "TP53", "guide", "DMSO", "IRF1"], genes)
    assert found == {"STAT1": 0, "TP53": 1, "guide": 2, "IRF1": 3}
    assert columns_of(["Trp53"], ["TP53"]) == {"Trp53": 0}


def test_a_target_that_could_be_two_genes_is_none() -> None:
    twice = ["ENSG00000115415", "STAT1-x", "ENSG00000115415.19"]
    assert columns_of(["STAT1", "STAT1-x"], twice) == {"STAT1-x": 1}


def test_ids_are_shown_by_the_symbols_of_their_species() -> None:
    names = ["ENSG00000141510.18", "ENSMUSG00000059552", "ENSMUSG00000026104", "TP53", "ENSG1"]
    assert [shown_symbol(name) for name in names] == ["TP53", "Trp53", "Stat1", "TP53", "ENSG1"]
