"""What tokenizers have in common whose tokens are groups of genes, summed up by eigengenes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from celldit.data.cells import Cells
from celldit.tokenizers.base import check_genes, fitted_genes, stored
from celldit.tokenizers.eigengenes import Eigengenes
from celldit.tokenizers.token_set import TokenSet


class GroupTokenizer:
    """One token for each group of genes, the same for every cell."""

    name: str
    same_for_every_cell = True
    _genes: tuple[str, ...] | None = None
    _eigengenes: Eigengenes | None = None

    @property
    def genes(self) -> tuple[str, ...]:
        """The genes it was fitted on."""
        return fitted_genes(self.name, self._genes)

    @property
    def eigengenes(self) -> Eigengenes:
        """The fitted loadings."""
        fitted_genes(self.name, self._genes)
        assert self._eigengenes is not None
        return self._eigengenes

    @property
    def n_identities(self) -> int:
        """Number of tokens ``T``."""
        return self.eigengenes.n_groups

    def __call__(self, cells: Cells) -> TokenSet:
        """Tokenize a mini-batch.

        Returns
        -------
        TokenSet
            Values ``(B, n_identities, n_values)``, every token real.

        Raises
        ------
        NotTrainedError
            If it was not fitted.
        InputError
            If the genes are not the fitted ones in their order.
        """
        check_genes(self.name, self.genes, cells.genes)
        return self.eigengenes.tokens(cells.log_normalized())

    def genes_of(self, token: int) -> tuple[str, ...]:
        """Return the names of the genes of a token."""
        return tuple(self.genes[index] for index in self.eigengenes.genes_of(token))

    def arrays(self) -> dict[str, np.ndarray]:
        """Give the fitted loadings; see :class:`celldit.tokenizers.eigengenes.Eigengenes`."""
        return self.eigengenes.arrays()

    def _restore(
        self, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray], n_values: int
    ) -> None:
        """Take genes and loadings from what ``to_config`` and ``arrays`` gave."""
        genes = tuple(stored(self.name, config, "genes"))
        eigengenes = Eigengenes.from_arrays(self.name, arrays)
        self._eigengenes = eigengenes.checked(len(genes), n_values)
        self._genes = genes
