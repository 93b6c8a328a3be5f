"""What every tokenizer offers, and the checks that all of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from celldit.data.cells import Cells
from celldit.data.store import CellStore
from celldit.errors import InputError, NotTrainedError, examples
from celldit.tokenizers.token_set import TokenSet


class Tokenizer(ABC):
    """Turns the expression of cells into sets of tokens.

    ``fit`` once on the training cells, then call on mini-batches. ``to_config`` and ``arrays``
    together are all of a fitted tokenizer: the first is JSON, the second a dictionary of plain
    arrays, and ``from_config`` makes the same tokenizer of them.

    Attributes
    ----------
    name
        The name by which ``CellDiT(adata, tokenizer=...)`` knows this kind of tokenizer.
    n_values
        Number of values ``V`` of each token.
    """

    name: str
    n_values: int
    _options: ClassVar[tuple[str, ...]]
    #: Only when it is fitted.
    _genes: tuple[str, ...]

    @property
    @abstractmethod
    def n_identities(self) -> int:
        """Number of different tokens there are."""

    @property
    @abstractmethod
    def token_names(self) -> tuple[str, ...]:
        """What each identity stands for, length ``n_identities``."""

    @abstractmethod
    def fit(self, cells: CellStore) -> Self:
        """Learn from training cells; changes this object and returns it."""

    @abstractmethod
    def __call__(self, cells: Cells) -> TokenSet:
        """Tokenize a mini-batch of B cells.

        Returns
        -------
        TokenSet
            Values ``(B, T, n_values)``, ``T`` the largest number of tokens of a cell in the batch.

        Raises
        ------
        NotTrainedError
            If it was not fitted.
        InputError
            If the genes are not the fitted ones in their order.
        """

    @abstractmethod
    def arrays(self) -> dict[str, np.ndarray]:
        """Give the numbers that were fitted."""

    @abstractmethod
    def _restore(self, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Take what was fitted; InputError if it does not belong together."""

    @property
    def genes(self) -> tuple[str, ...]:
        """The genes it was fitted on, in their order."""
        self._check_fitted()
        return self._genes

    def to_config(self) -> dict[str, Any]:
        """Describe the fitted tokenizer by values that JSON can hold."""
        options = {name: getattr(self, name) for name in self._options}
        return {"name": self.name, "genes": list(self.genes), **options}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        """Make the fitted tokenizer from what ``to_config`` and ``arrays`` gave."""
        tokenizer = cls(**{name: stored(cls.name, config, name) for name in cls._options})
        tokenizer._restore(config, arrays)
        return tokenizer

    def _check_fitted(self) -> None:
        if not hasattr(self, "_genes"):
            raise NotTrainedError(
                f"The tokenizer {self.name!r} has not been fitted; call .fit(cells)."
            )

    def _check_genes(self, given: tuple[str, ...]) -> None:
        """Refuse cells whose genes are not those it was fitted on.

        InputError if genes are missing, extra, or in another order; the text says which and how to
        align them.
        """
        fitted = self.genes
        if fitted == given:
            return
        remedy = "read the cells with Cells.from_anndata(adata, fields, genes=tokenizer.genes)"
        present, expected = set(given), set(fitted)
        missing = [gene for gene in fitted if gene not in present]
        extra = [gene for gene in given if gene not in expected]
        if missing:
            raise InputError(
                f"The tokenizer {self.name!r} was fitted on {len(fitted)} genes, of which these "
                f"cells lack {len(missing)} ({examples(missing)}); give cells that have them all."
            )
        if extra:
            raise InputError(
                f"These cells have {len(extra)} genes that the tokenizer {self.name!r} was not "
                f"fitted on ({examples(extra)}); {remedy}."
            )
        raise InputError(
            f"These cells have the genes of the tokenizer {self.name!r} in another order; {remedy}."
        )


def stored(tokenizer: str, entries: Mapping[str, Any], key: str) -> Any:
    """Take an entry of a stored tokenizer, or raise InputError saying that it is missing."""
    if key not in entries:
        raise InputError(
            f"The stored tokenizer {tokenizer!r} lacks {key!r}; give from_config what to_config() "
            "and arrays() of one fitted tokenizer returned."
        )
    return entries[key]
