"""Conditions held out of the bundled screens as files and methods see them, and simple methods.

``problems`` lists what is held out, ``pose`` splits the cells and makes sure that nothing of what
was held out is learned from, ``baseline_methods`` and ``celldit_method`` predict.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
from problems import COMBINATIONS, KANG_TYPES

import celldit as cd
from celldit.data import check_no_leak
from celldit.data.fields import Fields
from celldit.data.holdout import Conditions
from celldit.data.labels.labels import parts
from celldit.data.splits import By
from celldit.errors import InputError
from celldit.evaluation.baselines import SIMPLE, predict_baseline
from celldit.training import TrainingConfig

KNOCK_OUTS = ("IFNGR1", "JAK2", "STAT1", "SMAD4", "IRF1", "BRD4", "STAT2", "UBE2L6")
_PAPALEXI_OR_NORMAN = {
    "perturbation_key": "perturbation",
    "control": "control",
    "size_factor_key": "total_umis",
}
#: How the columns of each data set are set up.
DATASETS: dict[str, dict[str, Any]] = {
    "papalexi": {**_PAPALEXI_OR_NORMAN, "covariate_keys": ["replicate"]},
    "kang": {
        "perturbation_key": "condition",
        "control": "control",
        "covariate_keys": ["cell_type"],
        "size_factor_key": "total_umis",
    },
    "norman": _PAPALEXI_OR_NORMAN,
}


@dataclass(frozen=True)
class Problem:
    """What is held out of a data set: ``by`` and ``test`` as in :func:`celldit.pp.split`."""

    dataset: str
    name: str
    by: By
    test: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Posed:
    """A problem as data.

    Attributes
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


#: Learns from ``posed.train``, predicts ``posed.perturbations`` of ``posed.controls``; the second
#: argument is the seed. It never sees ``posed.truth``: that is taken out before the call.
Method = Callable[[Posed, int], ad.AnnData]


def problems(*, full: bool = False) -> list[Problem]:
    """The six problems of the README; with `full` every replicate and every cell type, too."""
    types = ("CD14 Mono", "CD4 Naive T", "B", "NK")
    replicates = ("rep_3",)
    if full:
        types += tuple(name for name in KANG_TYPES if name not in types)
        replicates += ("rep_1", "rep_2")
    return [
        *(
            Problem(
                "papalexi",
                f"{len(KNOCK_OUTS)} knock-outs in {replicate}",
                "pair",
                tuple((knock_out, replicate) for knock_out in KNOCK_OUTS),
            )
            for replicate in replicates
        ),
        *(Problem("kang", name, "context", (name,)) for name in types),
        Problem("norman", "3 combinations", "combination", COMBINATIONS),
    ]


def set_up(name: str) -> ad.AnnData:
    """Load a bundled data set and set it up."""
    adata = cd.datasets.load(name)
    cd.CellDiT.setup_anndata(adata, **DATASETS[name])
    return adata


def pose(problem: Problem, adata: ad.AnnData | None = None) -> Posed:
    """Split the data of a problem, and make sure that no held-out cell is trained on.

    The data set is set up; None loads the bundled one.

    Raises
    ------
    InputError
        If held-out cells are among the training cells or had a part in the choice of genes or in
        size factors, or their contexts have no control cells.
    """
    adata = set_up(problem.dataset) if adata is None else adata.copy()
    cd.pp.split(adata, problem.by, test=problem.test, key_added="_side")
    sides = adata.obs.pop("_side").to_numpy()
    # What was computed on all cells and no method needs: components, graphs, clusters.
    for slot in (adata.obsm, adata.varm, adata.obsp, adata.varp):
        slot.clear()
    for key in set(adata.uns) - {"celldit", "source"}:
        del adata.uns[key]
    train, truth = adata[sides == "train"].copy(), adata[sides == "test"].copy()
    check_no_leak(train, truth)
    fields = Fields.from_anndata(adata)
    known, requested = (Conditions.from_anndata(cells, fields) for cells in (train, truth))
    rows = known.is_control & np.isin(known.contexts, requested.contexts)
    lacking = sorted(set(requested.contexts) - set(known.contexts[rows]))
    if lacking:
        raise InputError(f"There are no control cells in {lacking[0]!r}, which is to be held out.")
    return Posed(train, truth, train[rows].copy(), tuple(requested.perturbations))


def baseline_methods() -> dict[str, Method]:
    """The simple predictors, by the names used in tables."""

    def simple(name: str, posed: Posed, seed: int) -> ad.AnnData:
        return predict_baseline(name, posed.train, posed.controls, posed.perturbations, seed=seed)

    return {name: partial(simple, name) for name in SIMPLE}


def celldit_method(posed: Posed, seed: int) -> ad.AnnData:
    """celldit with default settings, nothing tuned to a problem.

    How to draw new cells, which is not asked for, is not learned; predictions are the same. Where a
    perturbation to predict, or a part of one, was never tried alone in training, it is given what
    its users would give it: the bundled pathways and terms, and the co-expression of the training
    controls.
    """
    fields = Fields.from_anndata(posed.train)
    trained, requested = (
        [parts(label, fields.perturbation_sep, fields.control) for label in set(labels)]
        for labels in (posed.train.obs[fields.perturbation_key].astype(str), posed.perturbations)
    )
    alone = {names[0] for names in trained if len(names) == 1}
    train, features = posed.train, None
    if not {name for names in requested for name in names} <= alone:
        train = train.copy()
        sources = ["reactome", "go", "expression"]
        features = cd.pp.gene_features(train, sources, allow_missing=True)
    model = cd.CellDiT(train, features=features)
    config = TrainingConfig(new_cells=False)
    model.train(seed=seed, config=config, enable_progress_bar=False)
    return model.predict(posed.controls, perturbations=posed.perturbations, seed=seed)


def describe_machine() -> str:
    """Processor, cores, threads, and versions, in one line."""
    import torch

    n = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = "1 core" if n == 1 else f"{n} cores"
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return (
        f"{_processor()}, {cores}{gpu}, Python {platform.python_version()}, "
        f"torch {torch.__version__}"
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "unknown processor"
