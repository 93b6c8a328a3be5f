"""What does the effect model say of contexts, batches and conditions that are hard to measure?

``slope``
    Every context of a screen is left out in turn: its controls stay, its treated cells go. The
    effect model is fitted on principal components of the rest, and its mean shift carried back to
    the genes, with what it knows of single genes beyond them. Beside it stand the mean shift (that
    of the other contexts) and the level (treated cells end where they end in the other contexts,
    whatever the controls are). *nmse* is the squared error of the mean log expression over the
    squared effect, with the sampling noise of the measurement taken off both. *slope* is what was
    chosen for the level: 0 is the mean shift, 1 the level; *without slope* is the effect model had
    it none. In the simulated screens seven patients differ in programs of genes and a drug moves
    all of them, less so what a patient has already: the true slope is in the name. In those named
    *blood* cells, depths and programs are real (OneK1K's T cells, moved along what tells its cell
    types apart), there are five patients, and each answers the drug in a way of its own beside the
    common one.
``controls``
    One of three simulated batches has no controls, and three perturbations, two of which both other
    batches have. *held* is the share of its log fold changes that 90% intervals hold, *sure* that
    of genes called changed though they are not.
``cells``
    Twenty perturbations of few cells each; *held*, and *nmse* of log fold changes.

    python notebooks/benchmarks/effect_model.py docs/results/effect_model.csv [FOLDER]

FOLDER holds further screens that do not come with the package (onek1k.h5ad, tal1_chimera.h5ad).
"""

from __future__ import annotations

import platform
import sys
import time
import warnings
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import anndata as ad
import numpy as np
import pandas as pd
from held_out import chimeras
from scipy import sparse

import celldit as cd
from celldit.calibration.fit_means import LEAST_SCATTER
from celldit.calibration.fit_residual_genes import fit_residual_genes
from celldit.conditions import Condition, ConditionTable
from celldit.data import Cells, Fields
from celldit.effects.contexts import fit_level
from celldit.effects.fit_prior import fit_prior
from celldit.effects.prior import EffectPrior
from celldit.effects.residual_genes import ResidualGenes
from celldit.latent.anchor import fit_anchor

N_TOKENS, TOKEN_DIM = 6, 8
MIN_CELLS = 20
SLOPES = (0.0, 0.3, 0.7)
SEEDS = (0, 1, 2)


class Problem(NamedTuple):
    """Cells, and the contexts of which each is left out in turn."""

    name: str
    cells: Cells
    contexts: tuple[str, ...]


def set_up(adata: ad.AnnData, perturbation: str, context: str, size: str | None) -> Cells:
    """Read a screen with one covariate."""
    cd.CellDiT.setup_anndata(
        adata, perturbation_key=perturbation, covariate_keys=[context], size_factor_key=size
    )
    return Cells.from_anndata(adata, Fields.from_anndata(adata))


def simulate(slope: float, seed: int, patients: int = 7, n: int = 150, genes: int = 400) -> Cells:
    """Patients under one drug, which moves them less the more of its effect they have already."""
    rng = np.random.default_rng(seed)
    base_G = np.log(rng.dirichlet(np.full(genes, 0.8)) + 2e-4)
    programs_PG = rng.normal(size=(6, genes)) * (rng.random((6, genes)) < 0.3)
    own_SG = 0.5 * rng.normal(size=(patients, 6)) @ programs_PG
    shift_G = 1.2 * rng.normal(size=genes) * (rng.random(genes) < 0.15)
    counts, obs = [], []
    for s in range(patients):
        for label in ("control", "drug"):
            log_G = base_G + own_SG[s]
            if label == "drug":
                log_G = log_G + shift_G - slope * (own_SG[s] - own_SG.mean(axis=0))
            rate_G = np.exp(log_G)
            size_N1 = rng.lognormal(np.log(6000), 0.3, n)[:, None]
            counts.append(rng.poisson(rng.gamma(4.0, size_N1 * rate_G / rate_G.sum() / 4.0)))
            obs += [(label, f"patient {s}")] * n
    frame = pd.DataFrame(obs, columns=["perturbation", "patient"]).set_index(
        pd.Index([f"c{i}" for i in range(len(obs))])
    )
    var = pd.DataFrame(index=[f"gene{g}" for g in range(genes)])
    adata = ad.AnnData(sparse.csr_matrix(np.concatenate(counts).astype(np.float32)), frame, var)
    return set_up(adata, "perturbation", "patient", None)


