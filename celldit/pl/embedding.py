"""Measured, predicted and generated cells in one plane."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal, Unpack

import anndata as ad
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba_array
from sklearn.decomposition import PCA

from celldit.arguments import check_seed, check_whole
from celldit.errors import InputError, UnknownNameError
from celldit.evaluation.expression import Expression, align_genes, read_predicted
from celldit.pl.figure import Canvas, FigureOptions, figure
from celldit.pl.measured import Pair, read_pair
from celldit.pl.style import CONTROL, GENERATED, MEASURED, PREDICTED
from celldit.random import short_seed

MAX_CELLS = 3000
COLORS = (CONTROL, MEASURED, PREDICTED, GENERATED)
KINDS = ("control", "measured", "predicted", "generated")


@figure
def embedding(
    canvas: Canvas,
    adata: ad.AnnData,
    predicted: ad.AnnData,
    generated: ad.AnnData | None = None,
    perturbation: str | Sequence[str] | None = None,
    *,
    basis: Literal["pca", "umap", "effect"] = "pca",
    max_cells: int = MAX_CELLS,
    seed: int = 0,
    **options: Unpack[FigureOptions],
) -> Axes:
    """Draw measured, predicted and generated cells in the plane of the measured ones.

    Principal components of log expression are fitted on the measured cells alone, so a prediction
    cannot bend the plane towards itself. A UMAP is made of 30 of them, of all cells together.

    Parameters
    ----------
    adata
        Measured perturbed and control cells, set up with :meth:`celldit.CellDiT.setup_anndata`.
    predicted
        What :meth:`celldit.CellDiT.predict` or a baseline returns.
    generated
        What :meth:`celldit.CellDiT.generate` returns.
    perturbation
        One or several; None for all that were predicted and measured. Contexts that were not
        predicted are left out.
    basis
        ``"pca"``, ``"umap"``, or ``"effect"``: across, the direction from control to measured
        perturbed cells, 0 and 1 where their means are; up, the component of measured cells with the
        most variance besides. Where effects are small beside what cells differ in anyway, the other
        planes show one blob on top of another.
    max_cells
        Most cells of each kind; more are thinned.
    seed
        Of thinning, decomposition and drawing order.
    **options
        See :mod:`celldit.pl`.

    Raises
    ------
    InputError
        If genes differ, or nothing predicted was measured.
    UnknownNameError
        If a perturbation was not predicted.

    Examples
    --------
    >>> ax = cd.pl.embedding(adata, predicted, perturbation="STAT1")
    """
    if basis not in ("pca", "umap", "effect"):
        raise UnknownNameError.among("basis", basis, ["pca", "umap", "effect"])
    check_whole(max_cells, "max_cells", 2)
    check_seed(seed)
    seed = short_seed(seed)
    pair = read_pair(adata, predicted)
    groups = _groups(pair, pair.chosen(perturbation))
    if generated is not None:
        generated = align_genes(generated, pair.genes, "generated", "adata")
        largest = float(pair.measured.log.max())
        cells = read_predicted(generated, pair.fields, largest, "generated")
        groups["generated"] = cells, np.arange(cells.n_cells)
    rng = np.random.default_rng(seed)
    thinned = {
        name: cells.dense(_thin(rows, max_cells, rng))
        for name, (cells, rows) in groups.items()
        if len(rows)
    }
    points = _plane(thinned, basis, seed)
    shown = canvas.colors(KINDS[: len(points)], COLORS)
    axes = canvas.panels(1, size=(4.4, 3.7))
    _draw(axes[0], points, rng, shown, below=0.2 if basis == "effect" else 0.08)
    if basis == "effect":
        axes[0].set(xlabel="along the measured effect", ylabel="PC besides", yticks=[])
        axes[0].set_xticks([0.0, 1.0], ["control", "perturbed"])
        for one, color in zip(points.values(), shown, strict=True):
            axes[0].axvline(float(one[:, 0].mean()), color=color, lw=1.2, zorder=2)
    else:
        name = "PC" if basis == "pca" else "UMAP"
        axes[0].set(xlabel=f"{name} 1", ylabel=f"{name} 2", xticks=[], yticks=[])
    return axes[0]


def _groups(pair: Pair, labels: Sequence[str]) -> dict[str, tuple[Expression, np.ndarray]]:
    """Control, measured and predicted cells, in the predicted contexts, and their positions."""

    def rows(cells: Expression, wanted: Sequence[str]) -> tuple[Expression, np.ndarray]:
        found = cells.conditions()
        picked = [found[w, c] for w in wanted for c in contexts if (w, c) in found]
        return cells, np.sort(np.concatenate(picked)) if picked else np.arange(0)

    contexts = sorted({c for label in labels for c in pair.contexts(label)})
    what = labels[0] if len(labels) == 1 else "perturbed"
    return {
        pair.fields.control: rows(pair.measured, [pair.fields.control]),
        f"{what}, measured": rows(pair.measured, labels),
        f"{what}, predicted": rows(pair.predicted, labels),
    }


def _thin(rows: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    return rows if len(rows) <= n else rows[np.sort(rng.choice(len(rows), n, replace=False))]


def _plane(dense: dict[str, np.ndarray], basis: str, seed: int) -> dict[str, np.ndarray]:
    names = list(dense)
    measured = np.concatenate([dense[name] for name in names[:2]])
    if basis == "effect":
        return _along_effect(dense, seed)
    n_components = 2 if basis == "pca" else 30
    n_components = min(n_components, *measured.shape)
    if n_components < 2:
        raise InputError("An embedding needs at least two measured cells and two genes.")
    pca = PCA(n_components, svd_solver="randomized", random_state=seed).fit(measured)
    flat = np.concatenate([pca.transform(dense[name]) for name in names])
    if basis == "umap":
        flat = _umap(flat, seed)
    ends = np.cumsum([len(dense[name]) for name in names])[:-1]
    return dict(zip(names, np.split(flat[:, :2], ends), strict=True))


def _along_effect(groups: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """Direction of the measured effect, and the first component of what is left without it."""
    control, measured = (groups[name].astype(np.float64) for name in list(groups)[:2])
    start_G = control.mean(axis=0)
    effect_G = measured.mean(axis=0) - start_G
    length = float(effect_G @ effect_G)
    if length == 0:
        raise InputError(
            "The measured cells have the mean of the control cells, so there is no effect to draw "
            "along; use basis='pca'."
        )
    both = np.concatenate([control, measured]) - start_G
    both -= np.outer(both @ effect_G / length, effect_G)
    second_G = PCA(1, svd_solver="randomized", random_state=seed).fit(both).components_[0]
    points = {}
    for name, cells in groups.items():
        away = cells - start_G
        points[name] = np.stack([away @ effect_G / length, away @ second_G], axis=1)
    return points


def _umap(points_ND: np.ndarray, seed: int) -> np.ndarray:
    import scanpy as sc

    cells = ad.AnnData(obsm={"X_pca": points_ND}, shape=(len(points_ND), 0))
    with warnings.catch_warnings():
        # UMAP announces that a fixed seed runs on one thread, which is what is wanted here.
        warnings.simplefilter("ignore", UserWarning)
        neighbors = min(15, len(points_ND) - 1)
        sc.pp.neighbors(cells, n_neighbors=neighbors, use_rep="X_pca", random_state=seed)
        sc.tl.umap(cells, random_state=seed)
    return np.asarray(cells.obsm["X_umap"])


def _draw(
    ax: Axes,
    points: dict[str, np.ndarray],
    rng: np.random.Generator,
    colors: Sequence[Any],
    *,
    below: float,
) -> None:
    names = list(points)
    everything = np.concatenate(list(points.values()))
    color = np.repeat(to_rgba_array(colors), [len(points[n]) for n in names], axis=0)
    # In random order, so that the kind drawn last does not hide the others.
    order = rng.permutation(len(everything))
    size = float(np.clip(9000 / len(everything), 4, 16))
    x, y = everything[order].T
    ax.scatter(x, y, c=color[order], s=size, alpha=0.6, lw=0, rasterized=True)
    for name, one in zip(names, colors, strict=True):
        ax.scatter([], [], s=26, color=one, label=f"{name} ({len(points[name])})")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -below), ncols=2, handletextpad=0.2)
