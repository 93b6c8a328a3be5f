"""Log fold changes of many genes under many perturbations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy.cluster.hierarchy import leaves_list, linkage

from celldit.arguments import check_whole
from celldit.errors import InputError, examples
from celldit.pl.figure import Canvas, FigureOptions, color_bar, figure
from celldit.pl.gene_names import GeneNames, GeneSymbols

GENES = "gene in effects"

FEW_ROWS = 5
COLUMNS = ("perturbation", "context", "gene", "log_fold_change", "sd")


@figure
def effect_heatmap(
    canvas: Canvas,
    effects: pd.DataFrame,
    genes: Sequence[str] | None = None,
    *,
    n_genes: int = 30,
    gene_symbols: GeneSymbols | None = None,
    **options: Unpack[FigureOptions],
) -> Axes:
    """Draw predicted log2 fold changes: perturbations in rows, genes in columns.

    Both are ordered by similarity. A dot marks a change larger than twice its standard deviation.

    Parameters
    ----------
    effects
        What :func:`celldit.tl.effects` or :meth:`celldit.CellDiT.predict_effects` returns; with
        several contexts a row for each perturbation and context.
    genes
        Genes to draw; None for those of the largest changes that are sure (less two standard
        deviations), then the largest others.
    n_genes
        How many of these.
    gene_symbols
        Names to write, by gene, such as ``adata.var["symbol"]``, or a column of `effects` with
        them; None for a column of symbols where genes are Ensembl ids. `genes` may be given by
        them, too.
    **options
        See :mod:`celldit.pl`.

    Raises
    ------
    InputError
        If `effects` lacks a column or is empty.
    UnknownNameError
        If a gene is not in it.

    Examples
    --------
    >>> effects = cd.tl.effects(adata, model, ["STAT1", "IRF1", "JAK2"])
    >>> ax = cd.pl.effect_heatmap(effects, n_genes=10)
    """
    check_effects(effects)
    check_whole(n_genes, "n_genes")
    several = effects["context"].nunique() > 1
    rows = effects["perturbation"].astype(str)
    if several:
        rows = rows + ", " + effects["context"].astype(str)
    change = _wide(effects, rows, "log_fold_change") / np.log(2)
    sd = _wide(effects, rows, "sd") / np.log(2)
    names = effect_names(effects, gene_symbols)
    chosen = _genes(change.abs(), sd, n_genes) if genes is None else names.genes(genes, GENES)
    change, sd = change[chosen], sd[chosen]
    if genes is None:
        change = change.iloc[:, _order(change.to_numpy().T)]
    change = change.iloc[_order(change.to_numpy())]
    sd = sd.loc[change.index, change.columns]
    below = 0.6 if len(change) < FEW_ROWS else 0.0
    size = (1.8 + 0.2 * change.shape[1], 1.1 + 0.2 * change.shape[0] + below)
    (ax,) = canvas.panels(1, size=size)
    _draw(ax, change.rename(columns=names.shown), sd, canvas)
    return ax


def check_effects(effects: object) -> None:
    """Refuse a table that cd.tl.effects did not make; InputError says what it lacks."""
    if not isinstance(effects, pd.DataFrame):
        raise InputError(
            f"effects must be the table that cd.tl.effects returns, not {type(effects).__name__}."
        )
    missing = [name for name in COLUMNS if name not in effects.columns]
    if missing:
        raise InputError(
            f"effects lacks the columns {examples(missing)}; pass what cd.tl.effects returns."
        )
    if effects.empty:
        raise InputError("effects has no row; pass what cd.tl.effects returns.")


def effect_names(effects: pd.DataFrame, gene_symbols: GeneSymbols | None) -> GeneNames:
    """How the genes of a table of effects are written."""
    return GeneNames.of(effects.drop_duplicates("gene").set_index("gene"), gene_symbols)


def _wide(effects: pd.DataFrame, rows: pd.Series, column: str) -> pd.DataFrame:
    table = effects.assign(row=rows)
    if table.duplicated(["row", "gene"]).any():
        raise InputError(
            "effects holds several doses or times; draw these with cd.pl.dose_response or "
            "cd.pl.trajectory, or select one."
        )
    return table.pivot(index="row", columns="gene", values=column)


def _genes(size: pd.DataFrame, sd: pd.DataFrame, n_genes: int) -> list[str]:
    # Where nothing is sure, all that a margin tells is whose deviation is least: the genes that
    # hardly move at all.
    sure = (size - 2 * sd).max(axis=0).clip(lower=0)
    by = pd.DataFrame({"sure": sure, "size": size.max(axis=0)})
    strongest = by.sort_values(["sure", "size"], ascending=False, kind="stable")
    return list(strongest.index[:n_genes])


def _order(values: np.ndarray) -> np.ndarray:
    if len(values) < 3:
        return np.arange(len(values))
    return leaves_list(linkage(values, "average", optimal_ordering=True))


def _draw(ax: Axes, change: pd.DataFrame, sd: pd.DataFrame, canvas: Canvas) -> None:
    values = change.to_numpy()
    # A few extreme values must not bleach the rest; the bar's points say that it was cut.
    bound = float(np.quantile(np.abs(values), 0.98)) or float(np.abs(values).max()) or 1.0
    image = ax.imshow(
        values, cmap=canvas.colormap("RdBu_r"), vmin=-bound, vmax=bound, aspect="auto"
    )
    sure_row, sure_column = np.nonzero(np.abs(values) > 2 * sd.to_numpy())
    dark = np.abs(values[sure_row, sure_column]) > 0.6 * bound
    ax.scatter(sure_column, sure_row, s=3, c=np.where(dark, "white", "black"), lw=0)
    ax.set_xticks(range(values.shape[1]), change.columns, rotation=90, fontsize=7)
    ax.set_yticks(range(values.shape[0]), change.index, fontsize=7.5)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    if len(change) < FEW_ROWS:
        # Beside a row or two there is no height for the bar's numbers.
        place: dict[str, Any] = {"location": "bottom", "shrink": 0.4, "aspect": 24, "pad": 0.04}
    else:
        # As thin beside forty rows as beside nine.
        height = 72 * ax.get_position().height * ax.figure.get_figure(root=True).get_figheight()
        place = {"shrink": 0.9, "aspect": max(14, height / 11), "pad": 0.02}
    color_bar(ax, image, "log2 fold change", extend="both", extendfrac=0.03, **place)
    ax.set_title("dot: more than 2 sd from 0", fontsize=8)
