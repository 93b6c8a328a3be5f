"""Held-out problems on real screens, and how a prediction is scored: shared by the studies here.

A problem hides the cells of some conditions from training and asks for them from control cells.
Scores compare log expression (counts per 10,000) with the measured cells:

``pearson``, ``nmse``
    Of the mean shift against the controls. The squared error is over the squared effect; sampling
    noise of the measured mean is subtracted from both. Over several groups, their mean.
``energy``
    Energy distance to the measured cells in 30 principal components of the training cells, an
    unbiased estimate, which can be below zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import numpy as np
from scipy.spatial.distance import cdist
from sklearn.decomposition import TruncatedSVD

import celldit as cd

MAX_CELLS = 600
N_COMPONENTS = 30
KANG_TYPES = (
    "B", "CD14 Mono", "CD16 Mono", "CD4 Memory T", "CD4 Naive T", "CD8 T", "DC", "NK",
    "T activated",
)  # fmt: skip
KNOCK_OUTS = ("STAT1", "JAK2", "IFNGR1", "IRF1", "SMAD4", "STAT2", "BRD4", "SPI1")
COMBINATIONS = ("KLF1+MAP2K6", "MAP2K3+MAP2K6", "MAP2K3+SLC38A2")


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Cells to predict, and what may be learned from.

    Attributes
    ----------
    name
        Of the problem.
    train
        Training cells, set up.
    controls
        Control cells that are to be predicted.
    truth
        Measured cells of the held-out conditions.
    perturbation_key
        Column of the perturbation in all of them.
    group_key
        Column by which means are compared besides the perturbation; None for no other.
    """

    name: str
    train: ad.AnnData
    controls: ad.AnnData
    truth: ad.AnnData
    perturbation_key: str
    group_key: str | None

    @property
    def perturbations(self) -> list[str]:
        """What is asked for."""
        return sorted(set(self.truth.obs[self.perturbation_key].astype(str)))


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
    return HeldOut(name, train, controls, kang[hidden].copy(), "condition", "cell_type")


def kang_type(cell_type: str) -> HeldOut:
    """PBMC with types told; one type's stimulated cells hidden."""
    kang = cd.datasets.kang()
    hidden = ((kang.obs["condition"] == "IFNB") & (kang.obs["cell_type"] == cell_type)).to_numpy()
    train = kang[~hidden].copy()
    cd.CellDiT.setup_anndata(
        train, perturbation_key="condition", control="control", covariate_keys=["cell_type"],
        size_factor_key="total_umis",
    )  # fmt: skip
    own = (train.obs["condition"] == "control") & (train.obs["cell_type"] == cell_type)
    controls = train[own.to_numpy()].copy()
    return HeldOut(f"Kang, {cell_type}", train, controls, kang[hidden].copy(), "condition", None)


def papalexi(replicate: str = "rep_3") -> HeldOut:
    """CRISPR knock-outs of THP-1; eight hidden in one replicate."""
    screen = cd.datasets.papalexi()
    own = (screen.obs["replicate"] == replicate).to_numpy()
    hidden = own & screen.obs["perturbation"].isin(KNOCK_OUTS).to_numpy()
    train = screen[~hidden].copy()
    cd.CellDiT.setup_anndata(
        train, perturbation_key="perturbation", control="control", covariate_keys=["replicate"],
        size_factor_key="total_umis",
    )  # fmt: skip
    controls = screen[own & (screen.obs["perturbation"] == "control").to_numpy()].copy()
    truth = screen[hidden].copy()
    return HeldOut(f"Papalexi, {replicate}", train, controls, truth, "perturbation", None)


def norman() -> HeldOut:
    """CRISPRa of K562; three pairs of genes hidden whose single genes were measured."""
    screen = cd.datasets.norman()
    hidden = screen.obs["perturbation"].isin(COMBINATIONS).to_numpy()
    train = screen[~hidden].copy()
    cd.CellDiT.setup_anndata(
        train, perturbation_key="perturbation", control="control", size_factor_key="total_umis"
    )
    controls = screen[(screen.obs["perturbation"] == "control").to_numpy()].copy()
    return HeldOut("Norman, 3 pairs", train, controls, screen[hidden].copy(), "perturbation", None)


def chimeras(path: Path) -> ad.AnnData:
    """The Tal1 chimeras, whose size factors are relative to a typical cell."""
    embryo = ad.read_h5ad(path)
    relative = embryo.obs["size_factor"].to_numpy(float)
    typical = float(np.median(np.ravel(embryo.X.sum(axis=1)) / relative))
    embryo.obs["total_umis"] = relative * typical
    return embryo


def tal1(cell_type: str, path: Path) -> HeldOut:
    """Mouse chimeras; the Tal1 knock-out of one tissue hidden."""
    embryo = chimeras(path)
    mutant = (embryo.obs["perturbation"] != "control").to_numpy()
    own = (embryo.obs["cell_type"] == cell_type).to_numpy()
    train = embryo[~(mutant & own)].copy()
    cd.CellDiT.setup_anndata(
        train, perturbation_key="perturbation", control="control", covariate_keys=["cell_type"],
        size_factor_key="total_umis",
    )  # fmt: skip
    controls, truth = embryo[~mutant & own].copy(), embryo[mutant & own].copy()
    return HeldOut(f"Tal1, {cell_type}", train, controls, truth, "perturbation", None)


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
    return HeldOut("Tal1 without types", train, controls, truth, "perturbation", None)


