"""Finding the genes of gene sets among the genes of the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


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

    With `ignore_case` ``Stat1`` is ``STAT1``; genes of the data that differ in case only then all
    match.
    """
    exact = {gene: [index] for index, gene in enumerate(genes)}
    folded: dict[str, list[int]] = {}
    for index, gene in enumerate(genes):
        folded.setdefault(gene.upper(), []).append(index)
    matches = {}
    for name, listed in sets.items():
        distinct = dict.fromkeys(gene.upper() if ignore_case else gene for gene in listed)
        table = folded if ignore_case else exact
        found = {index for gene in distinct for index in table.get(gene, ())}
        other_case = sum(gene not in table and gene.upper() in folded for gene in distinct)
        matches[name] = SetMatch(
            len(distinct), np.array(sorted(found), dtype=np.int64), int(other_case)
        )
    return matches
