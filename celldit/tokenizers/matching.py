"""Finding the genes of gene sets among the genes of the data, and saying why they are not there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from celldit.data.genes import ENSEMBL, mostly
from celldit.data.symbols import human_symbols
from celldit.errors import examples

_ENTREZ = re.compile(r"\d+")


@dataclass(frozen=True, eq=False)
class SetMatch:
    """Where the genes of one set are in the data.

    Parameters
    ----------
    n_listed
        Number of genes that the set lists.
    found
        int64, indices of its genes in the data, sorted.
    n_case_only
        Number of listed genes that are in the data in another case only, and were not matched.
    """

    n_listed: int
    found: np.ndarray
    n_case_only: int


def match_sets(
    sets: Mapping[str, Sequence[str]], genes: Sequence[str], *, ignore_case: bool
) -> dict[str, SetMatch]:
    """Look up the distinct genes of each set, in the same order.

    With `ignore_case` ``Stat1`` is ``STAT1``, and orthologs of mouse and human that are called by
    other words are one gene (:func:`celldit.data.symbols.human_symbols`); genes of the data that
    are then the same all match. So they do where the data have Ensembl ids and the sets symbols.
    """
    exact = {gene: [index] for index, gene in enumerate(genes)}
    folded: dict[str, list[int]] = {}
    for index, gene in enumerate(human_symbols(genes)):
        folded.setdefault(gene, []).append(index)
    listed_genes = list(dict.fromkeys(gene for listed in sets.values() for gene in listed))
    symbol_of = dict(zip(listed_genes, human_symbols(listed_genes), strict=True))
    by_symbol = ignore_case or (mostly(ENSEMBL, genes) and not mostly(ENSEMBL, listed_genes))
    matches = {}
    for name, listed in sets.items():
        distinct = dict.fromkeys(symbol_of[gene] if by_symbol else gene for gene in listed)
        table = folded if by_symbol else exact
        found = {index for gene in distinct for index in table.get(gene, ())}
        other_case = sum(
            gene not in table and symbol_of.get(gene, gene) in folded for gene in distinct
        )
        matches[name] = SetMatch(
            len(distinct), np.array(sorted(found), dtype=np.int64), int(other_case)
        )
    return matches


def explain_mismatch(set_genes: Iterable[str], genes: Sequence[str]) -> str:
    """Show three genes of each side and guess why they do not match.

    It is part of a sentence, with what to type instead when the cause can be guessed.
    """
    listed = list(dict.fromkeys(set_genes))
    of_sets, of_data = examples(listed[:3]), examples(genes[:3])
    shown = f"the sets name genes like {of_sets}, the data like {of_data}"
    return f"{shown}{_guess(listed, genes)}"


def _guess(listed: Sequence[str], genes: Sequence[str]) -> str:
    data_is_ensembl, sets_are_ensembl = mostly(ENSEMBL, genes), mostly(ENSEMBL, listed)
    if data_is_ensembl and not sets_are_ensembl:
        return (
            ": this looks like Ensembl ids against gene symbols, so put symbols into "
            "adata.var_names"
        )
    if sets_are_ensembl and not data_is_ensembl:
        return ": this looks like gene symbols against Ensembl ids, so use gene sets of symbols"
    if data_is_ensembl and sets_are_ensembl:
        if {g.split(".")[0] for g in listed} & {g.split(".")[0] for g in genes}:
            return ": the Ensembl ids differ in their version suffix, so cut it off adata.var_names"
        return ""
    if mostly(_ENTREZ, listed) != mostly(_ENTREZ, genes):
        return ": this looks like Entrez ids against gene symbols, so use symbols on both sides"
    folded = {gene.upper() for gene in listed} & {gene.upper() for gene in genes}
    exact = set(listed) & set(genes)
    if len(folded) > 2 * len(exact):
        return (
            f": this looks like mouse-style case against human-style ({len(folded)} genes match "
            "when case is ignored), so pass GeneSets(ignore_case=True)"
        )
    return ""
