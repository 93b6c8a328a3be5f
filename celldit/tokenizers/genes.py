"""Tokens from single genes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

import numpy as np
import torch

from celldit.data.cells import Cells
from celldit.data.store import CellStore
from celldit.errors import InputError
from celldit.tokenizers.base import (
    check_distinct,
    check_genes,
    check_positive,
    fitted_genes,
    stored,
)
from celldit.tokenizers.canonical import tie_order
from celldit.tokenizers.relative import (
    Entries,
    expressed_entries,
    levels,
    rank_entries,
    typical_levels,
)
from celldit.tokenizers.token_set import TokenSet


class GeneTokenizer:
    """What tokenizers have in common whose tokens are single genes."""

    name: str
    n_values = 1
    seed: int
    _genes: tuple[str, ...] | None = None
    _typical: np.ndarray
    _ties: np.ndarray

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
        return self._fitted(cells.genes, typical_levels(cells, self.seed))

    def arrays(self) -> dict[str, np.ndarray]:
        """Give the typical level of each gene, ``typical`` ``(G,)`` in counts per 10,000."""
        fitted_genes(self.name, self._genes)
        return {"typical": self._typical}

    def _fitted(self, genes: tuple[str, ...], typical: np.ndarray) -> Self:
        self._typical = typical
        self._ties = tie_order(genes, self.seed)
        self._genes = genes
        return self

    def _restored(self, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        """Take stored genes and typical levels; InputError unless there is one for each gene."""
        genes = tuple(stored(self.name, config, "genes"))
        typical = np.asarray(stored(self.name, arrays, "typical"), dtype=np.float64)
        if typical.shape != (len(genes),):
            raise InputError(
                f"The stored tokenizer {self.name!r} has typical levels of shape {typical.shape} "
                f"for {len(genes)} genes; give from_config what one fitted tokenizer returned."
            )
        return self._fitted(genes, typical)


class Genes(GeneTokenizer):
    """One token per gene: its identity the gene, its value the log-normalised expression.

    With ``zeros="drop"`` a cell has a token for each gene that it expresses, so that sets differ in
    size, and a cell without counts has none. With ``zeros="keep"`` genes at zero are tokens, too.

    Which genes stay when ``n_tokens`` is a bound: those highest relative to their typical level
    (median over expressing training cells, as in Geneformer); genes at the same relative level, all
    those at zero included, in the order of a hash of ``seed`` and the gene's name. So the choice
    depends on the cell alone, not on its batch nor on the order of the genes.

    Parameters
    ----------
    n_tokens
        The most tokens that a cell may have; None for no bound.
    zeros
        What becomes of genes at zero, ``"drop"`` or ``"keep"``.
    seed
        Of the order among equals, and of the choice of cells to fit on when there are many.

    Raises
    ------
    InputError
        If an option is not one of the possible.
    """

    name = "genes"

    def __init__(
        self,
        n_tokens: int | None = None,
        *,
        zeros: Literal["drop", "keep"] = "drop",
        seed: int = 0,
    ) -> None:
        check_positive(self.name, n_tokens=n_tokens)
        if zeros not in ("drop", "keep"):
            raise InputError(
                f"zeros of the tokenizer 'genes' must be 'drop' or 'keep', not {zeros!r}."
            )
        self.n_tokens = None if n_tokens is None else int(n_tokens)
        self.zeros = zeros
        self.seed = int(seed)

    @property
    def same_for_every_cell(self) -> bool:
        """Whether each cell has a token for every gene."""
        if self.zeros == "drop":
            return False
        return self.n_tokens is None or self.n_tokens >= len(self.genes)

    def __call__(self, cells: Cells) -> TokenSet:
        """Tokenize a mini-batch.

        Returns
        -------
        TokenSet
            Values ``(B, T, 1)``, ``T`` the largest number of tokens of a cell in the batch.

        Raises
        ------
        NotTrainedError
            If it was not fitted.
        InputError
            If the genes are not the fitted ones in their order.
        """
        check_genes(self.name, self.genes, cells.genes)
        if self.zeros == "keep":
            return self._with_zeros(cells)
        entries = expressed_entries(cells)
        if self.n_tokens is not None:
            entries = rank_entries(entries, self._typical, self._ties)
            entries = entries.take(entries.positions() < self.n_tokens)
        return entries_to_tokens(entries, np.log1p(levels(entries, cells.size_factors)))

    def to_config(self) -> dict[str, Any]:
        """Describe the fitted tokenizer by values that JSON can hold."""
        return {
            "name": self.name,
            "genes": list(self.genes),
            "n_tokens": self.n_tokens,
            "zeros": self.zeros,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        """Make the fitted tokenizer from what ``to_config`` and ``arrays`` gave."""
        tokenizer = cls(
            stored(cls.name, config, "n_tokens"),
            zeros=stored(cls.name, config, "zeros"),
            seed=stored(cls.name, config, "seed"),
        )
        return tokenizer._restored(config, arrays)

    def _with_zeros(self, cells: Cells) -> TokenSet:
        log_BG = cells.log_normalized().toarray()
        n_cells, n_genes = log_BG.shape
        n_tokens = n_genes if self.n_tokens is None else min(self.n_tokens, n_genes)
        identities_BT = np.broadcast_to(np.arange(n_genes), log_BG.shape)
        if n_tokens < n_genes:
            entries = expressed_entries(cells)
            relative_BG = np.zeros(log_BG.shape)
            relative_BG[entries.cells, entries.genes] = (
                entries.counts / self._typical[entries.genes]
            )
            # A stable sort of genes that lie in the order of ties resolves ties in that order.
            by_ties = np.argsort(self._ties)
            ranked = np.argsort(-relative_BG[:, by_ties], axis=1, kind="stable")
            identities_BT = by_ties[ranked[:, :n_tokens]]
        values_BT = np.take_along_axis(log_BG, identities_BT, axis=1)
        return TokenSet(
            torch.from_numpy(values_BT[:, :, None]),
            torch.from_numpy(np.ascontiguousarray(identities_BT, dtype=np.int64)),
            torch.ones(n_cells, n_tokens, dtype=torch.bool),
        )


def entries_to_tokens(entries: Entries, values: np.ndarray) -> TokenSet:
    """Make a token of each entry, with one value, and pad the cells to the same number."""
    # At least one place, so that no array is empty where no cell has a token.
    shape = len(entries.lengths), max(int(entries.lengths.max(initial=0)), 1)
    mask_BT = np.arange(shape[1]) < entries.lengths[:, None]
    values_BT, identities_BT = np.zeros(shape, np.float32), np.zeros(shape, np.int64)
    values_BT[mask_BT], identities_BT[mask_BT] = values, entries.genes
    return TokenSet(
        torch.from_numpy(values_BT[:, :, None]),
        torch.from_numpy(identities_BT),
        torch.from_numpy(mask_BT),
    )
