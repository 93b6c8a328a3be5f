"""Cells that a model is asked about: what their columns mean, and which of them are picked."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import anndata as ad
import numpy as np
import pandas as pd

from celldit.data.disk.opening import described
from celldit.data.fields import Fields, stored_setup
from celldit.data.screens.modality import set_up_modality
from celldit.errors import InputError

# Different values that a column of names, rather than of kinds, has.
MANY = 100

Selection: TypeAlias = str | Sequence[bool] | np.ndarray | pd.Series


def query_fields(source: Any, fields: Fields, counts_layer: str | None = None) -> Fields:
    """Fields by which to read a query: its own where it was set up, else the model's.

    The query is an AnnData, a MuData or a path; of anything else the model's fields are returned.
    Raw counts are in `counts_layer`, or else where its own setup says, then the model's, then in
    ``X``. Controls have the model's label, whatever the query calls them; without a column of
    perturbations all cells are controls.
    """
    source = set_up_modality(source)
    if isinstance(source, ad.AnnData):
        own = _known_fields(stored_setup(source.uns))
        columns, layers = list(source.obs.columns), list(source.layers)
        has_matrix = source.is_view or source.isbacked or source.X is not None
    elif isinstance(source, (str, os.PathLike)):
        setup, columns, layers, has_matrix = described(source)
        own = _known_fields(setup)
    else:
        return fields
    fields = _with_columns(fields, own, columns)
    if counts_layer is not None:
        return replace(fields, counts_layer=counts_layer)
    layer = fields.counts_layer if own is None else own.counts_layer
    if layer is not None and layer not in layers and has_matrix:
        # Whatever X holds is looked at, so that it cannot be taken for counts by mistake.
        layer = fields.counts_layer if fields.counts_layer in layers else None
    return replace(fields, counts_layer=layer)


def _known_fields(setup: object) -> Fields | None:
    """Fields of a stored setup, if there is one and all of it is known."""
    try:
        return Fields.from_dict(setup) if isinstance(setup, Mapping) else None
    except InputError:
        return None


def _with_columns(fields: Fields, own: Fields | None, columns: Collection[str]) -> Fields:
    """The model's fields with the query's names of the columns, where it has them."""
    if own is not None:
        # By position; names that both know, at other positions, would be taken for one another.
        pairs = list(zip(fields.covariate_keys, own.covariate_keys, strict=False))
        fits = len(own.covariate_keys) == len(fields.covariate_keys) and all(
            theirs in columns and (theirs == ours or theirs not in fields.covariate_keys)
            for ours, theirs in pairs
        )
        if fits and not set(fields.covariate_keys) <= set(columns):
            fields = replace(fields, covariate_keys=own.covariate_keys)
        for role in ("size_factor_key", "dose_key", "time_key"):
            key = getattr(own, role)
            requested = role == "size_factor_key" or getattr(fields, role) is not None
            if key is not None and requested and key in columns:
                fields = replace(fields, **{role: key})
        if own.perturbation_key is not None and own.perturbation_key in columns:
            also = (own.control, *own.other_controls, *fields.other_controls)
            fields = replace(
                fields,
                perturbation_key=own.perturbation_key,
                other_controls=tuple(dict.fromkeys(c for c in also if c != fields.control)),
            )
    if fields.perturbation_key is not None and fields.perturbation_key not in columns:
        fields = replace(fields, perturbation_key=None, dose_key=None)
    return fields


def _example(obs: pd.DataFrame) -> str:
    """A query that some of these cells answer, if a column holds kinds of them."""
    for name in obs.columns if len(obs) else ():
        value = obs[name].iloc[0]
        if isinstance(value, str) and str(name).isidentifier() and obs[name].nunique() < MANY:
            return f"{name} == {value!r}"
    return "cell_type == 'B'"


def selected(adata: ad.AnnData, selection: Selection, name: str) -> np.ndarray:
    """Read a query of ``adata.obs`` or a mask as a boolean array, shape (N,).

    InputError if it is neither, or picks no cell; says so of the argument `name`.
    """
    if isinstance(selection, str):
        try:
            # Looked up by position, since cell names may occur twice.
            rows = adata.obs.reset_index(drop=True).query(selection).index
        except Exception as error:
            raise InputError(
                f"{name}={selection!r} is not a query of adata.obs ({error}); write for example "
                f'{name}="{_example(adata.obs)}".'
            ) from error
        mask = np.zeros(adata.n_obs, dtype=bool)
        mask[rows] = True
    else:
        mask = np.asarray(selection)
        if mask.dtype != bool or mask.shape != (adata.n_obs,):
            raise InputError(
                f"{name} must be a query of adata.obs or a boolean mask with one entry for each of "
                f"the {adata.n_obs} cells."
            )
    if not mask.any():
        raise InputError(f"{name} selects no cell of adata; widen it.")
    return mask
