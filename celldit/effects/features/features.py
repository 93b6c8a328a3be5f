"""What is known of perturbations from elsewhere: one row of numbers for each.

There are two kinds. Rows of any numbers (embeddings, fingerprints, effects in another screen) are
compared by how close they are. **Memberships** say which sets a gene belongs to, and how much: a
table with sparse columns, as :func:`celldit.pp.gene_features` makes of gene sets. Each set has an
effect of its own, which its members share, so that two genes are alike by the sets they have in
common, and a gene of many narrow sets may do more than a gene of one.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from celldit.data.disk.pointers import check_sparse
from celldit.effects.features.files import is_file, is_named_matrix, table_of
from celldit.errors import InputError, examples, outside

FeatureTable: TypeAlias = (
    pd.DataFrame | Mapping[str, Any] | str | os.PathLike[str] | ad.AnnData | tuple[Any, Any]
)
"""A table, what :func:`storable` makes of a sparse one, or what is read as one
(:mod:`celldit.effects.features.files`)."""
FeatureMatrix: TypeAlias = np.ndarray | sparse.csr_matrix
Features: TypeAlias = dict[str, tuple[tuple[str, ...], FeatureMatrix]]

# What ``uns`` holds of a sparse table, which AnnData cannot write as it is.
STORED = frozenset({"genes", "sets", "weights"})


def read_features(
    features: FeatureTable | Sequence[FeatureTable] | Mapping[str, FeatureTable] | None,
) -> Features:
    """Check feature tables and bring them to a scale.

    Back come, by source, P names and a matrix (P, columns). A table has one row per perturbation
    (its name is the index); several come in a list or by source, and need not hold the same
    perturbations. Files, an AnnData, and a matrix with its names are read as
    :mod:`celldit.effects.features.files` says.

    Of a table with sparse columns the rows stay as they are, up to one factor that makes their mean
    square 1, sparse; rows of zeros are left out, since nothing is known of these. Of any other,
    columns are centred and rows scaled to unit length, so that the inner product of two rows is
    their correlation. InputError if a row is named twice, or a value is missing or not a number.
    """
    if features is None:
        return {}
    tables: Mapping[str, FeatureTable]
    if isinstance(features, Mapping) and not _is_stored(features):
        tables = features
    elif is_named_matrix(features):
        tables = {"features": cast(FeatureTable, features)}
    elif isinstance(features, (list, tuple)):
        tables = {}
        for i, table in enumerate(features, start=1):
            name = Path(cast(str, table)).stem if is_file(table) else f"features_{i}"
            tables[name if name not in tables else f"{name}_{i}"] = table
    else:
        tables = {"features": features}
    return {str(source): _read(str(source), table) for source, table in tables.items()}


def _read(source: str, given: FeatureTable) -> tuple[tuple[str, ...], FeatureMatrix]:
    if is_file(given) or is_named_matrix(given) or isinstance(given, ad.AnnData):
        given = table_of(given)
    table = _from_stored(cast(Mapping[str, Any], given)) if _is_stored(given) else given
    if not isinstance(table, pd.DataFrame):
        raise InputError(
            f"features[{source!r}] must be a DataFrame with one row per perturbation, or a file or "
            f"AnnData of one, not {type(table).__name__}."
        )
    names = tuple(str(name) for name in table.index)
    if len(set(names)) < len(names):
        raise InputError(f"features[{source!r}] name a perturbation twice; drop duplicates.")
    matrix: FeatureMatrix
    try:
        matrix = membership_of(table) if is_sparse(table) else table.to_numpy(dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"features[{source!r}] hold values that are not numbers.") from error
    sums = np.asarray(abs(matrix).sum(axis=1)).ravel()
    bad = [name for name, total in zip(names, sums, strict=True) if not np.isfinite(total)]
    if bad:
        raise InputError(
            f"features[{source!r}] have missing values for {len(bad)} perturbations "
            f"({examples(bad)}); fill or drop these rows."
        )
    if sparse.issparse(matrix):
        has_values = sums > 0
        if not has_values.any():
            raise InputError(f"features[{source!r}] are zero for every perturbation.")
        names = tuple(name for name, keep in zip(names, has_values, strict=True) if keep)
        scaled = matrix[has_values] / np.sqrt((matrix.data**2).sum() / len(names))
        # Models keep them in single precision, and say the same before and after.
        return names, sparse.csr_matrix(scaled.astype(np.float32))
    if len(matrix) > 1:
        matrix = matrix - matrix.mean(axis=0)
    length = np.linalg.norm(matrix, axis=1, keepdims=True)
    return names, matrix / np.where(length > 0, length, 1)


def is_sparse(table: pd.DataFrame) -> bool:
    """Whether all columns are sparse, so that the table is one of memberships."""
    return table.shape[1] > 0 and all(isinstance(t, pd.SparseDtype) for t in table.dtypes)


def membership_of(table: pd.DataFrame) -> sparse.csr_matrix:
    """The numbers of a table with sparse columns."""
    matrix = sparse.csr_matrix(table.sparse.to_coo()).astype(np.float64)
    matrix.eliminate_zeros()
    return matrix


def storable(table: pd.DataFrame) -> pd.DataFrame | dict[str, Any]:
    """What AnnData can write: the table, or the parts of one with sparse columns."""
    if not is_sparse(table):
        return table
    return {
        "genes": np.array(table.index, dtype=object),
        "sets": np.array(table.columns, dtype=object),
        "weights": membership_of(table),
    }


def _is_stored(features: object) -> bool:
    return isinstance(features, Mapping) and set(features) == STORED


def _from_stored(stored: Mapping[str, Any]) -> pd.DataFrame:
    check_sparse(stored["weights"], 'features["weights"]')
    return pd.DataFrame.sparse.from_spmatrix(
        sparse.csr_matrix(stored["weights"]), index=stored["genes"], columns=stored["sets"]
    )


def to_arrays(features: Mapping[str, tuple[tuple[str, ...], FeatureMatrix]]) -> dict[str, Any]:
    """The matrices by ``features.SOURCE`` and ``memberships.SOURCE``, for safetensors.

    Of memberships the row, column and weight of each entry, shape (3, entries).
    """
    arrays = {}
    for source, (_, matrix) in features.items():
        if sparse.issparse(matrix):
            entries = sparse.coo_matrix(matrix)
            each = np.array([entries.row, entries.col, entries.data], dtype=np.float32)
            arrays[f"memberships.{source}"] = each
        else:
            arrays[f"features.{source}"] = matrix
    return arrays


def from_arrays(names: Mapping[str, Sequence[str]], arrays: Mapping[str, np.ndarray]) -> Features:
    """Rebuild features from their names and what :func:`to_arrays` made of the rest."""
    found: Features = {}
    for source, rows in names.items():
        if f"features.{source}" in arrays:
            found[source] = tuple(rows), arrays[f"features.{source}"]
        else:
            row, column, weight = arrays[f"memberships.{source}"]
            entries = weight, (row.astype(int), column.astype(int))
            shape = len(rows), int(column.max(initial=-1)) + 1
            found[source] = tuple(rows), sparse.csr_matrix(entries, shape=shape)
    return found


def described(features: Features) -> frozenset[str]:
    """Perturbations that at least one source knows."""
    return frozenset(name for names, _ in features.values() for name in names)


def warn_undescribed(features: Features, trained: Iterable[str]) -> None:
    """Name the perturbations of training that no source knows."""
    missing = sorted(set(trained) - described(features)) if features else []
    if missing:
        warnings.warn(
            f"{len(missing)} training perturbations have no features ({examples(missing, 6)}). "
            "Their own effects are measured, so they are used; the features learn nothing of them.",
            UserWarning,
            stacklevel=outside(),
        )


def warn_uninformative(features: Features, uninformative: Collection[str]) -> None:
    """Say which sources tell nothing of perturbations never seen, and what is then predicted."""
    if not uninformative:
        return
    names = " and ".join(repr(name) for name in uninformative)
    rest = [repr(name) for name in features if name not in uninformative]
    instead = (
        f"they rest on {' and '.join(rest)}."
        if rest
        else "they are near the mean effect of all perturbations. Another source may tell more."
    )
    warnings.warn(
        f"When each perturbation was left out in turn, features {names} were not seen to predict "
        "it better than the same features dealt out at random. Predictions of perturbations never "
        f"seen do not use them: {instead}",
        UserWarning,
        stacklevel=outside(),
    )
