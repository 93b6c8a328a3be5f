"""The simple predictors and celldit as the studies call them, and the machine they ran on."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from functools import partial
from pathlib import Path

import anndata as ad
from held_out import HeldOut

import celldit as cd
from celldit.data.fields import Fields
from celldit.data.labels.labels import parts
from celldit.evaluation.baselines import SIMPLE, predict_baseline
from celldit.training import TrainingConfig

#: Learns from ``problem.train``, predicts ``problem.perturbations`` of ``problem.controls``; the
#: second argument is the seed. It never sees ``problem.truth``: that is taken out before the call.
Method = Callable[[HeldOut, int], ad.AnnData]


def baseline_methods() -> dict[str, Method]:
    """The simple predictors, by the names used in tables."""

    def simple(name: str, problem: HeldOut, seed: int) -> ad.AnnData:
        return predict_baseline(
            name, problem.train, problem.controls, problem.perturbations, seed=seed
        )

    return {name: partial(simple, name) for name in SIMPLE}


def celldit_method(problem: HeldOut, seed: int) -> ad.AnnData:
    """celldit with default settings, nothing tuned to a problem.

    How to draw new cells, which is not asked for, is not learned; predictions are the same. Where a
    perturbation to predict, or a part of one, was never tried alone in training, it is given what
    its users would give it: the bundled pathways and terms, and the co-expression of the training
    controls.
    """
    fields = Fields.from_anndata(problem.train)
    trained, requested = (
        [parts(label, fields.perturbation_sep, fields.control) for label in set(labels)]
        for labels in (
            problem.train.obs[fields.perturbation_key].astype(str),
            problem.perturbations,
        )
    )
    alone = {names[0] for names in trained if len(names) == 1}
    train, features = problem.train, None
    if not {name for names in requested for name in names} <= alone:
        train = train.copy()
        sources = ["reactome", "go", "expression"]
        features = cd.pp.gene_features(train, sources, allow_missing=True)
    model = cd.CellDiT(train, features=features)
    config = TrainingConfig(new_cells=False)
    model.train(seed=seed, config=config, enable_progress_bar=False)
    return model.predict(problem.controls, perturbations=problem.perturbations, seed=seed)


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
