"""Predicted against measured effect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import anndata as ad
import numpy as np
from matplotlib.axes import Axes

from celldit.arguments import check_whole
from celldit.evaluation.metrics.shift import largest, pearson_shift
from celldit.pl.figure import Canvas, FigureOptions, figure
from celldit.pl.gene_names import GeneNames, GeneSymbols
from celldit.pl.labels import place_labels
from celldit.pl.measured import read_pair, shifts
from celldit.pl.style import INK, MEASURED


@figure
def effect(
    canvas: Canvas,
    adata: ad.AnnData,
    predicted: ad.AnnData,
    perturbation: str | Sequence[str] | None = None,
    *,
    n_genes: int = 12,
    gene_symbols: GeneSymbols | None = None,
    **options: Unpack[FigureOptions],
) -> list[Axes] | Axes:
    """Draw the predicted against the measured shift of every gene.

    A shift is the difference between the mean log expression, ln(1 + counts per 10,000), of
    perturbed and of measured control cells; contexts are averaged by their measured cells.

    Parameters
    ----------
    adata
        Measured perturbed and control cells, set up with :meth:`celldit.CellDiT.setup_anndata`.
    predicted
        What :meth:`celldit.CellDiT.predict` or a baseline returns.
    perturbation
        One or several; None for all that were predicted and measured, a panel for each.
    n_genes
        Genes to name, those with the largest shift, measured or predicted.
    gene_symbols
        As for :func:`celldit.pl.distributions`.
    **options
        See :mod:`celldit.pl`; one axes for each perturbation.

    Raises
    ------
    InputError
        If genes differ, or nothing predicted was measured.
    UnknownNameError
        If a perturbation was not predicted.

    Examples
    --------
    >>> ax = cd.pl.effect(adata, predicted, "STAT1")
    """
    check_whole(n_genes, "n_genes", 0)
    pair = read_pair(adata, predicted)
    labels = pair.chosen(perturbation)
    names = GeneNames.of(adata.var, gene_symbols)
    drawn = [shifts(pair, label) for label in labels]
    contexts = [len(pair.contexts(label)) for label in labels]
    (color,) = canvas.colors(["genes"], [MEASURED])
    axes = canvas.panels(len(labels), size=(3.6, 3.5))
    for one, label, (true_G, predicted_G), n in zip(axes, labels, drawn, contexts, strict=True):
        where = f" ({n} contexts)" if n > 1 else ""
        _scatter(one, true_G, predicted_G, f"{label}{where}", color)
    # Names are placed last, when the layout of all panels is final.
    for one, (true_G, predicted_G) in zip(axes, drawn, strict=True):
        top = largest(np.maximum(np.abs(true_G), np.abs(predicted_G)), n_genes)
        named = [names.shown(pair.genes[i]) for i in top]
        everything = np.column_stack([true_G, predicted_G])
        place_labels(one, true_G[top], predicted_G[top], named, avoid=everything)
    return axes if len(axes) > 1 else axes[0]


def _scatter(ax: Axes, true_G: np.ndarray, predicted_G: np.ndarray, label: str, color: Any) -> None:
    both = np.concatenate([true_G, predicted_G])
    low, high = float(both.min()), float(both.max())
    margin = 0.14 * max(high - low, 1e-6)
    limits = (low - margin, high + margin)
    ax.plot(limits, limits, color=INK, lw=0.8, ls="--", zorder=0)
    ax.axhline(0, color="#DDDDDD", lw=0.8, zorder=-1)
    ax.axvline(0, color="#DDDDDD", lw=0.8, zorder=-1)
    ax.scatter(true_G, predicted_G, s=11, color=color, alpha=0.55, lw=0, rasterized=True)
    r = pearson_shift(predicted_G, true_G)
    ax.set(
        title=f"{label}, r = {r:.2f}",
        xlabel="measured shift of log1p expression",
        ylabel="predicted shift of log1p expression",
        xlim=limits,
        ylim=limits,
    )
    ax.set_aspect("equal")
