"""What must hold of an AnnData before any work starts."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd

from celldit.data.counts import check_counts, select_matrix
from celldit.data.genes import check_are_genes, check_unique_genes
from celldit.data.labels.columns import read_columns, text_column, warn_measured
from celldit.data.labels.doubtful import check_split, usual_control, warn_doubtful
from celldit.data.labels.labels import canonical_array, with_one_control
from celldit.data.screens.modality import modalities
from celldit.errors import InputError, closest, examples

if TYPE_CHECKING:
    from celldit.data.fields import Fields

# Cells of fewer counts in the median are none.
MIN_SIZE = 5.0


def check_setup(adata: ad.AnnData, fields: Fields) -> None:
    """Verify that an AnnData can be used with these fields; cheap checks come first.

    InputError if the counts, the genes or the values of a column cannot be used. UnknownNameError
    if a column, a layer or the control label does not exist.
    """
    check_anndata(adata)
    check_arguments(fields)
    select_matrix(adata, fields.counts_layer)
    check_unique_genes(adata.var_names)
    check_are_genes(adata.var)
    _check_columns(adata, fields)
    totals = check_counts(adata, fields.counts_layer)
    n_empty = int((totals == 0).sum())
    if n_empty:
        raise InputError(
            f"{n_empty} of {adata.n_obs} cells have no counts at all; remove them with "
            "sc.pp.filter_cells(adata, min_counts=1)."
        )


def check_anndata(adata: object, name: str = "") -> None:
    """Refuse what is no AnnData, most often because arguments were exchanged."""
    if not isinstance(adata, ad.AnnData):
        parts = list(modalities(adata))
        how = f"pass one of its modalities, such as mdata.mod[{parts[0]!r}]" if parts else (
            "read one with scanpy.read_h5ad('file.h5ad')"
        )  # fmt: skip
        raise InputError(
            f"Expected an AnnData{f' as {name}' if name else ''}, got {type(adata).__name__}; "
            f"{how}."
        )


def check_fields(adata: ad.AnnData, fields: Fields) -> None:
    """Verify what fields say of the columns of ``obs`` alone; raises as :func:`check_setup`."""
    check_arguments(fields)
    _check_columns(adata, fields)


def check_arguments(fields: Fields) -> None:
    """Refuse fields that make no sense, whatever the data hold."""
    if not isinstance(fields.perturbation_sep, str):
        raise InputError(
            "perturbation_sep is the text between two perturbations, such as '+', not "
            f"{type(fields.perturbation_sep).__name__}."
        )
    if not fields.perturbation_sep:
        raise InputError("perturbation_sep is empty; give the text between two perturbations.")
    if not fields.control:
        raise InputError("control is empty; give the label of unperturbed cells.")
    roles: dict[str, str] = {}
    for role, key in fields.columns:
        if not isinstance(key, str):
            raise InputError(f"{role} takes names of columns as text, not {key!r}.")
        if key in roles:
            raise InputError(
                f"The column {key!r} is named twice, by {roles[key]} and by {role}; one column has "
                "one meaning."
            )
        roles[key] = role
    if fields.dose_key is not None and fields.perturbation_key is None:
        raise InputError("dose_key needs perturbation_key: a dose is a dose of something.")


def _check_columns(adata: ad.AnnData, fields: Fields) -> None:
    sep, control = fields.perturbation_sep, fields.control
    if fields.perturbation_key is not None:
        distinct = pd.unique(text_column(adata, fields.perturbation_key, "perturbation_key"))
        controls = (control, *fields.other_controls)
        check_split([label for label in distinct if label not in controls], sep, control)
        named = with_one_control(distinct, fields.other_controls, sep, control)
        _check_control(canonical_array(named, sep, control), fields)
        warn_doubtful(distinct, sep, controls, fields.perturbation_key)
    sizes = read_columns(adata, fields)["size_factors"]
    warn_measured(adata, fields.covariate_keys)
    if sizes is not None and fields.size_factor_key is not None:
        _warn_relative(sizes, fields.size_factor_key)


def _warn_relative(sizes: np.ndarray, key: str) -> None:
    """Sizes about 1 tell a cell's depth beside others', as scran has them, and not its counts."""
    if np.median(sizes) < MIN_SIZE:
        warnings.warn(
            f"adata.obs[{key!r}], named by size_factor_key, has a median of "
            f"{np.median(sizes):.3g}, as sizes relative to a typical cell have; here they are "
            "library sizes in counts, by which expression per 10,000 is reckoned. Multiply them by "
            "the mean total counts of a cell, in Python "
            f"adata.obs[{key!r}] *= adata.X.sum(axis=1).mean().",
            stacklevel=5,
        )


def _check_control(labels: np.ndarray, fields: Fields) -> None:
    if (labels == fields.control).any():
        return
    known = sorted(set(labels))
    near = closest(fields.control, known)
    usual = [name for name in known if name == "0" or usual_control(name)]
    guess = near if near is not None else (usual[0] if usual else None)
    hint = "pass control=... with the label of the unperturbed cells, or add such cells: effects "
    hint += "are changes from them"
    if guess is not None:
        hint = f"pass control={guess!r} of the unperturbed cells"
    raise InputError(
        f"No cell has the control label {fields.control!r} in "
        f"adata.obs[{fields.perturbation_key!r}], which holds {examples(known)}; {hint}."
    )
