"""Generated cells against measured ones that training never saw.

    python notebooks/benchmarks/generation.py baron --seeds 0
    python notebooks/benchmarks/generation.py papalexi --methods celldit scvi \\
        --scvi-python ENV/bin/python

The second also trains scVI, in an environment of its own that has scvi-tools 1.3 or newer, whose
interpreter it is given (see ``generation_scvi.py``).

Half of the cells of every group (cell type, or perturbation) train the model, the other half judge
it. Each row of the table compares one source of cells with that held-out half:

real           the training half: the ceiling
generated      celldit, the composition and library sizes of the held-out half
own sizes      celldit, with library sizes of its own
no labels      celldit trained without any label, library sizes of its own
noise source   celldit without its flow: the mixture of Gaussians that it starts from
without ...    celldit with one step between latent and counts switched off
reconstructed  held-out cells, encoded, decoded and drawn: the decoder without corrections
scvi           scVI with its defaults, latents from its prior, library sizes of the held-out half
scvi labels    the same with the group (perturbation and replicate) as batch covariate

AUC, nearest neighbour, MMD (bandwidths 1/2, 1, 2 and more of the median distance, see
``celldit.evaluation.metrics.mmd``), energy and Wasserstein distance in 30 principal components of
the training half, errors of means, standard deviations, zeros and correlations of log expression
(means over genes of absolute differences), and the ratio of total variances. For groups of 20 cells
or more in each half: overlap of the 50 top markers (t-test) with those of the held-out half, the
balanced accuracy on it of a logistic regression of the group on principal components, and the slope
of log fold changes between groups on the measured ones, where the training half shows what sampling
costs. Cells that scVI makes without labels have none. Copies are counted by group in another table.

    python notebooks/benchmarks/generation.py papalexi --draws 4 --methods celldit scvi \
        --scvi-python ENV/bin/python --out generation_draws.csv

One draw of cells is uncertain, and the Wasserstein distance of two samples is smaller the less one
of them varies. With ``--draws`` celldit draws several times from one model, and the distance is
given without what samples of one source differ by: W2²(x, y) - (W2²(x, x') + W2²(y, y')) / 2, on
five pairs of a thousand cells each (the divergence of Genevay et al. 2018, "Learning generative
models with Sinkhorn divergences", without entropy).
"""

from __future__ import annotations

import argparse
import copy
import subprocess
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
import torch
from copies import copies
from scipy import sparse
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score

import celldit as cd
from celldit.calibration.means import MeanCalibration
from celldit.calibration.new_cells.quantiles import CountQuantiles
from celldit.evaluation import metrics as measure
from celldit.inference.edits import draw_counts
from celldit.training.trained import Trained

GROUPS = {"baron": "cell_type", "papalexi": "perturbation"}
SETUP = {
    "baron": {"covariate_keys": ["cell_type"], "size_factor_key": "total_umis"},
    "papalexi": {
        "perturbation_key": "perturbation",
        "covariate_keys": ["replicate"],
        "size_factor_key": "total_umis",
    },
}


N_PAIRS = 5
PSEUDO_RATE = 0.1


@dataclass(frozen=True, eq=False)
class Source:
    """Cells from one source: log expression, labels where they have any, and how long it took."""

    cells: np.ndarray
    labels: np.ndarray | None = None
    seconds: float = float("nan")
    cells_per_second: float = float("nan")


