"""How a prediction of a held-out problem is scored.

Scores compare log expression (counts per 10,000) with the measured cells:

``pearson``, ``nmse``
    Of the mean shift against the controls. The squared error is over the squared effect; sampling
    noise of the measured mean is subtracted from both. Over several groups, their mean.
``energy``
    Energy distance to the measured cells in 30 principal components of the training cells, an
    unbiased estimate, which can be below zero.
"""

from __future__ import annotations

from collections.abc import Iterator

import anndata as ad
import numpy as np
from held_out import HeldOut
from scipy.spatial.distance import cdist
from sklearn.decomposition import TruncatedSVD

MAX_CELLS = 600
N_COMPONENTS = 30


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
