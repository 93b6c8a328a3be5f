"""Distributions of single genes: control, measured, predicted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import anndata as ad
import numpy as np
from matplotlib.axes import Axes

from celldit.arguments import check_whole
from celldit.errors import InputError
from celldit.evaluation.metrics.shift import largest
from celldit.pl.figure import Canvas, FigureOptions, figure
from celldit.pl.gene_names import GeneNames, GeneSymbols
from celldit.pl.measured import Pair, columns_of, read_pair, shifts
from celldit.pl.style import CONTROL, INK, MEASURED, PREDICTED

KINDS = ("control", "measured", "predicted")


@figure
def distributions(
    canvas: Canvas,
    adata: ad.AnnData,
    predicted: ad.AnnData,
    genes: Sequence[str] | str | None = None,
    perturbation: str | None = None,
    *,
    n_genes: int = 8,
    gene_symbols: GeneSymbols | None = None,
    **options: Unpack[FigureOptions],
) -> list[Axes] | Axes:
    """Draw how single genes are distributed over control, measured and predicted cells.

    Each panel is a gene, each violin the log expression, ln(1 + counts per 10,000), of a kind of
    cell, with its mean. The share of cells without a count of the gene stands below.

    Parameters
    ----------
    adata
        Measured perturbed and control cells, set up with :meth:`celldit.CellDiT.setup_anndata`.
    predicted
        What :meth:`celldit.CellDiT.predict` or a baseline returns; its sampled counts are drawn.
    genes
        Genes; None for those with the largest measured shift.
    perturbation
        Needed when several were predicted.
    n_genes
        How many genes.
    gene_symbols
        Column of ``adata.var`` with the names to write, or these names by gene; None for a column
        of symbols where genes are Ensembl ids. `genes` may be given by them, too.
    **options
        See :mod:`celldit.pl`; one axes for each gene.

    Raises
    ------
    InputError
        If several perturbations were predicted and none is named.
    UnknownNameError
        If a gene or the perturbation is not there.

    Examples
    --------
    >>> axes = cd.pl.distributions(adata, predicted, ["STAT1", "PSMB9"])
    """
    pair = read_pair(adata, predicted)
    labels = pair.chosen(perturbation)
    if len(labels) != 1:
        raise InputError(
            f"{len(labels)} perturbations were predicted; say which to draw, such as "
            f"perturbation={labels[0]!r}."
        )
    names = GeneNames.of(adata.var, gene_symbols)
    columns = _columns(pair, names, genes, labels[0], n_genes)
    values = _values(pair, labels[0], columns)
    colors = canvas.colors(KINDS, (CONTROL, MEASURED, PREDICTED))
    axes = canvas.panels(len(columns), size=(2.0, 2.3))
    for i, (one, column) in enumerate(zip(axes, columns, strict=True)):
        _violins(one, {name: x[:, i] for name, x in values.items()}, colors)
        one.set_title(names.shown(pair.genes[column]))
        place = one.get_subplotspec()
        if place is None or place.is_first_col():
            one.set_ylabel("log1p expression")
    return axes if len(axes) > 1 else axes[0]


def _columns(
    pair: Pair,
    names: GeneNames,
    genes: Sequence[str] | str | None,
    label: str,
    n_genes: int,
) -> np.ndarray:
    if genes is None:
        check_whole(n_genes, "n_genes")
        return largest(shifts(pair, label)[0], n_genes)
    position = {gene: i for i, gene in enumerate(pair.genes)}
    requested = names.genes(genes, "gene")
    return np.array([position[gene] for gene in requested], dtype=np.int64)


def _values(pair: Pair, label: str, columns: np.ndarray) -> dict[str, np.ndarray]:
    measured, predicted = pair.measured.conditions(), pair.predicted.conditions()
    contexts = pair.contexts(label)
    control = np.concatenate([measured[pair.fields.control, c] for c in contexts])
    true = np.concatenate([measured[label, c] for c in contexts])
    new = np.concatenate([predicted[label, c] for c in contexts])
    return {
        "control": columns_of(pair.measured, control, columns),
        "measured": columns_of(pair.measured, true, columns),
        "predicted": columns_of(pair.predicted, new, columns),
    }


def _violins(ax: Axes, values: dict[str, np.ndarray], colors: Sequence[Any]) -> None:
    for at, (x, color) in enumerate(zip(values.values(), colors, strict=True)):
        if np.ptp(x) > 0:
            # A fixed width in log expression, so that violins of few and many cells are comparable.
            drawn = ax.violinplot(x, [at], widths=0.85, showextrema=False, bw_method=0.25)
            parts: Any = drawn["bodies"]
            for part in parts:
                part.set(facecolor=color, edgecolor="none", alpha=0.65)
        ax.scatter([at], [x.mean()], s=22, color="white", edgecolor=INK, lw=0.9, zorder=3)
    top = max(float(x.max()) for x in values.values())
    ax.set_ylim(-0.06 * max(top, 0.1), 1.05 * max(top, 0.1))
    shares = [f"{name}\n{np.mean(x == 0):.0%} zero" for name, x in values.items()]
    ax.set_xticks(range(3), shares, fontsize=6.5)
    ax.tick_params(axis="x", length=0)
