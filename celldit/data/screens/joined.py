"""Several screens as one: the genes that all have, and the screen as a covariate.

Each screen is compared with its own controls, since the screen is part of the context, and the
effect model learns how far effects of one hold in another as it does for any two contexts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from celldit.data.checks import check_anndata
from celldit.data.counts import read_counts
from celldit.data.fields import Fields, setup_anndata
from celldit.data.genes import match_genes
from celldit.data.labels.columns import label_column, text_column
from celldit.data.labels.labels import with_one_control
from celldit.errors import InputError, examples

Screens: TypeAlias = Sequence[ad.AnnData] | Mapping[str, ad.AnnData]
#: The column of ``obs`` that names the screen.
SCREEN = "screen"
LEAST_GENES = 10
_OPTIONAL = ("size_factor_key", "dose_key", "time_key")


def is_several(given: object) -> bool:
    """Whether several screens are given rather than one."""
    return isinstance(given, (list, tuple, Mapping))


def join_screens(screens: Screens) -> ad.AnnData:
    """One set up AnnData of several in memory, each set up, in a list or by name.

    All need the same covariates, and library sizes, doses and times in all or in none. The result
    has raw counts of the genes that all have, in the order of the first; its ``obs`` holds what the
    setups name, under the names of the first, and ``screen``.

    InputError if setups do not fit together, or fewer than ten genes are shared.
    """
    named = dict(screens) if isinstance(screens, Mapping) else _numbered(screens)
    if len(named) < 2:
        raise InputError(
            f"{len(named)} screens were given in a list; give two or more, or one by itself."
        )
    for name, adata in named.items():
        check_anndata(adata, f"screens[{name!r}]")
        if adata.isbacked:
            raise InputError(
                f"The screen {name!r} is backed by a file; bring it into memory with "
                "adata.to_memory()."
            )
    fields = {name: Fields.from_anndata(adata) for name, adata in named.items()}
    _check(fields)
    first, shared = next(iter(fields.values())), _shared_genes(named)
    parts = [_part(name, adata, fields[name], first, shared) for name, adata in named.items()]
    joined = ad.AnnData(
        sparse.vstack([counts for counts, _ in parts], format="csr"),
        pd.concat([obs for _, obs in parts]),
        pd.DataFrame(index=pd.Index(shared)),
    )
    keys = (*first.covariate_keys, SCREEN)
    plain = replace(first, covariate_keys=keys, other_controls=(), counts_layer=None)
    setup_anndata(joined, **plain.arguments())
    return joined


def _numbered(screens: Sequence[ad.AnnData]) -> dict[str, ad.AnnData]:
    return {f"screen {i}": adata for i, adata in enumerate(screens, start=1)}


def _check(fields: Mapping[str, Fields]) -> None:
    """Refuse setups that do not fit together."""
    names = list(fields)
    first = fields[names[0]]
    for name in names[1:]:
        other = fields[name]
        if set(other.covariate_keys) != set(first.covariate_keys) or SCREEN in first.covariate_keys:
            raise InputError(
                f"The screens have different covariates: {names[0]!r} "
                f"{list(first.covariate_keys)}, {name!r} {list(other.covariate_keys)}. Set all up "
                f"with the same covariate_keys, none of them {SCREEN!r}."
            )
        for key in _OPTIONAL:
            if (getattr(other, key) is None) != (getattr(first, key) is None):
                raise InputError(
                    f"Only one of {names[0]!r} and {name!r} has a {key}; set both up with it, or "
                    "neither."
                )
        if other.perturbation_sep != first.perturbation_sep:
            raise InputError(
                f"Combinations are joined by {first.perturbation_sep!r} in {names[0]!r} and by "
                f"{other.perturbation_sep!r} in {name!r}; write them alike."
            )


def _shared_genes(named: Mapping[str, ad.AnnData]) -> list[str]:
    names = list(named)
    shared = [str(gene) for gene in named[names[0]].var_names]
    for name in names[1:]:
        others = set(named[name].var_names.astype(str))
        shared = [gene for gene in shared if gene in others]
    if len(shared) < LEAST_GENES:
        listed = "; ".join(f"{name!r}: {examples(named[name].var_names)}" for name in names)
        raise InputError(
            f"The screens share {len(shared)} genes ({listed}); name genes alike in all, or use "
            "the others as tables: CellDiT(adata, effects=cd.pp.effect_table(other))."
        )
    return shared


def _part(
    name: str, adata: ad.AnnData, own: Fields, first: Fields, genes: list[str]
) -> tuple[sparse.csr_matrix, pd.DataFrame]:
    """Counts of shared genes, and what the setup names, as the first screen names it."""
    counts = read_counts(adata, own.counts_layer, match_genes(adata.var_names, genes))
    columns: dict[str, Any] = {}
    if first.perturbation_key is not None:
        columns[first.perturbation_key] = first.control
        if own.perturbation_key is not None:
            labels, sep = label_column(adata, own), own.perturbation_sep
            renamed = with_one_control(labels, [own.control], sep, first.control)
            columns[first.perturbation_key] = renamed
    for key in first.covariate_keys:
        columns[key] = text_column(adata, key, "covariate_keys")
    for key in _OPTIONAL:
        if (wanted := getattr(first, key)) is not None:
            columns[wanted] = adata.obs[getattr(own, key)].to_numpy()
    columns[SCREEN] = name
    index = pd.Index([f"{name}: {cell}" for cell in adata.obs_names])
    obs = pd.DataFrame(columns, index=index)
    # A shared panel may leave a cell without a count, which says nothing.
    kept = np.asarray(counts.sum(axis=1)).ravel() > 0
    return counts[kept], obs[kept]
