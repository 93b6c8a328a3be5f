"""Problems of the benchmark: a data set, and what is held out of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd

from celldit import datasets
from celldit.data import check_no_leak, setup_anndata, split
from celldit.data.fields import Fields
from celldit.data.holdout import Conditions
from celldit.data.splits import By
from celldit.errors import InputError, UnknownNameError

__all__ = ["DATASETS", "DEMO_PERTURBATIONS", "Posed", "Problem", "pose", "problems"]

#: Knock-outs that the demo and the benchmark hold out in one replicate.
DEMO_PERTURBATIONS = ("IFNGR1", "JAK2", "STAT1", "SMAD4", "IRF1", "BRD4", "STAT2", "UBE2L6")
DEMO_REPLICATE = "rep_3"

#: How the columns of each data set are set up.
DATASETS: dict[str, dict[str, Any]] = {
    "papalexi": {
        "perturbation_key": "perturbation",
        "control": "control",
        "covariate_keys": ["replicate"],
        "size_factor_key": "total_umis",
    },
    "kang": {
        "perturbation_key": "condition",
        "control": "control",
        "covariate_keys": ["cell_type"],
        "size_factor_key": "total_umis",
    },
    "norman": {
        "perturbation_key": "perturbation",
        "control": "control",
        "size_factor_key": "total_umis",
    },
}

_CELL_TYPES = ("CD14 Mono", "CD4 Naive T", "B", "NK")
_COMBINATIONS = ("KLF1+MAP2K6", "MAP2K3+MAP2K6", "MAP2K3+SLC38A2")
#: A cell type with fewer cells says little about a prediction, least of all as two halves.
_LEAST_CELLS = 80
#: Both halves of the ceiling must reach the 10 cells below which nothing is scored.
_LEAST_PERTURBED = 20


@dataclass(frozen=True)
class Problem:
    """What is held out of a data set.

    Parameters
    ----------
    dataset
        Name in :mod:`celldit.datasets`.
    name
        Of the problem, unique within the data set.
    by, test
        As in :func:`celldit.data.split`.
    group
        Problems of one group are averaged in the table.
    """

    dataset: str
    name: str
    by: By
    test: tuple[Any, ...]
    group: str

    @property
    def held_out(self) -> list[str]:
        """What is held out, as text."""
        return [" in ".join(unit) if isinstance(unit, tuple) else str(unit) for unit in self.test]


@dataclass(frozen=True, eq=False)
class Posed:
    """A problem as data.

    Parameters
    ----------
    train
        Cells that a method may learn from, controls of every context included.
    truth
        The perturbed cells that were held out.
    controls
        Control cells of the contexts held out, from which predictions start.
    perturbations
        Labels to predict.
    """

    train: ad.AnnData
    truth: ad.AnnData
    controls: ad.AnnData
    perturbations: tuple[str, ...]


def problems(*, full: bool = False) -> list[Problem]:
    """The problems of the benchmark.

    Parameters
    ----------
    full
        Whether to add every cell type with at least 80 cells, every combination whose parts remain
        in training, and every pair of knock-out and replicate, each left out alone.
    """
    pairs = tuple((name, DEMO_REPLICATE) for name in DEMO_PERTURBATIONS)
    found = [Problem("papalexi", "8 knock-outs in rep_3", "pair", pairs, "8 knock-outs in rep_3")]
    found += [Problem("kang", name, "context", (name,), name) for name in _CELL_TYPES]
    found.append(
        Problem("norman", "3 combinations", "combination", _COMBINATIONS, "3 combinations")
    )
    if full:
        for name in DATASETS:
            found += _one_at_a_time(name)
    return found


def pose(problem: Problem, adata: ad.AnnData | None = None) -> Posed:
    """Split the data of a problem, and make sure that no held-out cell is trained on.

    Parameters
    ----------
    problem
        What to hold out.
    adata
        The data set, set up; None to load the bundled one.

    Raises
    ------
    InputError
        If held-out cells are among the training cells, or their contexts have no control cells.
    UnknownNameError
        If the data set, or what is to be held out, does not exist.
    """
    adata = _set_up(problem.dataset) if adata is None else adata.copy()
    split(adata, problem.by, test=problem.test, key_added="_side")
    sides = adata.obs.pop("_side").to_numpy()
    train, truth = adata[sides == "train"].copy(), adata[sides == "test"].copy()
    check_no_leak(train, truth)
    fields = Fields.from_anndata(adata)
    known, asked = Conditions.from_anndata(train, fields), Conditions.from_anndata(truth, fields)
    rows = known.is_control & np.isin(known.contexts, asked.contexts)
    lacking = sorted(set(asked.contexts) - set(known.contexts[rows]))
    if lacking:
        raise InputError(f"There are no control cells in {lacking[0]!r}, which is to be held out.")
    return Posed(train, truth, train[rows].copy(), tuple(asked.perturbations))


def _set_up(name: str) -> ad.AnnData:
    if name not in DATASETS:
        raise UnknownNameError.among("data set of the benchmark", name, DATASETS)
    adata = datasets.load(name)
    setup_anndata(adata, **DATASETS[name])
    return adata


def _one_at_a_time(name: str) -> list[Problem]:
    adata = _set_up(name)
    conditions = Conditions.from_anndata(adata, Fields.from_anndata(adata))
    counts = pd.Series(1, index=[conditions.labels, conditions.contexts]).groupby(level=[0, 1])
    sizes: dict[tuple[str, str], int] = {(str(p), str(c)): n for (p, c), n in counts.sum().items()}
    perturbed = {key: n for key, n in sizes.items() if key[0] != conditions.control}
    if name == "norman":
        return [_alone(name, "combination", label) for label in _whole_combinations(conditions)]
    if name == "kang":
        totals = pd.Series(sizes).groupby(level=1).sum()
        large = [c for c in totals.index if totals[c] >= _LEAST_CELLS]
        kept = [c for c in large if min(n for k, n in sizes.items() if k[1] == c) >= 10]
        return [_alone(name, "context", context) for context in kept]
    return [_alone(name, "pair", key) for key, n in perturbed.items() if n >= _LEAST_PERTURBED]


def _alone(dataset: str, by: By, unit: Any) -> Problem:
    shown = " in ".join(unit) if isinstance(unit, tuple) else unit
    groups = {"context": "each cell type", "combination": "each combination", "pair": "each pair"}
    return Problem(dataset, f"{shown} alone", by, (unit,), groups[by])


def _whole_combinations(conditions: Conditions) -> Sequence[str]:
    """Combinations of which every part stays in training, alone or in another combination."""
    parts_of = conditions.parts_of
    return [
        label
        for label in conditions.perturbations
        if len(parts_of[label]) > 1
        and all(
            any(part in names for other, names in parts_of.items() if other != label)
            for part in parts_of[label]
        )
    ]
