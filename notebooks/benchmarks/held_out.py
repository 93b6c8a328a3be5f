"""Conditions held out of real screens, as files and methods see them: one harness for the studies.

``problems`` lists those of the README; ``pose`` splits the cells of one and makes sure that nothing
of what was held out is learned from. ``cases`` lists those by which the transformer is judged, some
of them in populations whose cell types are not told.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np

import celldit as cd
from celldit.data import check_no_leak
from celldit.data.fields import Fields
from celldit.data.labels.columns import read_labels
from celldit.data.splits import By
from celldit.errors import InputError

KANG_TYPES = (
    "B", "CD14 Mono", "CD16 Mono", "CD4 Memory T", "CD4 Naive T", "CD8 T", "DC", "NK",
    "T activated",
)  # fmt: skip
KNOCK_OUTS = ("IFNGR1", "JAK2", "STAT1", "SMAD4", "IRF1", "BRD4", "STAT2", "UBE2L6")
#: The same with SPI1, whose effect is larger than that of UBE2L6.
STRONGER_KNOCK_OUTS = ("STAT1", "JAK2", "IFNGR1", "IRF1", "SMAD4", "STAT2", "BRD4", "SPI1")
COMBINATIONS = ("KLF1+MAP2K6", "MAP2K3+MAP2K6", "MAP2K3+SLC38A2")
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
class HeldOut:
    """A problem as data.

    Attributes
    ----------
    name
        Of the problem.
    train
        Cells that a method may learn from, controls of every context included; set up.
    truth
        The perturbed cells that were held out.
    controls
        Control cells of the contexts held out, from which predictions start.
    perturbations
        Labels to predict.
    perturbation_key
        Column of the perturbation in all of them.
    group_key
        Column by which means are compared besides the perturbation; None for no other.
    """

    name: str
    train: ad.AnnData
    truth: ad.AnnData
    controls: ad.AnnData
    perturbations: tuple[str, ...]
    perturbation_key: str
    group_key: str | None = None


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


def pose(problem: Problem, adata: ad.AnnData | None = None) -> HeldOut:
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
    known, at = read_labels(train, fields)
    requested, wanted = read_labels(truth, fields)
    rows = (known == fields.control) & np.isin(at, wanted)
    lacking = sorted(set(wanted) - set(at[rows]))
    if lacking:
        raise InputError(f"There are no control cells in {lacking[0]!r}, which is to be held out.")
    assert fields.perturbation_key is not None
    return HeldOut(
        f"{problem.dataset}, {problem.name}",
        train,
        truth,
        train[rows].copy(),
        tuple(sorted(set(requested) - {fields.control})),
        fields.perturbation_key,
    )


def mixed_kang(split: int) -> HeldOut:
    """PBMC without cell types told; a third of the stimulated cells hidden, scored by type."""
    kang = cd.datasets.kang()
    stimulated = np.flatnonzero(kang.obs["condition"] == "IFNB")
    hidden = np.zeros(kang.n_obs, dtype=bool)
    hidden[np.random.default_rng(split).permutation(stimulated)[: len(stimulated) // 3]] = True
    train = kang[~hidden].copy()
    cd.CellDiT.setup_anndata(
        train, perturbation_key="condition", control="control", size_factor_key="total_umis"
    )
    controls = train[train.obs["condition"] == "control"].copy()
    name = f"Kang without types, split {split + 1}"
    truth = kang[hidden].copy()
    return HeldOut(name, train, truth, controls, ("IFNB",), "condition", "cell_type")


def chimeras(path: Path) -> ad.AnnData:
    """The Tal1 chimeras, whose size factors are relative to a typical cell."""
    embryo = ad.read_h5ad(path)
    relative = embryo.obs["size_factor"].to_numpy(float)
    typical = float(np.median(np.ravel(embryo.X.sum(axis=1)) / relative))
    embryo.obs["total_umis"] = relative * typical
    return embryo


def mixed_tal1(path: Path) -> HeldOut:
    """The chimeras without cell types told; a third of the knocked-out cells hidden."""
    embryo = chimeras(path)
    mutant = (embryo.obs["perturbation"] != "control").to_numpy()
    of_type = embryo.obs["cell_type"][mutant].value_counts()
    both = embryo.obs["cell_type"].isin(of_type[of_type > 30].index).to_numpy()
    hidden = mutant & (np.random.default_rng(0).random(embryo.n_obs) < 0.35)
    train = embryo[both & ~hidden].copy()
    cd.CellDiT.setup_anndata(
        train, perturbation_key="perturbation", control="control", size_factor_key="total_umis"
    )
    controls, truth = embryo[both & ~mutant].copy(), embryo[both & hidden].copy()
    asked = tuple(sorted(set(truth.obs["perturbation"].astype(str))))
    return HeldOut("Tal1 without types", train, truth, controls, asked, "perturbation")


def cases(folder: Path | None = None) -> dict[str, Callable[[], HeldOut]]:
    """Every case by its name, not yet loaded; some need data that celldit does not bundle."""

    def posed(name: str, problem: Problem) -> HeldOut:
        return replace(pose(problem), name=name)

    def tal1(tissue: str, path: Path) -> HeldOut:
        embryo = chimeras(path)
        keys = {**DATASETS["papalexi"], "covariate_keys": ["cell_type"]}
        cd.CellDiT.setup_anndata(embryo, **keys)
        return replace(
            pose(Problem("tal1", tissue, "context", (tissue,)), embryo), name=f"Tal1, {tissue}"
        )

    pairs = tuple((name, "rep_3") for name in STRONGER_KNOCK_OUTS)
    knock_outs = Problem("papalexi", "8 knock-outs in rep_3", "pair", pairs)
    combinations = Problem("norman", "3 combinations", "combination", COMBINATIONS)
    made: dict[str, Callable[[], HeldOut]] = {}
    for split in range(3):
        made[f"kang-mixed-{split}"] = partial(mixed_kang, split)
    for kind in KANG_TYPES:
        of_kind = Problem("kang", kind, "context", (kind,))
        made[f"kang-{kind}"] = partial(posed, f"Kang, {kind}", of_kind)
    made["papalexi"] = partial(posed, "Papalexi, rep_3", knock_outs)
    made["norman"] = partial(posed, "Norman, 3 pairs", combinations)
    if folder is not None:
        path = folder / "tal1_chimera.h5ad"
        made["tal1-mixed"] = partial(mixed_tal1, path)
        for tissue in ("Neural crest", "Endothelium"):
            made[f"tal1-{tissue}"] = partial(tal1, tissue, path)
    return made
