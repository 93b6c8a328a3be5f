"""Tokenizers by name."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from celldit.data.store import CellStore
from celldit.errors import InputError, UnknownNameError, outside
from celldit.tokenizers.base import Tokenizer
from celldit.tokenizers.gene_sets import GeneSets
from celldit.tokenizers.genes import Genes, Ranks
from celldit.tokenizers.modules import Modules

_KINDS: dict[str, type[Tokenizer]] = {kind.name: kind for kind in (GeneSets, Modules, Genes, Ranks)}


def resolve(tokenizer: str | Tokenizer) -> Tokenizer:
    """Give the tokenizer that a name stands for, or the tokenizer itself.

    Parameters
    ----------
    tokenizer
        ``"gene_sets"``, ``"modules"``, ``"genes"`` or ``"ranks"`` for one with its default options,
        not fitted yet; or a tokenizer, which is returned as it is.

    Raises
    ------
    UnknownNameError
        If the name is none of the four.
    InputError
        If it is neither a name nor a tokenizer.
    """
    if isinstance(tokenizer, str):
        return _kind(tokenizer)()
    # By what it can do: a tokenizer of the user's own need not derive from Tokenizer.
    methods = ("fit", "__call__", "to_config", "arrays")
    if isinstance(tokenizer, type) or not all(hasattr(tokenizer, name) for name in methods):
        raise InputError(
            f"A tokenizer must be one of {_names()} or a tokenizer object such as "
            f"celldit.tokenizers.GeneSets(...), not {tokenizer!r}."
        )
    return tokenizer


def default_tokenizer(cells: CellStore) -> Tokenizer:
    """Choose a tokenizer for data: Hallmark gene sets, or modules where the genes are not in them.

    Case is ignored, so that mouse symbols find their human namesakes. A few of the cells are looked
    at; the tokenizer is not fitted yet.

    Warns
    -----
    UserWarning
        If the gene names share too little with the gene sets.
    """
    try:
        GeneSets(ignore_case=True).fit(cells.take(slice(0, 50)))
    except InputError as error:
        reason = str(error).partition(";")[0]
        warnings.warn(
            f"{reason}. Tokens will be gene modules found in the data; pass tokenizer='modules' to "
            "choose them without this warning, or GeneSets(gmt=...) with sets of such names.",
            UserWarning,
            stacklevel=outside(),
        )
        return Modules()
    return GeneSets(ignore_case=True)


def tokenizer_from_config(config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Tokenizer:
    """Make a fitted tokenizer of any kind from its ``to_config()`` and ``arrays()``.

    Raises
    ------
    UnknownNameError
        If the configuration names no known kind.
    InputError
        If an entry or array is missing or does not fit the rest.
    """
    return _kind(str(config.get("name"))).from_config(config, arrays)


def _kind(name: str) -> type[Tokenizer]:
    if name not in _KINDS:
        raise UnknownNameError(f"There is no tokenizer {name!r}; use one of {_names()}.")
    return _KINDS[name]


def _names() -> str:
    return ", ".join(repr(name) for name in _KINDS)
