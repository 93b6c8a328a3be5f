"""Log fold changes along a dose or along time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

from celldit.errors import InputError
from celldit.pl.effects.effect_heatmap import GENES, check_effects, effect_names
from celldit.pl.figure import Canvas
from celldit.pl.gene_names import GeneNames, GeneSymbols
from celldit.pl.style import CYCLE, INK, style


def draw_courses(
    effects: pd.DataFrame,
    along: str,
    genes: Sequence[str] | str | None,
    n_genes: int,
    gene_symbols: GeneSymbols | None,
    canvas: Canvas,
) -> Any:
    """Draw effects along one of their columns, a panel for each perturbation."""
    check_effects(effects)
    if along not in effects.columns or effects[along].nunique() < 2:
        raise InputError(
            f"effects needs at least two values of {along}; make it with "
            f"cd.tl.effects(adata, model, 'NAME', {along}=[...])."
        )
    try:
        effects = effects.assign(**{along: effects[along].astype(float)})
    except (TypeError, ValueError) as error:
        raise InputError(
            f"The column {along!r} of effects holds values that are not numbers."
        ) from (error)
    written = effect_names(effects, gene_symbols)
    requested = chosen_genes(genes, n_genes, written, GENES)
    names = list(dict.fromkeys(effects["perturbation"]))
    with style():
        axes = canvas.panels(len(names), size=(4.2, 3.0))
        for one, name in zip(axes, names, strict=True):
            _draw(
                one,
                effects[effects["perturbation"] == name],
                along,
                requested or n_genes,
                written,
                canvas,
            )
            one.set_title(str(name))
    return canvas.finish(axes if len(axes) > 1 else axes[0])


def chosen_genes(
    genes: Sequence[str] | str | None, n_genes: int, written: GeneNames, where: str
) -> list[str] | None:
    """The genes asked for, as a list; None stays None, for those of the largest changes.

    Raises
    ------
    InputError
        If there are more than colours can tell apart.
    UnknownNameError
        If a gene is not among the known ones.
    """
    if not 1 <= n_genes <= len(CYCLE):
        raise InputError(f"n_genes={n_genes!r} must be between 1 and {len(CYCLE)}.")
    if genes is None:
        return None
    requested = written.genes(genes, where)
    if len(requested) > len(CYCLE):
        raise InputError(f"{len(requested)} genes cannot be told apart; draw at most {len(CYCLE)}.")
    return requested


def _draw(
    ax: Axes,
    table: pd.DataFrame,
    along: str,
    genes: Sequence[str] | int,
    written: GeneNames,
    canvas: Canvas,
) -> None:
    # Contexts share what is not known of the perturbation, so their variances do not average out.
    wide = table.pivot_table(index=along, columns="gene", values=["log_fold_change", "sd"])
    wide = wide.sort_index() / np.log(2)
    mean, sd = wide["log_fold_change"], wide["sd"]
    if isinstance(genes, int):
        genes = list(mean.abs().max().sort_values(ascending=False, kind="stable").index[:genes])
    labels = [written.shown(gene) for gene in genes]
    x = mean.index.to_numpy(dtype=np.float64)
    for gene, label, color in zip(genes, labels, canvas.colors(labels, CYCLE), strict=True):
        y, width = mean[gene].to_numpy(), sd[gene].to_numpy()
        ax.fill_between(x, y - width, y + width, color=color, alpha=0.15, lw=0)
        ax.plot(x, y, color=color, marker="o", markersize=4, lw=1.4, label=label)
    ax.axhline(0, color=INK, lw=0.8, ls="--", zorder=0)
    if along == "dose" and (x > 0).all() and x.max() > 20 * x.min():
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set(xlabel=along, ylabel="log2 fold change")
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), handlelength=1.4)
