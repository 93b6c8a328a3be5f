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

#: Knock-outs that the demo and the benchmark hold out in one replicate.
DEMO_PERTURBATIONS = ("IFNGR1", "JAK2", "STAT1", "SMAD4", "IRF1", "BRD4", "STAT2", "UBE2L6")
DEMO_REPLICATE = "rep_3"
_OTHER_REPLICATES = ("rep_1", "rep_2")

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
#: Most knock-outs of this screen do nothing that could be predicted; these do.
_STRONG_KNOCK_OUTS = ("IFNGR1", "IFNGR2", "IRF1", "JAK2", "SMAD4", "STAT1")
#: A cell type with fewer cells says little about a prediction, least of all as two halves.
_LEAST_CELLS = 80
#: Fewer perturbed cells are not scored.
_LEAST_SCORED = 10


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
    source
        Digest of the user's own file, so that results of an older one are not taken for it.
    """

    dataset: str
    name: str
    by: By
    test: tuple[Any, ...]
    group: str
    source: str = ""

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
        in training, every single gene of Norman and every strong knock-out of Papalexi, each left
        out alone, and the knock-outs of the demo in the other replicates.
    """
    found = [_knock_outs_in(DEMO_REPLICATE)]
    found += [Problem("kang", name, "context", (name,), name) for name in _CELL_TYPES]
    found.append(
        Problem("norman", "3 combinations", "combination", _COMBINATIONS, "3 combinations")
    )
    if not full:
        return found
    found += [_knock_outs_in(replicate) for replicate in _OTHER_REPLICATES]
    for name in DATASETS:
        found += _one_at_a_time(name)
    # What is left out alone in the quick setting, too, comes once, among its like.
    return list({(p.dataset, p.by, p.test): p for p in found}.values())


def pose(problem: Problem, adata: ad.AnnData | None = None) -> Posed:
    """Split the data of a problem, and make sure that no held-out cell is trained on.

    The data set is set up; None loads the bundled one.

    Raises
    ------
    InputError
        If held-out cells are among the training cells or had a part in the choice of genes or in
        size factors, or their contexts have no control cells.
    UnknownNameError
        If the data set, or what is to be held out, does not exist.
    """
    adata = set_up(problem.dataset) if adata is None else adata.copy()
    split(adata, problem.by, test=problem.test, key_added="_side")
    sides = adata.obs.pop("_side").to_numpy()
    _forget(adata)
    train, truth = adata[sides == "train"].copy(), adata[sides == "test"].copy()
    check_no_leak(train, truth)
    fields = Fields.from_anndata(adata)
    known, requested = (
        Conditions.from_anndata(train, fields),
        Conditions.from_anndata(truth, fields),
    )
    rows = known.is_control & np.isin(known.contexts, requested.contexts)
    lacking = sorted(set(requested.contexts) - set(known.contexts[rows]))
    if lacking:
        raise InputError(f"There are no control cells in {lacking[0]!r}, which is to be held out.")
    return Posed(train, truth, train[rows].copy(), tuple(requested.perturbations))


def _forget(adata: ad.AnnData) -> None:
    """Drop what was computed on all cells and no method needs: components, graphs, clusters."""
    for slot in (adata.obsm, adata.varm, adata.obsp, adata.varp):
        slot.clear()
    for key in set(adata.uns) - {"celldit", "source"}:
        del adata.uns[key]


def set_up(name: str) -> ad.AnnData:
    """Load a bundled data set and set it up."""
    if name not in DATASETS:
        raise UnknownNameError.among("data set of the benchmark", name, DATASETS)
    adata = datasets.load(name)
    setup_anndata(adata, **DATASETS[name])
    return adata


def _knock_outs_in(replicate: str) -> Problem:
    name = f"{len(DEMO_PERTURBATIONS)} knock-outs in {replicate}"
    pairs = tuple((knock_out, replicate) for knock_out in DEMO_PERTURBATIONS)
    return Problem("papalexi", name, "pair", pairs, name)


def _one_at_a_time(name: str) -> list[Problem]:
    if name == "papalexi":
        return [_alone(name, "perturbation", label) for label in _STRONG_KNOCK_OUTS]
    conditions = _conditions(name)
    if name == "norman":
        combinations = _whole_combinations(conditions)
        singles = [p for p in conditions.perturbations if len(conditions.parts_of[p]) == 1]
        return [
            *(_alone(name, "combination", label) for label in combinations),
            *(_alone(name, "perturbation", label) for label in singles),
        ]
    sizes = pd.crosstab(conditions.contexts, conditions.labels)
    large = sizes[(sizes.sum(axis=1) >= _LEAST_CELLS) & (sizes.min(axis=1) >= _LEAST_SCORED)]
    return [_alone(name, "context", str(context)) for context in large.index]


def _conditions(name: str) -> Conditions:
    adata = set_up(name)
    return Conditions.from_anndata(adata, Fields.from_anndata(adata))


def _alone(dataset: str, by: By, unit: str) -> Problem:
    groups = {
        "context": "each cell type",
        "combination": "each combination",
        "perturbation": "each perturbation never seen",
    }
    return Problem(dataset, f"{unit} alone", by, (unit,), groups[by])


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
