"""Columns of ``adata.obs``, checked and brought to one form."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd

from celldit.arguments import check_known
from celldit.data.labels.doses import canonical_doses
from celldit.data.labels.labels import (
    as_text,
    canonical_array,
    each_distinct,
    with_one_control,
)
from celldit.data.labels.times import binned
from celldit.errors import InputError, outside

if TYPE_CHECKING:
    from celldit.data.fields import Fields

#: Stands between the covariate values in the name of a context.
CONTEXT_SEP = " | "
_SMALLEST_SIZE, _LARGEST_SIZE = 1e-4, 1e9
#: Numbers of more levels than this are measured, unless they are whole and each has as many cells.
MAX_LEVELS, MIN_CELLS = 20, 50


def obs_column(adata: ad.AnnData, key: str, role: str) -> pd.Series:
    """Take a column of ``adata.obs``; `role` is the argument that named it, for messages.

    UnknownNameError if there is no such column. InputError if several columns have that name.
    """
    if not isinstance(key, str):
        raise InputError(f"{role} takes the name of a column as text, not {type(key).__name__}.")
    check_known([key], adata.obs.columns, f"column for {role} in adata.obs")
    column = adata.obs[key]
    if isinstance(column, pd.DataFrame):
        raise InputError(
            f"adata.obs has {column.shape[1]} columns named {key!r}; rename all but one."
        )
    return column


def text_column(adata: ad.AnnData, key: str, role: str) -> np.ndarray:
    """Take a column of ``adata.obs`` as text, object (str), shape (N,); none may be missing."""
    column = obs_column(adata, key, role)
    _refuse_missing(column, key, role)
    return each_distinct(column, as_text)


def label_column(adata: ad.AnnData, fields: Fields) -> np.ndarray:
    """Take the labels as they are written, but with one name of the control; see `text_column`."""
    assert fields.perturbation_key is not None
    written = text_column(adata, fields.perturbation_key, "perturbation_key")
    return with_one_control(written, fields.other_controls, fields.perturbation_sep, fields.control)


def number_column(adata: ad.AnnData, key: str, role: str) -> np.ndarray:
    """Take a column of ``adata.obs`` as finite numbers, float64, which text may spell."""
    column = obs_column(adata, key, role)
    _refuse_missing(column, key, role)
    if _are_dates(column):
        raise InputError(
            f"adata.obs[{key!r}], named by {role}, holds dates; write the time since the start as "
            f"a number into another column, such as adata.obs['hours'] = "
            f"(adata.obs[{key!r}] - adata.obs[{key!r}].min()) / pd.Timedelta('1h')."
        )
    values = pd.to_numeric(pd.Series(np.asarray(column)), errors="coerce").to_numpy(np.float64)
    if not np.isfinite(values).all():
        bad = np.asarray(column)[~np.isfinite(values)][0]
        raise InputError(
            f"adata.obs[{key!r}], named by {role}, must hold finite numbers, but holds {bad!r}; "
            "convert the column, for example 'day10.5' to 10.5, and dates to hours since the first."
        )
    return values


def _are_dates(column: pd.Series) -> bool:
    kinds = pd.api.types
    return bool(
        kinds.is_datetime64_any_dtype(column.dtype)
        or kinds.is_timedelta64_dtype(column.dtype)
        or isinstance(column.dtype, pd.PeriodDtype)
    )


def read_size_factors(adata: ad.AnnData, key: str) -> np.ndarray:
    """Read library sizes, float64, shape (N,); InputError unless all are above 0."""
    values = number_column(adata, key, "size_factor_key")
    n_bad = int((values <= 0).sum())
    if n_bad:
        raise InputError(
            f"adata.obs[{key!r}], named by size_factor_key, has {n_bad} values of 0 or less; a "
            "library size is above 0, so drop those cells or name another column."
        )
    if not ((values >= _SMALLEST_SIZE) & (values <= _LARGEST_SIZE)).all():
        raise InputError(
            f"adata.obs[{key!r}], named by size_factor_key, runs from {values.min():.3g} to "
            f"{values.max():.3g}, which are no library sizes in counts; name the column with the "
            "total counts of each cell."
        )
    return values


def read_covariates(adata: ad.AnnData, keys: tuple[str, ...]) -> pd.DataFrame:
    """Read covariates as strings, N rows, one column for each key; see :func:`text_column`."""
    columns = {key: text_column(adata, key, "covariate_keys") for key in keys}
    if len(keys) > 1:
        for key, values in columns.items():
            # Two different contexts must not be written alike.
            if any(CONTEXT_SEP in value for value in pd.unique(values)):
                raise InputError(
                    f"Values of adata.obs[{key!r}] contain {CONTEXT_SEP!r}, which joins "
                    "covariates; rename them."
                )
    return pd.DataFrame(columns, index=pd.RangeIndex(adata.n_obs), dtype=object)


def warn_measured(adata: ad.AnnData, keys: tuple[str, ...]) -> None:
    """Warn of covariates that were measured, as a share of reads was: each level is a context."""
    for key in keys:
        column = obs_column(adata, key, "covariate_keys")
        if not pd.api.types.is_numeric_dtype(column.dtype):
            continue
        n_cells = column.value_counts()
        whole = bool((n_cells.index.to_numpy(dtype=np.float64) % 1 == 0).all())
        if len(n_cells) <= MAX_LEVELS or (whole and n_cells.median() >= MIN_CELLS):
            continue
        warnings.warn(
            f"adata.obs[{key!r}], named by covariate_keys, holds numbers of {len(n_cells):,} "
            "levels, and each level is a context, whose cells are compared with its own controls "
            "only; leave it out of covariate_keys, or cut it into few bins, in Python "
            f"adata.obs[{key!r}] = pandas.qcut(adata.obs[{key!r}], 3, duplicates='drop')"
            ".astype(str). Numbers that are names, as of donors, write as text.",
            UserWarning,
            stacklevel=outside(),
        )


def join_contexts(covariates: pd.DataFrame) -> np.ndarray:
    """Name the context of each cell: its covariate values joined with ``" | "``, object (str).

    Without columns, every context is ``""``.
    """
    joined = np.full(len(covariates), "", dtype=object)
    for position, key in enumerate(covariates.columns):
        values = covariates[key].to_numpy(dtype=object)
        joined = values if position == 0 else joined + CONTEXT_SEP + values
    return joined


def _refuse_missing(column: pd.Series, key: str, role: str) -> None:
    n_missing = int(column.isna().sum())
    if n_missing:
        raise InputError(
            f"adata.obs[{key!r}], named by {role}, has {n_missing} missing values; fill them, or "
            f"drop those cells: adata = adata[adata.obs[{key!r}].notna()].copy()"
        )


def read_labels(adata: ad.AnnData, fields: Fields) -> tuple[np.ndarray, np.ndarray]:
    """Canonical perturbation and context of each cell, object (str), shape (N,) each."""
    plain = replace(fields, dose_key=None, time_key=None, size_factor_key=None)
    columns = read_columns(adata, plain)
    return columns["perturbations"], join_contexts(columns["covariates"])


def read_columns(adata: ad.AnnData, fields: Fields) -> dict[str, Any]:
    """Read what the columns of ``adata.obs`` say of each of N cells, by the names of ``PER_CELL``.

    Library sizes are None without a column of them; the counts are not looked at.
    """
    perturbations = np.full(adata.n_obs, fields.control, dtype=object)
    written = perturbations
    if fields.perturbation_key is not None:
        written = label_column(adata, fields)
        perturbations = canonical_array(written, fields.perturbation_sep, fields.control)
    doses, times, sizes = None, None, None
    if fields.dose_key is not None:
        column = obs_column(adata, fields.dose_key, "dose_key")
        doses = canonical_doses(
            np.asarray(column, dtype=object), written, fields.perturbation_sep, fields.control
        )
    if fields.time_key is not None:
        times = number_column(adata, fields.time_key, "time_key")
        times = binned(times, fields.time_bins)
    covariates = read_covariates(adata, fields.covariate_keys)
    if fields.size_factor_key is not None:
        sizes = read_size_factors(adata, fields.size_factor_key).astype(np.float32)
    return {
        "perturbations": perturbations,
        "covariates": covariates,
        "doses": doses,
        "times": times,
        "size_factors": sizes,
    }