def blood(adata: ad.AnnData, slope: float, seed: int, patients: int = 5) -> Cells:
    """Real T cells, dealt to patients and moved by what tells real cell types apart."""
    rng = np.random.default_rng(seed)
    rate = {kind: np.ravel(adata[adata.obs["cell_type"] == kind].X.sum(axis=0)) + 5.0
            for kind in adata.obs["cell_type"].unique()}  # fmt: skip
    log_TG = np.array([np.log(each / each.sum()) for each in rate.values()])
    kinds_TG = (log_TG - log_TG.mean(axis=0)).clip(-1, 1)
    own_SG = 0.6 * rng.normal(size=(patients, len(kinds_TG))) @ kinds_TG
    n_genes = adata.n_vars

    def some(size: float, share: float) -> np.ndarray:
        return size * rng.normal(size=n_genes) * (rng.random(n_genes) < share)

    shift_G = some(1.2, 0.15)
    cells = adata[adata.obs["cell_type"] == "cd4nc"].X.toarray()
    cells = cells[rng.permutation(len(cells))]
    blocks, obs = [], []
    for s, own in enumerate(np.array_split(cells, patients)):
        half = len(own) // 2
        bent_G = own_SG[s] - slope * (own_SG[s] - own_SG.mean(axis=0))
        for label, part, log_G in (
            ("control", own[:half], own_SG[s]),
            ("drug", own[half:], bent_G + shift_G + some(0.4, 0.15)),
        ):
            factor_G = np.exp(log_G)
            kept = rng.binomial(part.astype(int), np.minimum(factor_G, 1))
            added = rng.poisson(part * np.maximum(factor_G - 1, 0))
            blocks.append(kept + added)
            obs += [(label, f"patient {s}")] * len(part)
    frame = pd.DataFrame(obs, columns=["perturbation", "patient"]).set_index(
        pd.Index([f"c{i}" for i in range(len(obs))])
    )
    counts = np.concatenate(blocks).astype(np.float32)
    kept_cells = counts.sum(axis=1) > 0
    made = ad.AnnData(sparse.csr_matrix(counts), frame, pd.DataFrame(index=adata.var_names))
    return set_up(made[kept_cells].copy(), "perturbation", "patient", None)


def problems(folder: Path | None) -> Iterator[Problem]:
    """All screens, with the contexts that have the cells to be judged."""
    for slope in SLOPES:
        for seed in SEEDS:
            cells = simulate(slope, seed)
            yield Problem(f"simulated, slope {slope}, seed {seed}", cells, contexts_of(cells)[:3])
    kang = set_up(cd.datasets.kang(), "condition", "cell_type", "total_umis")
    yield Problem("kang", kang, contexts_of(kang))
    papalexi = set_up(cd.datasets.papalexi(), "perturbation", "replicate", "total_umis")
    yield Problem("papalexi", papalexi, contexts_of(papalexi))
    if folder is not None:
        onek1k = ad.read_h5ad(folder / "onek1k.h5ad")
        for slope in SLOPES:
            for seed in SEEDS:
                cells = blood(onek1k, slope, seed)
                yield Problem(f"blood, slope {slope}, seed {seed}", cells, contexts_of(cells))
        tal1 = chimeras(folder / "tal1_chimera.h5ad")
        cells = set_up(tal1, "perturbation", "cell_type", "total_umis")
        yield Problem("tal1", cells, contexts_of(cells))


def contexts_of(cells: Cells) -> tuple[str, ...]:
    """Contexts with at least 20 treated and 20 control cells."""
    frame = pd.DataFrame({"context": cells.contexts, "control": cells.is_control})
    sizes = frame.value_counts().unstack(fill_value=0)
    sizes = sizes.reindex(columns=[True, False], fill_value=0)
    return tuple(sizes.index[(sizes >= MIN_CELLS).all(axis=1)])


class Means:
    """Mean log expression of each (perturbation, context), with its sampling variance."""

    def __init__(self, cells: Cells) -> None:
        log = cells.log_normalized().toarray().astype(np.float64)
        keys = pd.DataFrame({"perturbation": cells.perturbations, "context": cells.contexts})
        groups = keys.groupby(["perturbation", "context"]).indices
        self.mean = {key: log[rows].mean(axis=0) for key, rows in groups.items()}
        self.variance = {key: log[rows].var(axis=0, ddof=1) / len(rows)
                         for key, rows in groups.items() if len(rows) > 1}  # fmt: skip
        self.size = {key: len(rows) for key, rows in groups.items()}
        self.control = cells.control

    def shift(self, label: str, where: str) -> np.ndarray:
        """Change of mean log expression against the controls of the same context."""
        return self.mean[label, where] - self.mean[self.control, where]

    def noise(self, label: str, where: str) -> float:
        """Expected square of what sampling adds to a shift."""
        pair = (label, where), (self.control, where)
        return float(sum(self.variance[key].sum() for key in pair))


