"""Expression or log fold changes along time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import anndata as ad
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from celldit.data.cells import Cells
from celldit.data.fields import Fields
from celldit.errors import InputError
from celldit.pl.effects.dose_response import chosen_genes, draw_courses
from celldit.pl.figure import Canvas, FigureOptions, figure
from celldit.pl.gene_names import GeneNames, GeneSymbols
from celldit.pl.style import CYCLE, INK


@figure
def trajectory(
    canvas: Canvas,
    path: ad.AnnData | pd.DataFrame,
    genes: Sequence[str] | str | None = None,
    *,
    measured: ad.AnnData | None = None,
    n_genes: int = 5,
    gene_symbols: GeneSymbols | None = None,
    **options: Unpack[FigureOptions],
) -> list[Axes] | Axes:
    """Draw genes against time: mean expression of cells, or effects of a perturbation.

    Of cells, lines are means of ln(1 + counts per 10,000) with bands of two standard errors;
    measured means stand beside them as open circles. Of effects, lines are log2 fold changes with
    bands of one standard deviation.

    Parameters
    ----------
    path
        Cells, ``model.trajectory(times=[10, 10.25, 10.5])``; or effects,
        ``cd.tl.effects(adata, model, "NAME", time=[10, 10.5, 11])``, whose contexts are averaged.
    genes
        Genes; None for those of the largest changes.
    measured
        With cells: measured cells, set up with :meth:`celldit.CellDiT.setup_anndata`.
    n_genes
        How many genes, at most 8.
    gene_symbols
        As for :func:`celldit.pl.effect_heatmap`; with cells also a column of
        ``var`` of `measured` or `path`.
    **options
        See :mod:`celldit.pl`; of effects one axes for each perturbation.

    Raises
    ------
    InputError
        If there are fewer than two times, or `path` is neither cells nor effects.
    UnknownNameError
        If a gene is not in it.

    Examples
    --------
    >>> path = model.trajectory(times=[10, 10.5, 11])     # doctest: +SKIP
    >>> cd.pl.trajectory(path, measured=adata)            # doctest: +SKIP
    """
    if not isinstance(path, ad.AnnData):
        if measured is not None:
            raise InputError("measured= goes with the cells of model.trajectory(), not effects.")
        return draw_courses(path, "time", genes, n_genes, gene_symbols, canvas)
    mean, error = _means(path, "path")
    written = GeneNames.of((path if measured is None else measured).var, gene_symbols)
    requested = chosen_genes(genes, n_genes, written, "gene in the trajectory")
    truth = None if measured is None else _means(measured, "measured")[0]
    if requested is None:
        change = mean.max() - mean.min()
        requested = list(change.sort_values(ascending=False, kind="stable").index[:n_genes])
    axes = canvas.panels(1, size=(4.6, 3.2))
    labels = [written.shown(gene) for gene in requested]
    colors = dict(zip(labels, canvas.colors(labels, CYCLE), strict=True))
    _draw(axes[0], mean[requested], error[requested], truth, colors)
    axes[0].set_xlabel(Fields.from_anndata(path).time_key or "time")
    return axes[0]


def _means(adata: ad.AnnData, name: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Mean log expression at each time, and its standard error: times x genes."""
    fields = Fields.from_anndata(adata)
    if fields.time_key is None:
        raise InputError(f"{name} was set up without time_key, so it has no course in time.")
    cells = Cells.from_anndata(adata, fields)
    assert cells.times is not None
    times, row = np.unique(cells.times, return_inverse=True)
    if name == "path" and len(times) < 2:
        raise InputError("A trajectory needs at least two times; give more to model.trajectory().")
    log = cells.log_normalized()
    mean, error = np.zeros((2, len(times), cells.n_genes))
    for i in range(len(times)):
        own = log[row == i].toarray()
        mean[i] = own.mean(axis=0)
        error[i] = own.std(axis=0) / len(own) ** 0.5
    genes = list(cells.genes)
    return pd.DataFrame(mean, times, genes), pd.DataFrame(error, times, genes)


def _draw(
    ax: Axes,
    mean: pd.DataFrame,
    error: pd.DataFrame,
    truth: pd.DataFrame | None,
    colors: Mapping[str, Any],
) -> None:
    x = mean.index.to_numpy(dtype=np.float64)
    for gene, (label, color) in zip(mean.columns, colors.items(), strict=True):
        y, width = mean[gene].to_numpy(), 2 * error[gene].to_numpy()
        ax.fill_between(x, y - width, y + width, color=color, alpha=0.15, lw=0)
        ax.plot(x, y, color=color, lw=1.4, label=label)
        if truth is not None and gene in truth.columns:
            ax.plot(truth.index, truth[gene], "o", mfc="white", mec=color, markersize=5.5)
    if truth is not None:
        ax.plot([], [], "o", mfc="white", mec=INK, markersize=5.5, label="measured")
    ax.set_ylabel("mean log1p expression")
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), handlelength=1.4)