def problems(folder: Path | None = None) -> dict[str, Callable[[], HeldOut]]:
    """Every problem by its name, not yet loaded; some need data that celldit does not bundle."""
    made: dict[str, Callable[[], HeldOut]] = {}
    for split in range(3):
        made[f"kang-mixed-{split}"] = lambda split=split: mixed_kang(split)
    for cell_type in KANG_TYPES:
        made[f"kang-{cell_type}"] = lambda cell_type=cell_type: kang_type(cell_type)
    made["papalexi"], made["norman"] = papalexi, norman
    if folder is not None:
        made["tal1-mixed"] = lambda: mixed_tal1(folder / "tal1_chimera.h5ad")
        for tissue in ("Neural crest", "Endothelium"):
            path = folder / "tal1_chimera.h5ad"
            made[f"tal1-{tissue}"] = lambda tissue=tissue, path=path: tal1(tissue, path)
    return made


def log_expression(adata: ad.AnnData, layer: str | None = None) -> np.ndarray:
    """log(1 + counts per 10,000) by the library size of the whole cell, shape (N, G)."""
    counts = adata.X if layer is None else adata.layers[layer]
    keys = [key for key in ("total_umis", "size_factor") if key in adata.obs]
    dense = np.asarray(counts.todense() if hasattr(counts, "todense") else counts, dtype=float)
    size = adata.obs[keys[0]].to_numpy(float) if keys else dense.sum(1)
    return np.log1p(dense / size[:, None] * 1e4)


class Scorer:
    """Scores of predictions of one problem."""

    def __init__(self, problem: HeldOut) -> None:
        self.problem = problem
        train = log_expression(problem.train)
        self.centre = train.mean(0)
        svd = TruncatedSVD(N_COMPONENTS, random_state=0).fit(train - self.centre)
        self.axes = svd.components_.T
        self.truth = log_expression(problem.truth)
        self.before = log_expression(problem.controls)

    def __call__(self, predicted: ad.AnnData) -> dict[str, float]:
        """Scores of predicted cells, whose ``obs["control_cell"]`` says which control each was."""
        key = self.problem.perturbation_key
        cells = log_expression_of(predicted)
        rows, energies = [], []
        for truth, before, own in self._groups(predicted):
            rows.append(shift_scores(cells[own].mean(0) - before, truth, before))
        for label in self.problem.perturbations:
            truth = self.truth[(self.problem.truth.obs[key] == label).to_numpy()]
            own = (predicted.obs[key].astype(str) == label).to_numpy()
            energies.append(self.energy(cells[own], truth))
        pearson, nmse = np.mean(rows, axis=0)
        return {"pearson": pearson, "nmse": nmse, "energy": float(np.mean(energies))}

    def _groups(self, predicted: ad.AnnData) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Measured cells, mean of controls, and which predicted cells, group by group."""
        problem, key = self.problem, self.problem.perturbation_key
        group_of = None
        if problem.group_key is not None:
            of_cell = problem.controls.obs[problem.group_key].astype(str)
            group_of = of_cell[predicted.obs["control_cell"].astype(str)].to_numpy()
        for label in problem.perturbations:
            is_label = (problem.truth.obs[key] == label).to_numpy()
            asked = (predicted.obs[key].astype(str) == label).to_numpy()
            if group_of is None:
                yield self.truth[is_label], self.before.mean(0), asked
                continue
            kinds = problem.truth.obs[problem.group_key].astype(str).to_numpy()
            control_kinds = problem.controls.obs[problem.group_key].astype(str).to_numpy()
            for kind in sorted(set(kinds)):
                rows = is_label & (kinds == kind)
                # Fewer cells are mostly noise.
                if rows.sum() >= 25:
                    before = self.before[control_kinds == kind].mean(0)
                    yield self.truth[rows], before, asked & (group_of == kind)

    def energy(self, cells: np.ndarray, truth: np.ndarray) -> float:
        """Energy distance of two groups of cells in principal components."""
        rng = np.random.default_rng(0)
        x, y = (
            (group[rng.permutation(len(group))[:MAX_CELLS]] - self.centre) @ self.axes
            for group in (cells, truth)
        )
        n, m = len(x), len(y)
        within = cdist(x, x).sum() / (n * (n - 1)) + cdist(y, y).sum() / (m * (m - 1))
        return float(2 * cdist(x, y).mean() - within)


def log_expression_of(predicted: ad.AnnData) -> np.ndarray:
    """The same of predicted cells, from their drawn counts."""
    counts = np.asarray(predicted.layers["counts"].todense(), dtype=float)
    return np.log1p(counts / predicted.obs["size_factor"].to_numpy(float)[:, None] * 1e4)


def shift_scores(shift: np.ndarray, truth: np.ndarray, before: np.ndarray) -> tuple[float, float]:
    """Pearson r, and squared error over squared effect, noise of the measured mean subtracted."""
    measured = truth.mean(0) - before
    noise = truth.var(0, ddof=1).sum() / len(truth)
    error = ((shift - measured) ** 2).sum() - noise
    size = max(float((measured**2).sum() - noise), 1e-9)
    return float(np.corrcoef(shift, measured)[0, 1]), float(error / size)