def left_out(problem: Problem, where: str) -> Iterator[tuple[str, str, float, float]]:
    """Perturbation, method, nmse and slope of one context left out."""
    cells = problem.cells
    means = Means(cells)
    train = cells.take((cells.contexts != where) | cells.is_control)
    anchor = fit_anchor(train.log_normalized(), N_TOKENS, TOKEN_DIM, 0)
    z = train.log_normalized() @ anchor.loadings - anchor.offset
    table = ConditionTable.from_cells(train, "+")
    prior = fit_prior(z, table)
    with mock.patch.object(fit_level, "LEAST_SLOPE", 2.0):
        flat = fit_prior(z, table)
    readout_GF = anchor.loadings * np.repeat(anchor.scale, TOKEN_DIM) ** 2
    beyond = residual_genes(train, table, prior, z, readout_GF)
    labels = [label for label, at in means.size if at == where and label != cells.control
              and means.size[label, at] >= MIN_CELLS]  # fmt: skip
    others = [at for at in dict.fromkeys(c for _, c in means.size) if at != where]
    asked = [Condition((label,), None, where) for label in labels]
    own, flat_own = (
        each.estimate(asked).mean @ readout_GF.T + beyond.estimate(each, asked)
        for each in (prior, flat)
    )
    for label, predicted_G, flat_G in zip(labels, own, flat_own, strict=True):
        tried = [at for at in others if (label, at) in means.size and (cells.control, at)
                 in means.size and means.size[label, at] >= MIN_CELLS]  # fmt: skip
        if not tried:
            continue
        measured_G, noise = means.shift(label, where), means.noise(label, where)
        ends_G = np.mean([means.mean[label, at] for at in tried], axis=0)
        methods = {
            "mean shift": np.mean([means.shift(label, at) for at in tried], axis=0),
            "level": ends_G - means.mean[cells.control, where],
            "without slope": flat_G,
            "effect model": predicted_G,
        }
        effect = float((measured_G**2).sum()) - noise
        for method, guess_G in methods.items():
            error = float(((guess_G - measured_G) ** 2).sum()) - noise
            # Of a perturbation that does next to nothing there is nothing to predict.
            if effect > noise:
                yield label, method, error / effect, prior.level.slope


def residual_genes(
    train: Cells, table: ConditionTable, prior: EffectPrior, z: np.ndarray, readout_GF: np.ndarray
) -> ResidualGenes:
    """What measured effects hold beyond the latent, as in training."""
    log = train.log_normalized().toarray()
    left = log - z @ readout_GF.T
    mean_CG, rest_CG = (
        np.stack([each[table.index == c].mean(axis=0) for c in range(len(table))])
        for each in (log, left)
    )
    scatter_G = (left - rest_CG[table.index]).std(axis=0) + LEAST_SCATTER
    return fit_residual_genes(table, prior, readout_GF.T, mean_CG, scatter_G)


def slopes(folder: Path | None) -> Iterator[dict[str, object]]:
    """Rows of the first study: means over the perturbations of a context."""
    for problem in problems(folder):
        for where in problem.contexts:
            frame = pd.DataFrame(
                left_out(problem, where), columns=["perturbation", "method", "nmse", "slope"]
            )
            for method, own in frame.groupby("method", sort=False):
                yield {
                    "study": "slope",
                    "problem": problem.name,
                    "case": f"without {where}",
                    "method": method,
                    "nmse": own["nmse"].mean(),
                    "slope": own["slope"].mean() if method == "effect model" else np.nan,
                }


def screen_of(rates: dict[tuple[str, str], tuple[np.ndarray, int]], seed: int) -> ad.AnnData:
    """Cells of (perturbation, batch) with these relative rates, so many of each."""
    rng = np.random.default_rng(seed)
    counts, obs = [], []
    for key, (rate_G, n) in rates.items():
        size_N1 = rng.lognormal(np.log(8000), 0.3, n)[:, None]
        counts.append(rng.poisson(rng.gamma(4.0, size_N1 * rate_G / rate_G.sum() / 4.0)))
        obs += [key] * n
    frame = pd.DataFrame(obs, columns=["perturbation", "batch"]).set_index(
        pd.Index([f"c{i}" for i in range(len(obs))])
    )
    var = pd.DataFrame(index=[f"gene{g}" for g in range(counts[0].shape[1])])
    adata = ad.AnnData(sparse.csr_matrix(np.concatenate(counts).astype(np.float32)), frame, var)
    cd.CellDiT.setup_anndata(adata, perturbation_key="perturbation", covariate_keys=["batch"])
    return adata


