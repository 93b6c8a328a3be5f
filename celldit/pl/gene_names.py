"""How genes are written in figures: by their symbols, where a table has them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import pandas as pd

from celldit.arguments import text_list
from celldit.data.symbols import shown_symbol
from celldit.errors import InputError, UnknownNameError

GeneSymbols: TypeAlias = str | pd.Series | Mapping[str, str]

#: Columns that hold symbols beside Ensembl ids, as Cell Ranger, CELLxGENE and others call them.
SYMBOL_COLUMNS = (
    "gene_symbols",
    "gene_symbol",
    "symbol",
    "gene_name",
    "gene_names",
    "feature_name",
)
LONGEST = 18
_ENSEMBL = re.compile(r"ENS[A-Z]*G\d+(\.\d+)?")


@dataclass(frozen=True)
class GeneNames:
    """What is written for each gene: its symbol, or its name where it has none of its own."""

    symbols: Mapping[str, str]

    @classmethod
    def of(cls, table: pd.DataFrame, gene_symbols: GeneSymbols | None) -> GeneNames:
        """Read the symbols of genes from ``adata.var``, or another table with genes as its index.

        `gene_symbols` is the name of a column of it, or symbols by gene; None for a column of
        symbols where the genes are Ensembl ids, or else those of the bundled table.
        UnknownNameError if there is no such column, InputError if it is something else.
        """
        table = table[~table.index.duplicated()]
        genes = [str(gene) for gene in table.index]
        if gene_symbols is None:
            coded = sum(bool(_ENSEMBL.fullmatch(gene)) for gene in genes[:100])
            found = [name for name in SYMBOL_COLUMNS if name in table.columns]
            if 2 * coded <= len(genes[:100]):
                return cls(dict(zip(genes, genes, strict=True)))
            gene_symbols = found[0] if found else {gene: shown_symbol(gene) for gene in genes}
        if isinstance(gene_symbols, str):
            if gene_symbols not in table.columns:
                raise UnknownNameError.among("column of genes", gene_symbols, list(table.columns))
            gene_symbols = pd.Series(table[gene_symbols].to_numpy(), index=genes)
        if not isinstance(gene_symbols, (pd.Series, Mapping)):
            raise InputError(
                "gene_symbols must be the name of a column of adata.var, or symbols by gene, as in "
                "gene_symbols=adata.var['symbol']."
            )
        known = {str(gene): str(symbol) for gene, symbol in gene_symbols.items()
                 if isinstance(symbol, str) and symbol.strip()}  # fmt: skip
        symbols = pd.Series([known.get(gene, gene) for gene in genes], index=genes, dtype=object)
        # A symbol of two genes would make them one.
        doubled = symbols.duplicated(keep=False).to_numpy()
        return cls(symbols.where(~doubled, pd.Series(genes, index=genes)).to_dict())

    @property
    def differ(self) -> bool:
        """Whether any gene has a symbol that is not its name."""
        return any(gene != symbol for gene, symbol in self.symbols.items())

    def symbol(self, gene: str) -> str:
        """The symbol of a gene, in full."""
        return self.symbols.get(gene, gene)

    def shown(self, gene: str) -> str:
        """What is written for a gene, cut where it is long."""
        name = self.symbol(gene)
        return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"

    def genes(self, chosen: Sequence[str] | str, where: str) -> list[str]:
        """Genes that a user chose, by their names or symbols.

        InputError if none is chosen; UnknownNameError if one is not known.
        """
        requested = text_list(chosen, "genes")
        if not requested:
            raise InputError(
                "genes=[] names no gene; leave it out for those of the largest changes."
            )
        by_symbol = {symbol: gene for gene, symbol in self.symbols.items()}
        found = []
        for name in requested:
            if name not in self.symbols and name not in by_symbol:
                known = [*self.symbols, *by_symbol]
                raise UnknownNameError.among(where, name, list(dict.fromkeys(known)))
            found.append(name if name in self.symbols else by_symbol[name])
        return found
