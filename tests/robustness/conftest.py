"""AnnData as strangers hand it in: any mix of types, storage, names, labels and numbers."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import strategies as st
from scipy import sparse

LONG = "x" * 10_000
DTYPES = ["int8", "uint8", "int16", "int32", "uint32", "int64", "uint64"]
DTYPES += ["float16", "float32", "float64", "bool", "object", "complex64", "U3"]
#: What may be wrong with each axis of the input; the first entry is what most labs have.
# fmt: off
AXES: dict[str, list[Any]] = {
    "n_obs": [24, 60, 1, 0, 2, 7],
    "n_vars": [12, 30, 1, 0, 2, 3],
    "dtype": ["int32", *DTYPES],
    "storage": ["csr", "dense", "csc", "fortran", "csr_array", "coo", "masked", "matrix", "none"],
    "access": ["memory", "view", "backed", "backed view", "readonly", "scattered"],
    "values": ["counts", "huge", "enormous", "negative", "fractions", "nan", "inf", "all zero",
               "zero cells", "zero genes", "constant", "sizes"],
    "genes": ["plain", "hallmark", "duplicate", "integer", "unicode", "empty", "long", "nan"],
    "cells": ["plain", "duplicate", "integer", "unicode", "empty", "float"],
    "labels": ["usual", "one each", "only controls", "no controls", "unused levels", "separators",
               "unicode", "blanks", "long", "integer", "boolean", "float", "missing", "nan",
               "mixed", "tuples", "dates", "ordered", "intervals", "nullable", "bytes",
               "numeric text", "absent"],
    "covariate": [None, "usual", "missing", "integer", "joiner", "long", "dates", "constant",
                  "one each", "absent"],
    "size": [None, "usual", "zero", "negative", "nan", "inf", "text", "extreme", "giant"],
    "dose": [None, "usual", "text", "nan", "negative", "inf", "objects", "extreme", "giant"],
    "time": [None, "usual", "nan", "dates", "text", "objects", "extreme", "giant"],
    "layer": [None, "same", "absent"],
}
# fmt: on


def plans() -> st.SearchStrategy[dict[str, Any]]:
    """One to four oddities in an otherwise usual AnnData, and a seed for the numbers."""
    usual = st.fixed_dictionaries({name: st.just(choices[0]) for name, choices in AXES.items()})
    odd = st.lists(st.sampled_from(sorted(AXES)), min_size=1, max_size=4, unique=True).flatmap(
        lambda names: st.fixed_dictionaries({n: st.sampled_from(AXES[n][1:]) for n in names})
    )
    return st.builds(
        lambda base, changes, seed: {**base, **changes, "seed": seed},
        usual,
        odd,
        st.integers(0, 2**16),
    )


def build(plan: dict[str, Any], folder: Path) -> ad.AnnData:
    """Make the AnnData of a plan; `folder` takes the files of backed ones."""
    rng = np.random.default_rng(plan["seed"])
    n_obs, n_vars = plan["n_obs"], plan["n_vars"]
    obs = pd.DataFrame(index=_names(plan["cells"], "cell", n_obs))
    columns = {
        "perturbation": _labels(plan["labels"], n_obs),
        "donor": _covariate(plan["covariate"], n_obs),
        "umis": _numbers(plan["size"], n_obs),
        "dose": _numbers(plan["dose"], n_obs),
        "day": _numbers(plan["time"], n_obs),
    }
    for name, column in columns.items():
        if column is not None:
            obs[name] = column
    var = pd.DataFrame(index=_names(plan["genes"], "gene", n_vars))
    matrix = _stored(_matrix(plan, rng), plan["storage"])
    adata = ad.AnnData(matrix, obs=obs, var=var, shape=(n_obs, n_vars) if matrix is None else None)
    if plan["layer"] == "same" and matrix is not None:
        adata.layers["counts"] = matrix.copy()
        adata.X = sparse.csr_matrix(np.log1p(rng.random((n_obs, n_vars))))
    return _accessed(adata, plan["access"], folder)


def arguments(plan: dict[str, Any]) -> dict[str, Any]:
    """How a plan is set up."""
    keys = {"size_factor_key": ("size", "umis"), "dose_key": ("dose", "dose")}
    keys["time_key"] = ("time", "day")
    named = {key: column for key, (axis, column) in keys.items() if plan[axis] is not None}
    if plan["covariate"] is not None:
        named["covariate_keys"] = ["donor"]
    if plan["layer"] in ("same", "absent"):
        named["counts_layer"] = "counts"
    control = {"integer": 0, "boolean": False, "float": 0.0, "numeric text": "0"}
    return {
        "perturbation_key": "perturbation",
        "control": control.get(plan["labels"], "control"),
        **named,
    }


def _names(kind: str, word: str, n: int) -> Any:
    names: dict[str, Callable[[int], Any]] = {
        "plain": lambda i: f"{word}{i}",
        "duplicate": lambda i: f"{word}{i // 2}",
        "integer": lambda i: i,
        "float": lambda i: i + 0.5,
        "unicode": lambda i: f"{word}-β\u202e\n{i}",
        "empty": lambda i: "" if i == 0 else f"{word}{i}",
        "long": lambda i: LONG + str(i),
        "nan": lambda i: float("nan") if i == 0 else f"{word}{i}",
        "hallmark": lambda i: _HALLMARK[i % len(_HALLMARK)] + ("" if i < 12 else f"-{i}"),
    }
    return pd.Index([names[kind](i) for i in range(n)])


_HALLMARK = ["STAT1", "IRF1", "JAK2", "IFNGR1", "IFNGR2", "CD86", "MYC", "TNF", "IL6", "JUN"]
_HALLMARK += ["FOS", "EGR1"]


def _labels(kind: str, n: int) -> Any:
    cycles: dict[str, list[Any]] = {
        "usual": ["control", "A", "B"],
        "only controls": ["control"],
        "no controls": ["A", "B"],
        "separators": ["control", "A+B", "+A", "A++B", "+"],
        "unicode": ["control", "干扰素", "IFN-β\u200b", "\u202eA", "a\nb", "\x00"],
        "blanks": ["control", " A ", "A", "   "],
        "long": ["control", LONG, LONG + "y"],
        "integer": [0, 1, 2],
        "boolean": [False, True],
        "float": [0.0, 1.5, 2.0],
        "missing": ["control", "A", None],
        "nan": ["control", float("nan"), float("nan")],
        "mixed": ["control", 1, 1.0, "1", True],
        "tuples": ["control", ("A", "B")],
        "bytes": ["control", b"A"],
        "numeric text": ["0", "1", "2"],
    }
    if kind == "absent":
        return None
    if kind == "one each":
        return ["control" if i % 3 == 0 else f"P{i}" for i in range(n)]
    if kind in cycles:
        column = pd.Series([cycles[kind][i % len(cycles[kind])] for i in range(n)], dtype=object)
        return column.infer_objects().to_numpy()
    texts = ["control" if i % 2 else "A" for i in range(n)]
    if kind == "unused levels":
        return pd.Categorical(texts, categories=["A", "B", "control", "never"])
    if kind == "ordered":
        return pd.Categorical(texts, categories=["control", "A"], ordered=True)
    if kind == "nullable":
        return pd.array([*texts[1:], None][:n], dtype="string")
    if kind == "intervals":
        return pd.cut(np.arange(float(n)), [-1, 0.5, 3, 99]) if n else None
    return pd.to_datetime(["2026-01-01", "2026-01-02"] * n)[:n]


def _covariate(kind: str | None, n: int) -> Any:
    values: dict[str, Callable[[int], Any]] = {
        "usual": lambda i: f"d{i // 3 % 2}",
        "missing": lambda i: None if i == 1 else "d1",
        "integer": lambda i: i // 3 % 2,
        "joiner": lambda i: f"a | {i // 3 % 2}",
        "long": lambda i: LONG + str(i // 3 % 2),
        "dates": lambda i: pd.Timestamp(2026, 1, 1 + i // 3 % 2),
        "constant": lambda i: "d",
        "one each": lambda i: f"d{i}",
    }
    return [values[kind](i) for i in range(n)] if kind in values else None


def _numbers(kind: str | None, n: int) -> Any:
    values: dict[str, Callable[[int], Any]] = {
        "usual": lambda i: 1.0 + i % 3,
        "zero": lambda i: float(i),
        "negative": lambda i: 1.0 - i,
        "nan": lambda i: float("nan") if i == 1 else 1.0,
        "inf": lambda i: float("inf") if i == 1 else 1.0,
        "text": lambda i: ["1", "1+2", "high", "1e400"][i % 4],
        "extreme": lambda i: 10.0 ** (i % 8),
        "giant": lambda i: [1e-300, 1e300, 1e38][i % 3],
        "objects": lambda i: [1, "2", None, (1,), b"3"][i % 5],
        "dates": lambda i: pd.Timestamp(2026, 1, 1 + i % 2),
    }
    return [values[kind](i) for i in range(n)] if kind is not None else None


def _matrix(plan: dict[str, Any], rng: np.random.Generator) -> np.ndarray:
    shape, kind = (plan["n_obs"], plan["n_vars"]), plan["values"]
    x = rng.poisson(2.0, shape).astype(np.float64)
    if x.size:
        x[:, 0] += 1
    if kind in ("huge", "enormous"):
        x *= 1e6 if kind == "huge" else 1e30
    elif kind == "fractions":
        x += rng.random(shape)
    elif kind == "all zero":
        x[:] = 0
    elif kind == "zero cells":
        x[::3] = 0
    elif kind == "zero genes":
        x[:, 1::2] = 0
    elif kind == "constant":
        x[:] = 3
    elif kind == "sizes":
        x *= 10.0 ** rng.integers(0, 6, (shape[0], 1))
    elif kind in ("negative", "nan", "inf") and x.size:
        x[-1, -1] = {"negative": -1.0, "nan": np.nan, "inf": np.inf}[kind]
    # Where the type is not the oddity, it holds the values as they are.
    holds_all = kind in ("enormous", "fractions", "nan", "inf") and plan["dtype"] == "int32"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return x.astype("float64" if holds_all else plan["dtype"])


def _stored(x: np.ndarray, storage: str) -> Any:
    if storage == "none":
        return None
    if storage == "fortran":
        return np.asfortranarray(x)
    if storage == "masked":
        return np.ma.masked_array(x, mask=np.zeros(x.shape, dtype=bool))
    if storage == "matrix":
        return np.asmatrix(x)
    kinds = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix, "coo": sparse.coo_matrix}
    kinds["csr_array"] = sparse.csr_array
    if storage not in kinds or x.dtype.kind in "OUcS" or x.dtype == np.float16:
        return x
    return kinds[storage](x)


def _accessed(adata: ad.AnnData, access: str, folder: Path) -> ad.AnnData:
    if access == "view":
        return adata[: max(1, adata.n_obs - 1)]
    if access == "scattered":
        return adata[np.arange(adata.n_obs)[::-1], np.arange(adata.n_vars)[::-1]]
    if access == "readonly":
        matrix = adata.X
        for array in (matrix, getattr(matrix, "data", None), getattr(matrix, "indices", None)):
            if isinstance(array, np.ndarray):
                array.flags.writeable = False
        return adata
    if access.startswith("backed"):
        path = folder / f"{len(os.listdir(folder))}.h5ad"
        adata.write_h5ad(path)
        adata = ad.read_h5ad(path, backed="r")
        return adata[: max(1, adata.n_obs - 1)] if access == "backed view" else adata
    return adata


def snapshot(adata: ad.AnnData) -> dict[str, Any]:
    """Everything that a caller could see changed, as bytes and text."""
    seen: dict[str, Any] = {"shape": adata.shape, "view": adata.is_view, "uns": repr(adata.uns)}
    seen["obs"] = (repr(adata.obs.dtypes.to_dict()), adata.obs.to_csv())
    seen["names"] = (repr(list(adata.obs_names)), repr(list(adata.var_names)))
    matrices = {"X": adata.X, **dict(adata.layers)}
    for name, matrix in matrices.items():
        if hasattr(matrix, "to_memory"):
            matrix = matrix.to_memory()
        elif not (sparse.issparse(matrix) or matrix is None):
            matrix = np.asarray(matrix)
        if sparse.issparse(matrix):
            parts = [getattr(matrix, n, None) for n in ("data", "indices", "indptr", "row", "col")]
            seen[name] = [(p.dtype.str, p.tobytes()) for p in parts if p is not None]
        elif matrix is not None:
            seen[name] = (matrix.dtype.str, repr(matrix.tolist()))
    return seen


@pytest.fixture(scope="session")
def hostile() -> Any:
    """The strategies and builders of this module, for the tests."""
    from types import SimpleNamespace

    return SimpleNamespace(plans=plans, build=build, arguments=arguments, snapshot=snapshot)
