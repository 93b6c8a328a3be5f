"""Pairs of perturbations against the sum of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import anndata as ad
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from celldit.analysis.interactions import SURE, Kind
from celldit.arguments import check_whole
from celldit.data.checks import check_anndata
from celldit.errors import InputError
from celldit.pl.figure import Canvas, FigureOptions, figure, known_names
from celldit.pl.gene_names import GeneNames, GeneSymbols
from celldit.pl.labels import place_labels
from celldit.pl.style import CONTROL, CYCLE, INK, PREDICTED

COLORS = {
    Kind.ADDITIVE: "#000000",
    Kind.SYNERGY: CYCLE[1],
    Kind.BUFFERING: CYCLE[0],
    Kind.EPISTASIS: CYCLE[2],
    Kind.NEOMORPHIC: CYCLE[3],
    Kind.UNCLEAR: CONTROL,
}


@figure
def interactions(
    canvas: Canvas,
    adata: ad.AnnData,
    perturbation: str | Sequence[str] | None = None,
    *,
    max_lfsr: float = 0.05,
    n_genes: int = 8,
    key: str = "interactions",
    gene_symbols: GeneSymbols | None = None,
    **options: Unpack[FigureOptions],
) -> list[Axes] | Axes:
    """Draw how much of the sum each pair does, and genes of pairs against their sums.

    The last panel holds every pair's total, 1 where effects add up, with two and a half standard
    deviations, coloured by its kind. The panels before it, one for each pair that is named, show
    the measured change of every gene against the sum of both; genes that deviate are coloured, the
    strongest of them named.

    Parameters
    ----------
    adata
        After :func:`celldit.tl.interactions`.
    perturbation
        One pair or several, in one context; None for the totals alone.
    max_lfsr
        Local false sign rate below which a gene is called deviating.
    n_genes
        Genes to name in each panel.
    key
        Key in ``uns``.
    gene_symbols
        As for :func:`celldit.pl.distributions`.
    **options
        See :mod:`celldit.pl`; one axes for each pair that is named, and one for totals.

    Raises
    ------
    InputError
        If `adata` holds no result of :func:`celldit.tl.interactions`.
    UnknownNameError
        If a pair is not in it.

    Examples
    --------
    >>> norman = cd.datasets.norman()
    >>> cd.CellDiT.setup_anndata(
    ...     norman, perturbation_key="perturbation", size_factor_key="total_umis"
    ... )
    >>> pairs = cd.tl.interactions(norman)
    >>> axes = cd.pl.interactions(norman, "MAP2K3+MAP2K6")
    """
    check_anndata(adata, "adata")
    pairs, genes = adata.uns.get(key), adata.uns.get(f"{key}_genes")
    if not isinstance(pairs, pd.DataFrame) or not isinstance(genes, pd.DataFrame):
        raise InputError(
            f"adata.uns holds no pairs under {key!r}; make them with cd.tl.interactions(adata)."
        )
    check_whole(n_genes, "n_genes", 0)
    known = list(dict.fromkeys(pairs["perturbation"]))
    labels = known_names(
        () if perturbation is None else perturbation,
        known,
        "perturbation",
        "pair with interactions",
    )
    height = max(3.4, 0.2 * len(pairs) + 1.0) if canvas.ax is None else 3.4
    names = GeneNames.of(adata.var, gene_symbols)
    kinds = [str(kind) for kind in COLORS]
    colors = dict(zip(kinds, canvas.colors(kinds, list(COLORS.values())), strict=True))
    axes = canvas.panels(len(labels) + 1, size=(3.6, height))
    _draw_totals(axes[-1], pairs, colors)
    drawn = []
    for one, label in zip(axes, labels, strict=False):
        row = pairs[pairs["perturbation"] == label].iloc[0]
        own = genes[genes["perturbation"] == label]
        own = own[own["context"] == row["context"]]
        drawn.append(own)
        _draw_genes(one, own, row, max_lfsr)
    # Names are placed last, when the layout of all panels is final.
    for one, own in zip(axes, drawn, strict=False):
        top = own[own["lfsr"] < max_lfsr].nsmallest(n_genes, "lfsr")
        x, y = top["additive"].to_numpy(), top["measured"].to_numpy()
        everything = own[["additive", "measured"]].to_numpy()
        place_labels(one, x, y, [names.shown(gene) for gene in top["gene"]], avoid=everything)
    return axes if len(axes) > 1 else axes[0]


def _draw_genes(ax: Axes, own: pd.DataFrame, row: pd.Series, max_lfsr: float) -> None:
    x, y = own["additive"].to_numpy(), own["measured"].to_numpy()
    sure = own["lfsr"].to_numpy() < max_lfsr
    reach = 1.15 * max(float(np.abs(np.concatenate([x, y])).max()), 0.5)
    ax.plot([-reach, reach], [-reach, reach], color=INK, lw=0.8, ls="--", zorder=0)
    ax.axhline(0, color="#DDDDDD", lw=0.8, zorder=-1)
    ax.axvline(0, color="#DDDDDD", lw=0.8, zorder=-1)
    for chosen, color in ((~sure, CONTROL), (sure, PREDICTED)):
        ax.scatter(x[chosen], y[chosen], s=11, color=color, alpha=0.65, lw=0, rasterized=True)
    ax.set(
        xlim=(-reach, reach),
        ylim=(-reach, reach),
        xlabel="sum of both, log2 fold change",
        ylabel="measured, log2 fold change",
        title=f"{row['perturbation']}: {row['kind']}\n{int(sure.sum())} genes deviate",
    )
    ax.set_aspect("equal")


def _draw_totals(ax: Axes, pairs: pd.DataFrame, colors: Mapping[str, Any]) -> None:
    pairs = pairs.iloc[np.argsort(pairs["total"].to_numpy(), kind="stable")]
    names = pairs["perturbation"].astype(str)
    if pairs["context"].nunique() > 1:
        names = names + " in " + pairs["context"].astype(str)
    at, total = np.arange(len(pairs)), pairs["total"].to_numpy()
    reach = SURE * pairs["total_sd"].to_numpy()
    for kind, color in colors.items():
        own = (pairs["kind"] == kind).to_numpy()
        if own.any():
            ax.hlines(at[own], (total - reach)[own], (total + reach)[own], color=color, lw=1.4)
            ax.scatter(total[own], at[own], s=24, color=color, label=kind, zorder=3)
    ax.axvline(1, color=INK, lw=0.8, ls="--", zorder=0)
    ax.set_xlim(min(-0.05, *(total - reach)), max(1.5, *(total + 1.1 * reach)))
    ax.set_yticks(at, names)
    ax.set(
        ylim=(-0.7, len(pairs) - 0.3),
        xlabel="share of the sum (± 2.5 sd)",
        title="pairs",
    )
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), handlelength=1.0)
