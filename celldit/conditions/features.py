"""What is known of perturbations from elsewhere: one row of numbers for each."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import pandas as pd

from celldit.errors import InputError, examples

FeatureTable: TypeAlias = pd.DataFrame
Features: TypeAlias = dict[str, tuple[tuple[str, ...], np.ndarray]]


def read_features(
    features: FeatureTable | Sequence[FeatureTable] | Mapping[str, FeatureTable] | None,
) -> Features:
    """Check feature tables and scale their rows to unit length.

    Parameters
    ----------
    features
        One row per perturbation (its name is the index), any number of columns; or several such
        tables, in a list or by source. They need not hold the same perturbations.

    Returns
    -------
    dict
        ``{source: (names, matrix of shape (P, n_columns))}``. Columns are centred and rows scaled
        to unit length, so that the inner product of two rows is their correlation.

    Raises
    ------
    InputError
        If a row is named twice, or a value is missing or not a number.
    """
    if features is None:
        return {}
    tables: Mapping[str, FeatureTable]
    if isinstance(features, Mapping):
        tables = features
    elif isinstance(features, (list, tuple)):
        tables = {f"features_{i + 1}": table for i, table in enumerate(features)}
    else:
        tables = {"features": features}
    result: Features = {}
    for source, table in tables.items():
        if not isinstance(table, pd.DataFrame):
            raise InputError(
                f"features[{source!r}] must be a DataFrame with one row per perturbation, not "
                f"{type(table).__name__}."
            )
        names = tuple(str(name) for name in table.index)
        if len(set(names)) < len(names):
            raise InputError(f"features[{source!r}] name a perturbation twice; drop duplicates.")
        try:
            matrix = table.to_numpy(dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(f"features[{source!r}] hold values that are not numbers.") from error
        bad = [name for name, row in zip(names, matrix, strict=True) if not np.isfinite(row).all()]
        if bad:
            raise InputError(
                f"features[{source!r}] have missing values for {len(bad)} perturbations "
                f"({examples(bad)}); fill or drop these rows."
            )
        if len(matrix) > 1:
            matrix = matrix - matrix.mean(axis=0)
        length = np.linalg.norm(matrix, axis=1, keepdims=True)
        result[str(source)] = names, matrix / np.where(length > 0, length, 1)
    return result


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
            stacklevel=3,
        )
