"""Tokens from known gene sets."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd

from celldit.arguments import check_whole
from celldit.data.genes import check_unique_genes, explain_mismatch, kind_of
from celldit.data.store import CellStore
from celldit.data.symbols import human_symbols
from celldit.datasets import gene_set_file
from celldit.errors import InputError
from celldit.tokenizers.balanced import balanced_modules
from celldit.tokenizers.base import stored
from celldit.tokenizers.canonical import SortedExpression, sorted_expression
from celldit.tokenizers.eigengenes import GroupTokenizer, fit_eigengenes
from celldit.tokenizers.gmt import check_sets, read_gmt


class GeneSets(GroupTokenizer):
    """One token per gene set, its value the set's eigengenes; the other genes form modules.

    A gene that is in many sets counts in each of them. Genes that are in no set are gathered in
    modules of about ``remainder_size`` genes (see :mod:`celldit.tokenizers.balanced`), so that no
    gene is lost. What a token's value is, is told in :mod:`celldit.tokenizers.eigengenes`.

    Parameters
    ----------
    gmt
        A GMT file, plain or gzipped, or the genes of each set by its name; None for the 50 hallmark
        sets of MSigDB (Liberzon et al. 2015, Cell Systems 1:417) that come with the package.
    min_size, max_size
        Sets that list fewer or more genes are left out.
    min_overlap
        Sets with fewer genes in the data are left out.
    n_values
        Number of eigengenes ``V`` of each token; a token of fewer genes has zeros in the others.
    remainder_size
        Number of genes that a module of the genes in no set should have, at most.
    scale
        Whether to divide each gene by its standard deviation before the eigengenes are found.
    ignore_case
        Whether ``Stat1`` is ``STAT1`` and ``Trp53`` is ``TP53``, as when human sets are used for
        mouse data.
    seed
        Of the remainder modules, and of the choice of cells when there are many.

    Raises
    ------
    FileError
        If the file cannot be read.
    InputError
        If the file is malformed, or an option is not a whole number of at least 1.
    """

    name = "gene_sets"
    _options = (
        "min_size", "max_size", "min_overlap", "n_values", "remainder_size", "scale",
        "ignore_case", "seed",
    )  # fmt: skip
    _token_names: tuple[str, ...]

    def __init__(
        self,
        gmt: str | Path | Mapping[str, Sequence[str]] | None = None,
        *,
        min_size: int = 5,
        max_size: int = 500,
        min_overlap: int = 3,
        n_values: int = 5,
        remainder_size: int = 40,
        scale: bool = False,
        ignore_case: bool = False,
        seed: int = 0,
    ) -> None:
        check_whole(min_size, "min_size")
        check_whole(max_size, "max_size")
        check_whole(min_overlap, "min_overlap")
        check_whole(n_values, "n_values")
        check_whole(remainder_size, "remainder_size")
        if min_size > max_size:
            raise InputError(
                f"min_size={min_size} is above max_size={max_size}; no set has such a size."
            )
        self.min_size, self.max_size = int(min_size), int(max_size)
        self.min_overlap, self.n_values = int(min_overlap), int(n_values)
        self.remainder_size = int(remainder_size)
        self.scale, self.ignore_case, self.seed = bool(scale), bool(ignore_case), int(seed)
        self._are_given = gmt is not None
        if gmt is None:
            self.sets = read_gmt(gene_set_file("hallmark"))
        else:
            self.sets = check_sets(gmt) if isinstance(gmt, Mapping) else read_gmt(gmt)

    @property
    def token_names(self) -> tuple[str, ...]:
        """Names of the sets that were kept, then ``remainder_1`` and so on."""
        self._check_fitted()
        return self._token_names

    def fit(self, cells: CellStore) -> Self:
        """Find the sets' genes and their eigengenes; changes this object and returns it.

        Raises
        ------
        InputError
            If no set has enough genes in the data (the text shows genes of both sides and guesses
            why), if there are no cells, or genes of the same name.
        """
        check_unique_genes(cells.genes)
        matches = match_sets(self.sets, cells.genes, ignore_case=self.ignore_case)
        kept = {name: match for name, match in matches.items() if self._status(match) == "token"}
        if not kept:
            raise InputError(self._nothing_kept(matches, cells.genes))
        expression = sorted_expression(cells, self.seed)
        place = np.empty(cells.n_genes, dtype=np.int64)
        place[expression.order] = np.arange(cells.n_genes)
        groups = [place[match.found] for match in kept.values()]
        if self._are_given:
            _warn_of_coverage(len(np.unique(np.concatenate(groups))), cells.n_genes)
        remainder = self._remainder_modules(expression, groups)
        self._eigengenes = fit_eigengenes(
            expression, [*groups, *remainder], self.n_values, scale=self.scale
        )
        numbers = range(1, len(remainder) + 1)
        self._token_names = (*kept, *(f"remainder_{number}" for number in numbers))
        self._genes = cells.genes
        return self

    def report(self) -> pd.DataFrame:
        """Say what became of each set.

        Returns
        -------
        pandas.DataFrame
            One row per set in the order of the file, then one per remainder module. ``listed``:
            genes in the file; ``kept``: of these in the data; ``case_only``: in the data in another
            case only, which ``ignore_case=True`` would keep; ``status``: ``token``, ``too small``,
            ``too large``, ``too few genes in the data``, or ``remainder``.
        """
        matches = match_sets(self.sets, self.genes, ignore_case=self.ignore_case)
        rows = [
            (name, match.n_listed, len(match.found), match.n_case_only, self._status(match))
            for name, match in matches.items()
        ]
        n_sets = sum(row[-1] == "token" for row in rows)
        for token in range(n_sets, self.n_identities):
            size = len(self.eigengenes.genes_of(token))
            rows.append((self.token_names[token], size, size, 0, "remainder"))
        columns = ["set", "listed", "kept", "case_only", "status"]
        return pd.DataFrame(rows, columns=columns).set_index("set")

    def to_config(self) -> dict[str, Any]:
        """Describe the fitted tokenizer, its gene sets included, by values that JSON can hold."""
        sets = {name: list(genes) for name, genes in self.sets.items()}
        return {**super().to_config(), "token_names": list(self.token_names), "sets": sets}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        """Make the fitted tokenizer from what ``to_config`` and ``arrays`` gave."""
        sets = stored(cls.name, config, "sets")
        tokenizer = cls(sets, **{name: stored(cls.name, config, name) for name in cls._options})
        token_names = tuple(stored(cls.name, config, "token_names"))
        tokenizer._restore(config, arrays)
        if len(token_names) != tokenizer.n_identities:
            raise InputError(
                f"The stored tokenizer {cls.name!r} names {len(token_names)} tokens but has arrays "
                f"for {tokenizer.n_identities}; give from_config what one fitted tokenizer "
                "returned."
            )
        tokenizer._token_names = token_names
        return tokenizer

    def _status(self, match: SetMatch) -> str:
        if match.n_listed < self.min_size:
            return "too small"
        if match.n_listed > self.max_size:
            return "too large"
        if len(match.found) < self.min_overlap:
            return "too few genes in the data"
        return "token"

    def _remainder_modules(
        self, expression: SortedExpression, groups: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        """Gather the genes in no group into modules, as columns of the sorted expression."""
        rest = np.setdiff1d(np.arange(expression.log_SG.shape[1]), np.concatenate(groups))
        if len(rest) == 0:
            return []
        n_modules = ceil(len(rest) / self.remainder_size)
        modules = balanced_modules(expression.log_SG[:, rest], n_modules, self.n_values, self.seed)
        return [rest[module] for module in modules]

    def _nothing_kept(self, matches: Mapping[str, SetMatch], genes: tuple[str, ...]) -> str:
        """Say why no set became a token."""
        fitting = [m for m in matches.values() if self._status(m) not in ("too small", "too large")]
        if not fitting:
            return (
                f"None of the {len(matches)} gene sets lists between min_size="
                f"{self.min_size} and max_size={self.max_size} genes; "
                "widen these bounds."
            )
        most = max(len(match.found) for match in fitting)
        overlap = "any gene" if most == 0 else f"{self.min_overlap} genes (at most {most})"
        listed = (gene for members in self.sets.values() for gene in members)
        why, remedy = explain_mismatch(listed, genes)
        lower = f"lower min_overlap={self.min_overlap}" if most else ""
        ways = ", ".join(way for way in (remedy, "give other gene sets", lower) if way)
        return (
            f"None of the {len(fitting)} gene sets has {overlap} in common with the data: "
            f'the sets name {why}; {ways}, or choose tokenizer="modules", which needs no gene sets.'
        )


def _warn_of_coverage(n_covered: int, n_genes: int) -> None:
    """Say so where most genes are in none of the sets that the user gave."""
    if 2 * n_covered < n_genes:
        warnings.warn(
            f"The gene sets cover {n_covered:,} of {n_genes:,} genes ({n_covered / n_genes:.0%}); "
            "the others form modules without a name. Give sets that cover more to have programmes "
            "by name.",
            UserWarning,
            stacklevel=3,
        )


class SetMatch(NamedTuple):
    """Where the genes of one set are in the data.

    Its number of genes; their positions in the data, int64, sorted; and how many are in the data in
    another case only, and were not matched.
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
    ids = "Ensembl ids"
    by_symbol = ignore_case or (kind_of(genes) == ids and kind_of(listed_genes) != ids)
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
