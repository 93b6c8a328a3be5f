"""Tokenizers: the expression of a cell as a set of tokens.

``GeneSets`` (known gene sets), ``Modules`` (gene modules found in the data), ``Genes`` (single
genes) and ``Ranks`` (single genes by rank) share the interface :class:`Tokenizer`: ``fit(cells)``
once, then ``tokenizer(cells)`` on mini-batches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from celldit.lazy import members_of

if TYPE_CHECKING:
    from celldit.tokenizers.base import Tokenizer
    from celldit.tokenizers.gene_sets import GeneSets
    from celldit.tokenizers.genes import Genes, Ranks
    from celldit.tokenizers.gmt import read_gmt
    from celldit.tokenizers.modules import Modules
    from celldit.tokenizers.registry import default_tokenizer, resolve, tokenizer_from_config
    from celldit.tokenizers.token_set import TokenSet

__all__ = [
    "GeneSets",
    "Genes",
    "Modules",
    "Ranks",
    "TokenSet",
    "Tokenizer",
    "default_tokenizer",
    "read_gmt",
    "resolve",
    "tokenizer_from_config",
]

__getattr__, __dir__ = members_of(
    __name__,
    {
        "GeneSets": "gene_sets",
        "Genes": "genes",
        "Modules": "modules",
        "Ranks": "genes",
        "TokenSet": "token_set",
        "Tokenizer": "base",
        "default_tokenizer": "registry",
        "read_gmt": "gmt",
        "resolve": "registry",
        "tokenizer_from_config": "registry",
    },
)
