"""Effect tables from what people have: AnnData, ``.h5ad``, tables of results in rows."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import anndata as ad
import h5py
import numpy as np
import pandas as pd

from celldit.arguments import check_path
from celldit.data.disk.files import check_no_links, read_whole, reading
from celldit.data.disk.pointers import check_matrices
from celldit.effects.tables.table import DIRECTIONS, FORMAT, KEY, EffectTable, StoredRows
from celldit.errors import FileError, InputError, examples

TableSource: TypeAlias = EffectTable | ad.AnnData | pd.DataFrame | str | os.PathLike[str]
"""What ``CellDiT(effects=...)`` takes as one table."""

#: Columns of tables in rows, and what other tools call them.
COLUMNS = {
    "perturbation": ("perturbation", "condition", "target", "contrast"),
    "gene": ("gene", "names", "variable", "feature", "gene_symbol"),
    "log_fold_change": ("log_fold_change", "lfc", "logfoldchanges", "log2_fold_change", "log_fc",
                        "log2foldchange", "logfc"),
    "se": ("se", "lfcse", "standard_error", "sd"),
    "context": ("context", "cell_type", "cell_line"),
    "direction": ("direction",),
    "n_cells": ("n_cells",),
    "n_control": ("n_control",),
}  # fmt: skip
EMPTY = "The table of effects is empty; it needs rows of perturbations, and genes."
_SMALLER, _KIND = "give a table of fewer perturbations or genes", "a table of effects"
_IN_TWO = ("logfoldchanges", "log2_fold_change", "log2foldchange")


def read_effects(
    effects: TableSource | Sequence[TableSource] | Mapping[str, TableSource] | None,
) -> dict[str, EffectTable]:
    """Tables by name, as ``CellDiT(effects=...)`` takes them.

    InputError if one is no table of effects. FileError if a file cannot be read.
    """
    if effects is None:
        return {}
    if isinstance(effects, Mapping):
        return {str(name): read_table(one) for name, one in effects.items()}
    listed = list(effects) if isinstance(effects, (list, tuple)) else [effects]
    found: dict[str, EffectTable] = {}
    for i, one in enumerate(listed, start=1):
        table = read_table(one)
        name = table.source or f"table_{i}"
        found[name if name not in found else f"{name}_{i}"] = table
    return found


def read_table(given: TableSource) -> EffectTable:
    """One table, checked."""
    if isinstance(given, EffectTable):
        return given
    if isinstance(given, ad.AnnData):
        return _of_anndata(given)
    if isinstance(given, pd.DataFrame):
        return _of_rows(given, "")
    if isinstance(given, (str, os.PathLike)):
        return _of_file(check_path(given))
    raise InputError(
        "effects= takes tables of effects: what cd.pp.effect_table gives, an AnnData of "
        "perturbations x genes, a DataFrame with the columns perturbation, gene and "
        f"log_fold_change, or a path to one of these, not {type(given).__name__}."
    )


def _of_file(path: Path) -> EffectTable:
    if not path.is_file():
        raise FileError(f"There is no file {path}; check the path.")
    ending = path.suffix.lower()
    if ending == ".h5ad":
        return _of_h5ad(path)
    if ending not in (".csv", ".parquet"):
        raise FileError(f"{path} is no table of effects: give a .h5ad, .parquet or .csv file.")
    try:
        with reading(path, _SMALLER, _KIND):
            if ending == ".csv":
                frame = pd.read_csv(path, keep_default_na=False, na_values=[""])
            else:
                frame = pd.read_parquet(path)
    except FileError as error:
        if not isinstance(error.__cause__, ImportError):
            raise
        raise FileError(
            f'Reading {path} needs pyarrow; pip install "celldit[tables]", or give it as .csv or '
            ".h5ad."
        ) from error
    return _of_rows(frame, path.stem)


def _of_h5ad(path: Path) -> EffectTable:
    check_no_links(path, _KIND)
    with reading(path, _SMALLER, _KIND), h5py.File(path, "r") as file:
        if not isinstance(file["X"], h5py.Dataset):
            return _of_anndata(read_whole(path, _SMALLER, _KIND), path.stem)
        shape = file["X"].shape
        has_errors = "layers" in file and isinstance(file["layers"].get("se"), h5py.Dataset)
        obs, var = (ad.io.read_elem(file[name]) for name in ("obs", "var"))
        uns = ad.io.read_elem(file["uns"]) if "uns" in file else {}
        if has_errors and file["layers/se"].shape != shape:
            raise InputError('layers["se"] of the table of effects is not of the shape of X.')
    errors = StoredRows(path, "layers/se", shape) if has_errors else None
    return _checked(obs, var, uns, StoredRows(path, "X", shape), errors, path.stem)


def _of_anndata(adata: ad.AnnData, source: str = "") -> EffectTable:
    def dense(matrix: Any) -> np.ndarray:
        whole = matrix.toarray() if hasattr(matrix, "toarray") else matrix
        return np.asarray(whole, dtype=np.float32)

    check_matrices(adata, "table")
    adata = adata.to_memory() if adata.isbacked else adata
    if adata.X is None:
        raise InputError("The table of effects has no X, which holds log fold changes.")
    errors = dense(adata.layers["se"]) if "se" in adata.layers else None
    return _checked(adata.obs, adata.var, adata.uns, dense(adata.X), errors, source)


def _checked(
    obs: pd.DataFrame,
    var: pd.DataFrame,
    uns: Mapping[str, Any],
    effects: np.ndarray | StoredRows,
    errors: np.ndarray | StoredRows | None,
    source: str,
) -> EffectTable:
    said = uns.get(KEY, {})
    said = said if isinstance(said, Mapping) else {}
    if int(said.get("format", FORMAT)) > FORMAT:
        raise FileError("The table of effects is of a later celldit; update celldit to read it.")
    frame = pd.DataFrame(index=range(len(obs)))
    frame["perturbation"] = _words(obs.get("perturbation", obs.index.to_series()))
    for name in ("context", "direction"):
        frame[name] = _words(obs[name]) if name in obs else ""
    for name in ("n_cells", "n_control"):
        if name in obs:
            frame[name] = np.asarray(obs[name], dtype=np.float64)
    aliases = {
        str(kind): [str(name) for name in var[kind]]
        for kind in var
        if not pd.api.types.is_numeric_dtype(var[kind])
    }
    table = EffectTable(
        frame,
        tuple(str(name) for name in var.index),
        effects,
        errors,
        str(said.get("source", "")) or source,
        str(said.get("licence", "")),
        str(said.get("species", "")),
        aliases,
        str(said.get("log", "")),
        str(said.get("sep", "")),
    )
    check_table(table)
    return table


def _words(column: pd.Series) -> np.ndarray:
    """A column as text, object (str), ``""`` where a value is missing."""
    return column.astype(object).where(column.notna(), "").astype(str).to_numpy(dtype=object)


def check_table(table: EffectTable) -> None:
    """Refuse a table that cannot be used.

    It is empty, names a gene twice, a perturbation twice in one context or in contradictory
    directions, or has a direction that is none.
    """
    if not len(table) or not table.genes:
        raise InputError(EMPTY)
    if len(set(table.genes)) < len(table.genes):
        twice = pd.Index(table.genes)
        raise InputError(
            f"The table of effects names genes twice ({examples(twice[twice.duplicated()])}); drop "
            "the duplicates."
        )
    where = table.obs[["perturbation", "context"]]
    directions = table.obs.groupby("perturbation")["direction"].nunique()
    both = sorted(directions.index[directions > 1])
    if both:
        found = sorted(set(table.obs.loc[table.obs["perturbation"] == both[0], "direction"]))
        raise InputError(
            f"The table of effects has {len(both)} perturbations in several directions "
            f"({examples(both)}: {' and '.join(repr(d) for d in found)}), which are not averaged; "
            "keep the rows of one direction, or pass two tables."
        )
    again = sorted(set(where["perturbation"][where.duplicated()]))
    if again:
        raise InputError(
            f"The table of effects has several rows for {len(again)} perturbations in one context "
            f"({examples(again)}), which are not averaged; drop the duplicates, or say in "
            "obs['context'] where each was measured."
        )
    odd = sorted(set(table.obs["direction"]) - set(DIRECTIONS))
    if odd:
        raise InputError(
            f"The table of effects has the direction {odd[0]!r}; use "
            f"{', '.join(repr(d) for d in DIRECTIONS[1:])}, or leave it empty."
        )


def _of_rows(frame: pd.DataFrame, source: str) -> EffectTable:
    """A table with one row for each perturbation and gene."""
    lower = {str(column).lower(): column for column in frame.columns}
    found = {
        name: next((lower[other] for other in others if other in lower), None)
        for name, others in COLUMNS.items()
    }
    missing = [n for n in ("perturbation", "gene", "log_fold_change") if found[n] is None]
    if missing:
        raise InputError(
            f"The table of effects lacks the column {missing[0]!r} (it has "
            f"{examples(frame.columns)}); give perturbation, gene and log_fold_change, and se, "
            "context, direction and n_cells where they are known, one row for each perturbation "
            "and gene."
        )
    if not len(frame):
        raise InputError(EMPTY)
    columns = {name: frame[column] for name, column in found.items() if column is not None}
    try:
        values = columns["log_fold_change"].to_numpy(np.float32)
        errors = columns["se"].to_numpy(np.float32) if "se" in columns else None
    except (TypeError, ValueError) as error:
        raise InputError("The table of effects holds values that are not numbers.") from error
    named = ("perturbation", "context", "direction")
    keys = pd.DataFrame({n: _words(columns[n]) if n in columns else "" for n in named})
    row_N, first = pd.factorize(pd.MultiIndex.from_frame(keys))
    gene_N, genes = pd.factorize(columns["gene"].astype(str))
    if len(np.unique(row_N * len(genes) + gene_N)) < len(frame):
        raise InputError(
            "The table of effects gives several values for one perturbation, context and gene; "
            "drop or average the duplicates."
        )

    def spread(values_N: np.ndarray) -> np.ndarray:
        matrix = np.full((len(first), len(genes)), np.nan, dtype=np.float32)
        matrix[row_N, gene_N] = values_N
        return matrix

    obs = pd.DataFrame(list(first), columns=["perturbation", "context", "direction"], dtype=object)
    for name in ("n_cells", "n_control"):
        if name in columns:
            obs[name] = columns[name].groupby(row_N).max().to_numpy(np.float64)
    in_two = str(found["log_fold_change"]).lower() in _IN_TWO
    table = EffectTable(
        obs,
        tuple(str(gene) for gene in genes),
        spread(values),
        None if errors is None else spread(errors),
        str(frame.attrs.get("source", "")) or source,
        str(frame.attrs.get("licence", "")),
        str(frame.attrs.get("species", "")),
        log="2" if in_two else str(frame.attrs.get("log", "")),
        sep=str(frame.attrs.get("sep", "")),
    )
    check_table(table)
    return table
