"""Log fold changes along a dose or along time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

from celldit.arguments import text_list
from celldit.errors import InputError, UnknownNameError
from celldit.pl.effects.effect_heatmap import check_effects
from celldit.pl.style import CYCLE, INK, finish, panels, style

__all__ = ["chosen_genes", "draw_courses"]


def draw_courses(
    effects: pd.DataFrame,
    along: str,
    genes: Sequence[str] | str | None,
    n_genes: int,
    ax: Axes | Sequence[Axes] | None,
    show: bool | None,
    save: Any,
) -> list[Axes]:
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
    requested = chosen_genes(genes, n_genes, effects["gene"].unique(), "effects")
    names = list(dict.fromkeys(effects["perturbation"]))
    with style():
        axes = panels(len(names), ax, size=(4.2, 3.0))
        for one, name in zip(axes, names, strict=True):
            _draw(one, effects[effects["perturbation"] == name], along, requested, n_genes)
            one.set_title(str(name))
        finish(axes, show=show, save=save, own=ax is None)
    return axes


def chosen_genes(
    genes: Sequence[str] | str | None, n_genes: int, known: Sequence[str] | np.ndarray, where: str
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
    requested = text_list(genes, "genes")
    if not requested:
        raise InputError("genes=[] names no gene; leave it out for those of the largest changes.")
    for gene in requested:
        if gene not in set(known):
            raise UnknownNameError.among(f"gene in {where}", gene, known)
    if len(requested) > len(CYCLE):
        raise InputError(f"{len(requested)} genes cannot be told apart; draw at most {len(CYCLE)}.")
    return requested


def _draw(
    ax: Axes, table: pd.DataFrame, along: str, genes: Sequence[str] | None, n_genes: int
) -> None:
    # Contexts share what is not known of the perturbation, so their variances do not average out.
    mean = table.pivot_table(index=along, columns="gene", values="log_fold_change").sort_index()
    sd = table.pivot_table(index=along, columns="gene", values="sd").sort_index()
    if genes is None:
        genes = list(mean.abs().max().sort_values(ascending=False, kind="stable").index[:n_genes])
    x = mean.index.to_numpy(dtype=np.float64)
    for gene, color in zip(genes, CYCLE, strict=False):
        y, width = mean[gene].to_numpy(), sd[gene].to_numpy()
        ax.fill_between(x, y - width, y + width, color=color, alpha=0.15, lw=0)
        ax.plot(x, y, color=color, marker="o", markersize=4, lw=1.4, label=gene)
    ax.axhline(0, color=INK, lw=0.8, ls="--", zorder=0)
    if along == "dose" and (x > 0).all() and x.max() > 20 * x.min():
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set(xlabel=along, ylabel="log fold change (ln)")
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), handlelength=1.4)