def halves(adata: ad.AnnData, key: str, seed: int) -> tuple[ad.AnnData, ad.AnnData]:
    """Two halves with the same groups; of an odd number the first gets one more."""
    rng = np.random.default_rng(seed)
    second = np.zeros(adata.n_obs, dtype=bool)
    for rows in adata.obs.groupby(key, observed=True).indices.values():
        second[rng.permutation(rows)[: len(rows) // 2]] = True
    return adata[~second].copy(), adata[second].copy()


def log_expression(counts: sparse.csr_matrix, size_factors: np.ndarray) -> np.ndarray:
    """log(1 + counts per 10,000), dense."""
    scale = sparse.diags(1e4 / np.asarray(size_factors, dtype=np.float64))
    return np.log1p((scale @ sparse.csr_matrix(counts)).toarray()).astype(np.float32)


def row(name: str, cells: np.ndarray, real: np.ndarray, pca: PCA, seed: int) -> dict[str, object]:
    """Everything measured of one source of cells."""
    x, y = pca.transform(cells), pca.transform(real)
    # Each at random: the order of the measured cells is that of their file.
    rng = np.random.default_rng(seed)
    x_some, y_some = (z[rng.permutation(len(z))[:1000]] for z in (x, y))
    return {
        "cells": name,
        "auc": measure.classifier_auc(cells, real, seed=seed),
        "nearest": measure.nearest_neighbor_accuracy(x, y, seed=seed),
        "mmd": measure.mmd(x_some, y_some),
        "energy": measure.energy_distance(x_some, y_some),
        "w2": measure.wasserstein(x_some, y_some),
        "sliced_w2": measure.sliced_wasserstein(x_some, y_some),
        "mean_error": float(abs(cells.mean(0) - real.mean(0)).mean()),
        "sd_error": float(abs(cells.std(0) - real.std(0)).mean()),
        "variance_ratio": measure.variance_ratio(cells, real),
        "zero_error": measure.zero_fraction_error(cells, real),
        "correlation_error": measure.correlation_error(cells, real),
    }


def excess_w2(cells: np.ndarray, real: np.ndarray, pca: PCA, seed: int) -> float:
    """Squared Wasserstein distance beyond what samples of each side differ by."""
    found = []
    for i in range(N_PAIRS):
        rng = np.random.default_rng([seed, i])
        (x, x_too), (y, y_too) = (
            np.array_split(rng.permutation(z)[: min(2000, len(z) // 2 * 2)], 2)
            for z in (pca.transform(cells), pca.transform(real))
        )
        between = measure.wasserstein(x, y) ** 2
        within = measure.wasserstein(x, x_too) ** 2 + measure.wasserstein(y, y_too) ** 2
        found.append(between - within / 2)
    return float(np.mean(found))


def markers(cells: np.ndarray, labels: np.ndarray, groups: list[str]) -> dict[str, set[str]]:
    """The 50 top markers of each group against all other cells."""
    adata = ad.AnnData(cells, obs=pd.DataFrame({"group": pd.Categorical(labels)}))
    adata.obs_names = adata.obs_names.astype(str)
    sc.tl.rank_genes_groups(adata, "group", groups=groups, method="t-test", n_genes=50)
    names = adata.uns["rank_genes_groups"]["names"]
    return {group: set(names[group]) for group in groups}


def by_group(
    cells: np.ndarray,
    labels: np.ndarray,
    real: np.ndarray,
    real_labels: np.ndarray,
    pca: PCA,
    groups: list[str],
) -> dict[str, float]:
    """What is measured of labelled cells, over the groups that are large enough."""
    present = [g for g in groups if (labels == g).sum() >= 2]
    if len(present) < len(groups):
        return {}
    ours, theirs = markers(cells, labels, groups), markers(real, real_labels, groups)
    overlap = np.mean([len(ours[g] & theirs[g]) / 50 for g in groups])
    own, judged = np.isin(labels, groups), np.isin(real_labels, groups)
    classifier = LogisticRegression(max_iter=500)
    classifier.fit(pca.transform(cells[own]), labels[own])
    called = classifier.predict(pca.transform(real[judged]))
    return {
        "marker_overlap": float(overlap),
        "group_accuracy": float(balanced_accuracy_score(real_labels[judged], called)),
        "fold_slope": fold_slope(cells, labels, real, real_labels, groups),
    }


def fold_slope(
    cells: np.ndarray,
    labels: np.ndarray,
    real: np.ndarray,
    real_labels: np.ndarray,
    groups: list[str],
) -> float:
    """Slope of log fold changes, each group against the rest, on those of the measured cells.

    Of genes that change by more than half a unit there; mean over groups with five such genes.
    """

    def folds(log: np.ndarray, own: np.ndarray) -> np.ndarray:
        rate = np.expm1(log)
        fold = np.log((rate[own].mean(0) + PSEUDO_RATE) / (rate[~own].mean(0) + PSEUDO_RATE))
        return np.asarray(fold)

    slopes = []
    for group in groups:
        measured, made = folds(real, real_labels == group), folds(cells, labels == group)
        changed = np.abs(measured) > 0.5
        if changed.sum() >= 5:
            slopes.append(measured[changed] @ made[changed] / (measured[changed] ** 2).sum())
    return float(np.mean(slopes))


def from_scvi(
    python: str, folder: Path, name: str, train: ad.AnnData, test: ad.AnnData, seed: int
) -> dict[str, ad.AnnData]:
    """Cells from scVI, with and without labels; what is in the folder already is not made again."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {n: folder / f"{n.replace(' ', '_')}.h5ad" for n in ("scvi", "scvi labels")}
    if not all(file.exists() for file in files.values()):
        group = [[GROUPS[name]], [GROUPS[name], "replicate"]][name == "papalexi"]
        known = set(train.obs[group].astype(str).agg(" | ".join, axis=1))
        for which, adata in (("train", train), ("like", test)):
            small = ad.AnnData(adata.X, obs=adata.obs[["total_umis"]].copy(), var=adata.var[[]])
            small.obs["group"] = adata.obs[group].astype(str).agg(" | ".join, axis=1)
            small[small.obs["group"].isin(known)].write_h5ad(folder / f"{which}.h5ad")
        script = Path(__file__).with_name("generation_scvi.py")
        subprocess.run([python, str(script), str(folder), str(seed)], check=True)
    return {n: ad.read_h5ad(file) for n, file in files.items()}


def of_celldit(
    name: str, train: ad.AnnData, test: ad.AnnData, seed: int
) -> tuple[dict[str, Source], pd.DataFrame]:
    """Cells of celldit, and the copies among them by group."""
    key = GROUPS[name]
    cd.CellDiT.setup_anndata(train, **SETUP[name])
    model = cd.CellDiT(train)
    start = time.perf_counter()
    model.train(seed=seed, enable_progress_bar=False)
    seconds = time.perf_counter() - start
    trained = model.trained

    def generated(**how: object) -> ad.AnnData:
        return model.generate(test.n_obs, seed=seed, **how)

    def source(cells: ad.AnnData, *speed: float) -> Source:
        x = log_expression(cells.layers["counts"], cells.obs["size_factor"])
        return Source(x, cells.obs[key].astype(str).to_numpy(), *speed)

    start = time.perf_counter()
    made = generated(like=test)
    rate = test.n_obs / (time.perf_counter() - start)
    own = generated()
    sources = {"generated": source(made, seconds, rate), "own sizes": source(own)}
    model._trained = replace(trained, flow=copy.deepcopy(trained.flow))
    model.trained.flow.noise_trust.fill_(0.0)
    sources["noise source"] = source(generated(like=test))
    for step, other in without_steps(trained).items():
        model._trained = other
        sources[step] = source(generated(like=test))
    cells = trained.read(test)
    with torch.no_grad():
        z_NKD = trained.autoencoder.encode(cells)
        counts = trained.autoencoder.decode(z_NKD, torch.from_numpy(cells.size_factors))
    drawn = draw_counts(counts, np.arange(cells.n_cells), seed)
    truth = test.obs[key].astype(str).to_numpy()
    sources["reconstructed"] = Source(log_expression(drawn, cells.size_factors), truth)
    bare = ad.AnnData(train.X, obs=train.obs[["total_umis"]], var=train.var[[]])
    cd.CellDiT.setup_anndata(bare, size_factor_key="total_umis")
    unlabelled = cd.CellDiT(bare)
    unlabelled.train(seed=seed, enable_progress_bar=False)
    cells = unlabelled.generate(test.n_obs, seed=seed)
    x = log_expression(cells.layers["counts"], cells.obs["size_factor"])
    sources["no labels"] = Source(x)
    known = log_expression(train.X, train.obs["total_umis"])
    pca = PCA(30, random_state=0).fit(known)
    new = copies(
        pca.transform(sources["own sizes"].cells),
        pca.transform(known),
        sources["own sizes"].labels,
        train.obs[key].astype(str).to_numpy(),
    )
    return sources, new.reset_index()


def without_steps(trained: Trained) -> dict[str, Trained]:
    """The model with one step between latent and counts switched off, and all else as it was."""
    own = trained.new_cell_model
    still = np.broadcast_to(np.eye(own.maps_XFF.shape[1]), own.maps_XFF.shape)
    off = {
        "without quantiles": replace(own, count_quantiles=CountQuantiles.none()),
        "without states' own": replace(
            own, offset_XG=0 * own.offset_XG, log_factor_XG=0 * own.log_factor_XG
        ),
        "without held totals": replace(own, share=1.0),
        "without deconvolution": replace(own, maps_XFF=still, shifts_XF=0 * own.shifts_XF),
    }
    made = {step: replace(trained, new_cell_model=other) for step, other in off.items()}
    decoded = MeanCalibration.none(len(trained.genes))
    return {**made, "without mean calibration": replace(trained, mean_calibration=decoded)}


def of_scvi(
    python: str, work: Path, name: str, train: ad.AnnData, test: ad.AnnData, seed: int
) -> dict[str, Source]:
    """Cells of scVI; those without labels have none."""
    sources = {}
    for peer, made in from_scvi(python, work / f"{name}_{seed}", name, train, test, seed).items():
        labels = made.obs["group"].astype(str).str.split(" | ", regex=False).str[0].to_numpy()
        sources[peer] = Source(
            log_expression(made.X, made.obs["total_umis"]),
            labels if peer == "scvi labels" else None,
            made.uns["seconds"],
            made.uns["cells_per_second"],
        )
    return sources


def split(
    name: str, seed: int, max_cells: int
) -> tuple[ad.AnnData, ad.AnnData, np.ndarray, np.ndarray, PCA, list[str], np.ndarray]:
    """Both halves, their log expression, components, groups that are large enough, and labels."""
    key = GROUPS[name]
    train, test = halves(getattr(cd.datasets, name)(), key, seed)
    some = np.sort(np.random.default_rng(seed).permutation(test.n_obs)[:max_cells])
    test = test[some].copy()
    real = log_expression(test.X, test.obs["total_umis"])
    known = log_expression(train.X, train.obs["total_umis"])
    sizes = pd.concat([train.obs[key].value_counts(), test.obs[key].value_counts()], axis=1)
    large = sorted(sizes.index[(sizes >= 20).all(axis=1)].astype(str))
    pca = PCA(30, random_state=0).fit(known)
    return train, test, real, known, pca, large, test.obs[key].astype(str).to_numpy()


def run(
    name: str, seed: int, options: argparse.Namespace, work: Path
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One split: the table of sources, and the copies by group."""
    key = GROUPS[name]
    train, test, real, known, pca, large, truth = split(name, seed, options.max_cells)
    sources = {"real": Source(known, train.obs[key].astype(str).to_numpy())}
    new = pd.DataFrame()
    if "celldit" in options.methods:
        made, new = of_celldit(name, train, test, seed)
        sources.update(made)
    if "scvi" in options.methods:
        sources.update(of_scvi(options.scvi_python, work, name, train, test, seed))
    rows = []
    for source_name, source in sources.items():
        entry = row(source_name, source.cells, real, pca, seed)
        if source.labels is not None:
            entry.update(by_group(source.cells, source.labels, real, truth, pca, large))
        entry["seconds_of_training"] = source.seconds
        entry["cells_per_second"] = source.cells_per_second
        rows.append({"data": name, "seed": seed, **entry})
    return pd.DataFrame(rows), new.assign(data=name, seed=seed)


def run_draws(name: str, seed: int, options: argparse.Namespace, work: Path) -> pd.DataFrame:
    """One split: what single draws are uncertain in, and the excess of the Wasserstein distance."""
    key = GROUPS[name]
    train, test, real, known, pca, large, truth = split(name, seed, options.max_cells)
    draws = [("real", 0, Source(known, train.obs[key].astype(str).to_numpy()))]
    if "celldit" in options.methods:
        cd.CellDiT.setup_anndata(train, **SETUP[name])
        model = cd.CellDiT(train)
        model.train(seed=seed, enable_progress_bar=False)
        for draw in range(options.draws):
            for cells, like in (("generated", {"like": test}), ("own sizes", {})):
                made = model.generate(test.n_obs, seed=seed + 1000 * draw, **like)
                x = log_expression(made.layers["counts"], made.obs["size_factor"])
                draws.append((cells, draw, Source(x, made.obs[key].astype(str).to_numpy())))
    if "scvi" in options.methods:
        made = of_scvi(options.scvi_python, work, name, train, test, seed)
        draws += [(cells, 0, source) for cells, source in made.items()]
    rows = []
    for cells, draw, source in draws:
        entry = {
            "auc": measure.classifier_auc(source.cells, real, seed=seed),
            "w2_excess": excess_w2(source.cells, real, pca, seed),
        }
        if source.labels is not None:
            entry |= by_group(source.cells, source.labels, real, truth, pca, large)
        rows.append({"data": name, "seed": seed, "cells": cells, "draw": draw, **entry})
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=sorted(GROUPS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=["celldit"], choices=["celldit", "scvi"])
    parser.add_argument("--scvi-python", help="interpreter of an environment with scvi-tools")
    parser.add_argument("--work", type=Path, help="keeps what scVI makes; default: a new folder")
    parser.add_argument("--max-cells", type=int, default=3000)
    parser.add_argument("--draws", type=int, default=0, help="draws of celldit from one model")
    parser.add_argument("--out", default="generation_{data}.csv")
    options = parser.parse_args()
    work = options.work or Path(tempfile.mkdtemp(prefix="celldit-generation-"))
    if "scvi" in options.methods and options.scvi_python is None:
        parser.error("--methods scvi needs --scvi-python")
    path = options.out.format(data=options.data)
    if options.draws:
        tables = []
        for seed in options.seeds:
            tables.append(run_draws(options.data, seed, options, work))
            pd.concat(tables).to_csv(path, index=False)
        by_seed = pd.concat(tables).drop(columns=["data", "draw"]).groupby(["cells", "seed"]).mean()
        print(by_seed.groupby("cells").agg(["mean", "sem"]).round(4).to_string())
        return
    runs = []
    for seed in options.seeds:
        runs.append(run(options.data, seed, options, work))
        # After each seed, so that an interrupted run keeps what it has.
        table, new = (pd.concat(part) for part in zip(*runs, strict=True))
        table.to_csv(path, index=False)
        if len(new):
            new.to_csv(path.replace(".csv", "_copies.csv"), index=False)
    if len(new):
        print(new.groupby("group").mean(numeric_only=True).round(3).to_string())
    shown = table.drop(columns=["data", "seed"]).groupby("cells", sort=False).mean()
    print(shown.round(4).to_string())


if __name__ == "__main__":
    main()
