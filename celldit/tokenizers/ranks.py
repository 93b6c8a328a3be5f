"""Tokens from the ranks of genes within a cell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from celldit.data.cells import Cells
from celldit.data.store import CellStore
from celldit.tokenizers.base import (
    check_distinct,
    check_genes,
    check_positive,
    fitted_genes,
    stored,
)
from celldit.tokenizers.canonical import tie_order
from celldit.tokenizers.genes import checked_typical, entries_to_tokens
from celldit.tokenizers.relative import expressed_entries, rank_entries, typical_levels
from celldit.tokenizers.token_set import TokenSet

__all__ = ["Ranks"]


class Ranks:
    """One token per expressed gene: its identity the gene, its value the gene's rank in the cell.

    Genes are ordered as Geneformer orders them (Theodoris et al. 2023, Nature 618:616): by
    expression relative to the gene's typical level, which is the median over expressing training
    cells. Since a set has no order, the rank is the token's value: the gene at place ``r`` (from 0)
    of ``n`` expressed genes has ``1 - r / n``, from 1 for the highest down to ``1 / n``. Ranks do
    not change with a cell's library size. Genes at zero are absent. Genes at the same relative
    level come in the order of a hash of ``seed`` and their name, so that ranks depend on the cell
    alone, not on its batch nor on the order of the genes.

    Parameters
    ----------
    n_tokens
        The most tokens that a cell may have, the highest ranks; None for no bound.
    seed
        Of the order among equals, and of the choice of cells to fit on when there are many.

    Raises
    ------
    InputError
        If ``n_tokens`` is not a whole number of at least 1.
    """

    name = "ranks"
    n_values = 1
    same_for_every_cell = False

    def __init__(self, n_tokens: int | None = 2048, *, seed: int = 0) -> None:
        check_positive(self.name, n_tokens=n_tokens)
        self.n_tokens = None if n_tokens is None else int(n_tokens)
        self.seed = int(seed)
        self._genes: tuple[str, ...] | None = None
        self._typical = np.empty(0)
        self._ties = np.empty(0, dtype=np.int64)

    @property
    def genes(self) -> tuple[str, ...]:
        """The genes it was fitted on."""
        return fitted_genes(self.name, self._genes)

    @property
    def n_identities(self) -> int:
        """Number of genes."""
        return len(self.genes)

    @property
    def token_names(self) -> tuple[str, ...]:
        """The genes."""
        return self.genes

    def fit(self, cells: CellStore) -> Self:
        """Learn the genes' typical levels; changes this object and returns it.

        Raises
        ------
        InputError
            If there are no cells, or genes of the same name.
        """
        check_distinct(self.name, cells.genes)
        self._set_fitted(cells.genes, typical_levels(cells, self.seed))
        return self

    def __call__(self, cells: Cells) -> TokenSet:
        """Tokenize a mini-batch.

        Returns
        -------
        TokenSet
            Values ``(B, T, 1)`` in (0, 1], highest first, ``T`` the largest number of tokens of a
            cell in the batch.

        Raises
        ------
        NotTrainedError
            If it was not fitted.
        InputError
            If the genes are not the fitted ones in their order.
        """
        check_genes(self.name, self.genes, cells.genes)
        entries = rank_entries(expressed_entries(cells), self._typical, self._ties)
        places = entries.positions()
        ranks = 1.0 - places / entries.lengths[entries.cells]
        if self.n_tokens is not None:
            kept = places < self.n_tokens
            entries, ranks = entries.take(kept), ranks[kept]
        return entries_to_tokens(entries, ranks)

    def to_config(self) -> dict[str, Any]:
        """Describe the fitted tokenizer by values that JSON can hold."""
        return {
            "name": self.name,
            "genes": list(self.genes),
            "n_tokens": self.n_tokens,
            "seed": self.seed,
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """Give the typical level of each gene, ``typical`` ``(G,)`` in counts per 10,000."""
        fitted_genes(self.name, self._genes)
        return {"typical": self._typical}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        """Make the fitted tokenizer from what ``to_config`` and ``arrays`` gave."""
        tokenizer = cls(stored(cls.name, config, "n_tokens"), seed=stored(cls.name, config, "seed"))
        genes = tuple(stored(cls.name, config, "genes"))
        tokenizer._set_fitted(genes, checked_typical(cls.name, genes, arrays))
        return tokenizer

    def _set_fitted(self, genes: tuple[str, ...], typical: np.ndarray) -> None:
        self._typical = typical
        self._ties = tie_order(genes, self.seed)
        self._genes = genes