def scores(adata: ad.AnnData, truth: dict[tuple[str, str], np.ndarray]) -> dict[str, float]:
    """How well log fold changes and their intervals fit what is true of some conditions."""
    model = cd.CellDiT(adata, tokenizer="modules")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.train(max_epochs=0, enable_progress_bar=False)
    table = model.predict_effects(sorted({label for label, _ in truth}))
    true, found, sd = [], [], []
    for (label, batch), log_G in truth.items():
        own = table[(table["perturbation"] == label) & (table["context"] == batch)]
        true.append(log_G)
        found.append(own["log_fold_change"].to_numpy())
        sd.append(own["sd"].to_numpy())
    true_A, found_A, sd_A = map(np.concatenate, (true, found, sd))
    error_A = found_A - true_A
    sure_A = (np.abs(found_A) > 0.3) & (np.abs(found_A) > 2 * sd_A)
    return {
        "nmse": float((error_A**2).sum() / (true_A**2).sum()),
        "held": float((np.abs(error_A) < 1.645 * sd_A).mean()),
        "sure": float((sure_A & (np.abs(true_A) < 0.3)).mean()),
    }


BATCHES = {"b1": ("control", "A", "B", "C"), "b2": ("A", "B", "C"), "b3": ("control", "A", "B")}


def controls() -> Iterator[dict[str, object]]:
    """Rows of the second study."""
    n_genes = 80
    for differ in (0.2, 0.5):
        for with_controls in (False, True):
            for seed in range(5):
                rng = np.random.default_rng(seed)
                base_G = rng.dirichlet(np.full(n_genes, 0.7)) + 2e-3
                rates, truth = {}, {}
                for batch, labels in BATCHES.items():
                    own_G = base_G * np.exp(rng.normal(0, differ, n_genes))
                    own_G /= own_G.sum()
                    more = ("control",) if batch == "b2" and with_controls else ()
                    for label in (*more, *labels):
                        log_G = np.zeros(n_genes)
                        if label != "control":
                            log_G["ABC".index(label)] = 2.0
                        rate_G = own_G * np.exp(log_G)
                        rates[label, batch] = rate_G, 150 if label == "control" else 120
                        if batch == "b2" and label != "control":
                            truth[label, batch] = log_G - np.log(rate_G.sum())
                yield {
                    "study": "controls",
                    "problem": f"batches differ by {differ}",
                    "case": f"seed {seed}",
                    "method": "with controls" if with_controls else "without controls",
                    **scores(screen_of(rates, seed), truth),
                }


def few_cells() -> Iterator[dict[str, object]]:
    """Rows of the third study."""
    n_genes, names = 80, [f"P{i:02d}" for i in range(20)]
    for n in (1, 2, 3, 5, 12, 19, 20, 50):
        for seed in range(3):
            rng = np.random.default_rng(seed)
            base_G = rng.gamma(1, 1, n_genes) + 0.05
            base_G /= base_G.sum()
            rates, truth = {("control", "b1"): (base_G, 200)}, {}
            for name in names:
                log_G = rng.normal(0, 1, n_genes) * (rng.random(n_genes) < 0.3)
                rate_G = base_G * np.exp(log_G)
                rates[name, "b1"] = rate_G, n
                truth[name, "b1"] = log_G - np.log(rate_G.sum())
            yield {
                "study": "cells",
                "problem": f"{n} cells",
                "case": f"seed {seed}",
                "method": "effect model",
                **scores(screen_of(rates, seed), truth),
            }


def main(out: Path, folder: Path | None) -> None:
    """Write one row for each problem, case and method."""
    machine = f"{platform.machine()}, one core"
    columns = ["study", "problem", "case", "method", "nmse", "slope", "held", "sure"]
    rows, start = [], time.perf_counter()
    for study in (slopes(folder), controls(), few_cells()):
        for row in study:
            rows.append(row)
            print(*row.values(), flush=True)
    table = pd.DataFrame(rows, columns=columns).round(3)
    table["machine"], table["date"] = machine, date.today().isoformat()
    table.to_csv(out, index=False)
    numbers = columns[4:]
    print(table.groupby([*columns[:2], "method"], sort=False)[numbers].mean().round(3).to_string())
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
