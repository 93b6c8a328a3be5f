"""Examples in docstrings do what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import warnings
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")

import matplotlib.pyplot as plt

import celldit as cd

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def examples() -> list[doctest.DocTest]:
    """Every docstring of the package that holds an example, once."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    found: dict[str, doctest.DocTest] = {}
    for module in pkgutil.walk_packages(cd.__path__, "celldit."):
        if module.name.endswith("__main__"):
            continue
        for test in finder.find(importlib.import_module(module.name), module.name):
            if test.examples:
                found[test.name] = test
    return list(found.values())


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """What examples may use: a part of Papalexi, models at their linear start, a prediction."""
    adata = cd.datasets.papalexi()
    kept = adata.obs["perturbation"].isin(["control", "STAT1", "IRF1", "JAK2"])
    rows = np.random.default_rng(0).permutation(np.flatnonzero(kept))[:1800]
    adata = adata[np.sort(rows)].copy()
    cd.CellDiT.setup_anndata(
        adata,
        perturbation_key="perturbation",
        control="control",
        covariate_keys=["replicate"],
        size_factor_key="total_umis",
    )
    model = cd.CellDiT(adata, tokenizer="gene_sets")
    model.train(max_epochs=0, enable_progress_bar=False)
    predicted = model.predict(perturbations="STAT1")
    return {"cd": cd, "adata": adata, "model": model, "predicted": predicted}


@pytest.mark.parametrize("test", examples(), ids=lambda test: test.name)
def test_example(test: doctest.DocTest, names: dict[str, Any]) -> None:
    test.globs.update({**names, "adata": names["adata"].copy()})
    said: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        result = doctest.DocTestRunner(optionflags=FLAGS).run(test, out=said.append)
    plt.close("all")
    assert result.failed == 0, "".join(said)


def test_public_functions_have_examples() -> None:
    shown = {test.name for test in examples()}
    lacking = []
    for space in (cd.pp, cd.tl, cd.pl):
        for name in space.__all__:
            function = getattr(space, name)
            if f"{function.__module__}.{function.__name__}" not in shown:
                lacking.append(f"{space.__name__}.{name}")
    assert lacking == []
