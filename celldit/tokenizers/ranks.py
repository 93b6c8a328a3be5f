"""Tokens from the ranks of genes within a cell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from celldit.data.cells import Cells
from celldit.tokenizers.base import check_genes, check_positive, stored
from celldit.tokenizers.genes import GeneTokenizer, entries_to_tokens
from celldit.tokenizers.relative import expressed_entries, rank_entries
from celldit.tokenizers.token_set import TokenSet


class Ranks(GeneTokenizer):
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
    same_for_every_cell = False

    def __init__(self, n_tokens: int | None = 2048, *, seed: int = 0) -> None:
        check_positive(self.name, n_tokens=n_tokens)
        self.n_tokens = None if n_tokens is None else int(n_tokens)
        self.seed = int(seed)

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

    @classmethod
    def from_config(cls, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        """Make the fitted tokenizer from what ``to_config`` and ``arrays`` gave."""
        tokenizer = cls(stored(cls.name, config, "n_tokens"), seed=stored(cls.name, config, "seed"))
        return tokenizer._restored(config, arrays)
