"""Tokens from gene modules found in the data."""

from __future__ import annotations

from math import ceil, sqrt
from typing import Self

from celldit.arguments import check_whole
from celldit.data.genes import check_unique_genes
from celldit.data.store import CellStore
from celldit.errors import InputError
from celldit.tokenizers.balanced import balanced_modules
from celldit.tokenizers.canonical import sorted_expression
from celldit.tokenizers.eigengenes import GroupTokenizer, fit_eigengenes


class Modules(GroupTokenizer):
    """One token per data-driven gene module, its value the module's eigengenes.

    Every gene is in exactly one module, and the sizes of modules differ by at most one. How they
    are found, and why so, is told in :mod:`celldit.tokenizers.balanced`; what a token's value is,
    in :mod:`celldit.tokenizers.eigengenes`. It needs no gene names that anybody else knows.

    Parameters
    ----------
    n_modules
        Number of modules; None for the square root of the number of genes, rounded up, so that
        neither the tokens nor the genes of one token become too many.
    n_values
        Number of eigengenes ``V`` of each module.
    scale
        Whether to divide each gene by its standard deviation before the eigengenes are found.
    seed
        Of the randomised decomposition, and of the choice of cells when there are many.

    Raises
    ------
    InputError
        If an option is not a whole number of at least 1.
    """

    name = "modules"
    _options = ("n_modules", "n_values", "scale", "seed")

    def __init__(
        self,
        n_modules: int | None = None,
        *,
        n_values: int = 5,
        scale: bool = False,
        seed: int = 0,
    ) -> None:
        if n_modules is not None:
            check_whole(n_modules, "n_modules")
        check_whole(n_values, "n_values")
        self.n_modules = None if n_modules is None else int(n_modules)
        self.n_values = int(n_values)
        self.scale = bool(scale)
        self.seed = int(seed)

    @property
    def token_names(self) -> tuple[str, ...]:
        """``module_1``, ``module_2`` and so on."""
        return tuple(f"module_{number}" for number in range(1, self.n_identities + 1))

    def fit(self, cells: CellStore) -> Self:
        """Find the modules and their eigengenes; changes this object and returns it.

        Raises
        ------
        InputError
            If there are more modules than genes, no cells, or genes of the same name.
        """
        check_unique_genes(cells.genes)
        n_modules = ceil(sqrt(cells.n_genes)) if self.n_modules is None else self.n_modules
        if n_modules > max(cells.n_genes, 1):
            raise InputError(
                f"{n_modules} modules cannot be made of {cells.n_genes} genes; ask for at most "
                f"n_modules={cells.n_genes}."
            )
        expression = sorted_expression(cells, self.seed)
        groups = balanced_modules(expression.log_SG, n_modules, self.n_values, self.seed)
        self._eigengenes = fit_eigengenes(expression, groups, self.n_values, scale=self.scale)
        self._genes = cells.genes
        return self
