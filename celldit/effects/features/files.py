"""Descriptions of perturbations from the files that people have: embeddings, tables, networks.

=====================  ==========================================================================
``.csv .tsv .parquet``  a row for each perturbation, its name first; or edges of a network: two
                        columns of names, and a weight where there is one
``.npy``                a matrix; its names stand one a line in a ``.txt`` beside it
``.npz``                a matrix and its names, or one vector by each name
``.h5ad``               ``obs_names`` x ``X``, as embeddings of genes are kept
=====================  ==========================================================================

Nothing in a file is executed: pickles, and arrays that hold objects, are refused.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from celldit.arguments import check_path
from celldit.data.disk.files import read_whole
from celldit.data.disk.pointers import check_matrices
from celldit.errors import FileError, InputError, reason_of

ENDINGS = (".csv", ".tsv", ".parquet", ".npy", ".npz", ".h5ad")
_SMALLER = "give a table of fewer rows or columns"
_PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".joblib")


def is_file(given: object) -> bool:
    """Whether features are given as a path."""
    return isinstance(given, (str, os.PathLike))


def is_named_matrix(given: object) -> bool:
    """Whether features are given as a matrix, or a file of one, and a list of names."""
    if not isinstance(given, tuple) or len(given) != 2:
        return False
    return isinstance(given[0], (np.ndarray, str, os.PathLike)) and isinstance(
        given[1], (list, tuple, np.ndarray, pd.Index, str, os.PathLike)
    )


def table_of(given: Any) -> pd.DataFrame | dict[str, Any]:
    """A table with one row for each perturbation, or the memberships that a network gives.

    Of a path, an AnnData, or a matrix (or the path of an ``.npy``) with a list of names (or the
    path of one). FileError if a file cannot be read, or may hold code; InputError if names and rows
    do not fit together.
    """
    if isinstance(given, ad.AnnData):
        return _of_anndata(given)
    if isinstance(given, tuple):
        matrix, names = given
        values = _load(check_path(matrix)) if is_file(matrix) else matrix
        listed = _lines(check_path(names)) if is_file(names) else [str(name) for name in names]
        return _named(values, listed)
    path = check_path(given)
    if path.suffix.lower() in _PICKLES:
        raise FileError(
            f"{path} may hold code, which celldit does not run; save the numbers as .npz: "
            "numpy.savez(path, names=names, vectors=matrix)."
        )
    if not path.is_file():
        raise FileError(
            f"There is no file {path}; check the path. Gene sets that celldit brings are made "
            'into a table with cd.pp.gene_features(adata, source="reactome").'
        )
    readers: dict[str, Callable[[Path], pd.DataFrame]] = {
        ".npy": _of_npy,
        ".npz": _of_npz,
        ".h5ad": lambda path: _of_anndata(read_whole(path, _SMALLER, "a table of features")),
    }
    try:
        return readers.get(path.suffix.lower(), _of_rows)(path)
    except (FileError, InputError):
        raise
    except ImportError as error:
        raise FileError(
            f'Reading {path} needs pyarrow; pip install "celldit[tables]", or give it as .csv.'
        ) from error
    except (OSError, ValueError, KeyError) as error:
        ending = path.suffix or "a table"
        raise FileError(f"{path} cannot be read as {ending} ({reason_of(error)}).") from error


def _of_rows(path: Path) -> pd.DataFrame | dict[str, Any]:
    if path.suffix.lower() == ".parquet":
        frame = pd.read_parquet(path)
        if not pd.api.types.is_integer_dtype(frame.index):
            return frame.set_index(frame.index.astype(str))
    elif path.suffix.lower() in (".csv", ".tsv"):
        separator = "\t" if path.suffix.lower() == ".tsv" else ","
        # A gene named NA is a gene.
        start = pd.read_csv(path, sep=separator, nrows=200, keep_default_na=False)
        first = {0: str, 1: str} if is_edges(start) else {0: str}
        frame = pd.read_csv(path, sep=separator, dtype=first, keep_default_na=False)
    else:
        raise FileError(
            f"{path} is no table of features; give one of {', '.join(ENDINGS)}, or a .gmt file to "
            "cd.pp.gene_features."
        )
    if is_edges(frame):
        return graph_table(frame)
    return frame.set_index(frame.columns[0]).rename_axis(None)


def is_edges(frame: pd.DataFrame) -> bool:
    """Whether a table lists edges: two columns of names, and at most one of numbers."""
    if frame.shape[1] not in (2, 3):
        return False
    numbers = [pd.api.types.is_numeric_dtype(frame[column]) for column in frame]
    return numbers[:2] == [False, False] and all(numbers[2:])


def graph_table(edges: pd.DataFrame) -> dict[str, Any]:
    """Memberships in neighbourhoods, in the form that ``uns`` holds of a sparse table.

    Edges are two columns of names, in either direction, and a weight above 0 where there is a
    third; InputError if a weight is missing or not above 0, or there is no edge. With Ã the
    adjacency of a network, weighed by the inverse square roots of the degrees, two genes are as
    alike as two steps of a lazy random walk on it say (the p-step random walk kernel with p = 2;
    Smola & Kondor 2003),

        K = B Bᵀ,   B = (I + Ã) / 2.

    B is as sparse as the network: each gene is a member of its own neighbourhood and of those of
    its neighbours, as others are of gene sets.
    """
    first, second = (edges.iloc[:, i].astype(str).to_numpy() for i in (0, 1))
    weight = np.ones(len(edges))
    if edges.shape[1] > 2:
        weight = edges.iloc[:, 2].to_numpy(dtype=np.float64)
    if not len(edges) or not np.isfinite(weight).all() or (weight <= 0).any():
        raise InputError(
            "A network needs edges with weights above 0: two columns of names, and a third of "
            "weights or none; drop the edges that have none."
        )
    names, place = np.unique(np.concatenate([first, second]), return_inverse=True)
    row, column = np.split(place, 2)
    apart = row != column
    one_way = sparse.csr_matrix(
        (weight[apart], (row[apart], column[apart])), shape=(len(names), len(names))
    )
    # An edge that is listed both ways is one edge.
    both = one_way.maximum(one_way.T)
    degree = np.asarray(both.sum(axis=1)).ravel()
    scale = sparse.diags(1 / np.sqrt(np.where(degree > 0, degree, 1)))
    walk = 0.5 * (sparse.identity(len(names)) + scale @ both @ scale)
    return {"genes": names.astype(object), "sets": names, "weights": sparse.csr_matrix(walk)}


def _load(path: Path) -> np.ndarray:
    try:
        loaded: np.ndarray = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise FileError(f"{path} cannot be read as .npy ({reason_of(error)}).") from error
    return loaded


def _lines(path: Path) -> list[str]:
    try:
        return [
            line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()
        ]
    except (OSError, ValueError) as error:
        raise FileError(
            f"{path} cannot be read as a list of names ({reason_of(error)})."
        ) from error


def _of_npy(path: Path) -> pd.DataFrame:
    names = path.with_suffix(".txt")
    if not names.is_file():
        raise FileError(
            f"{path} holds numbers without names; put these, one a line, into {names}, or pass "
            "features=(matrix, names)."
        )
    return _named(_load(path), _lines(names))


def _of_npz(path: Path) -> pd.DataFrame:
    with np.load(path, allow_pickle=False) as stored:
        arrays: Mapping[str, np.ndarray] = {name: stored[name] for name in stored.files}
    matrices = [each for each in arrays.values() if each.ndim == 2]
    texts = [each for each in arrays.values() if each.ndim == 1 and each.dtype.kind in "US"]
    if len(matrices) == 1 and len(texts) == 1:
        return _named(matrices[0], texts[0].astype(str).tolist())
    lengths = {each.shape for each in arrays.values()}
    if len(lengths) == 1 and all(
        each.ndim == 1 and each.dtype.kind != "U" for each in arrays.values()
    ):
        return _named(np.stack(list(arrays.values())), list(arrays))
    raise FileError(
        f"{path} must hold one matrix and one list of names, or one vector by each name; save it "
        "with numpy.savez(path, names=names, vectors=matrix)."
    )


def _of_anndata(adata: ad.AnnData) -> pd.DataFrame:
    check_matrices(adata, "features")
    adata = adata.to_memory() if adata.isbacked else adata
    if adata.X is None:
        raise InputError(
            "The AnnData of features has no X, which holds a row for each perturbation."
        )
    values = adata.X.toarray() if hasattr(adata.X, "toarray") else np.asarray(adata.X)
    return _named(values, list(adata.obs_names))


def _named(values: Any, names: Sequence[str]) -> pd.DataFrame:
    matrix = np.asarray(values)
    if matrix.ndim != 2 or len(matrix) != len(names):
        raise InputError(
            f"Features of shape {matrix.shape} do not fit {len(names)} names; give a matrix with "
            "one row for each name."
        )
    return pd.DataFrame(matrix, index=pd.Index([str(name) for name in names], dtype=object))
