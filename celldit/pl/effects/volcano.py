"""Change of every gene against how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from celldit.arguments import check_number, check_whole
from celldit.errors import InputError
from celldit.pl.effects.effect_heatmap import check_effects, effect_names
from celldit.pl.figure import Canvas, FigureOptions, figure, known_names, one_name
from celldit.pl.gene_names import GeneSymbols
from celldit.pl.labels import place_labels, stand_labels
from celldit.pl.style import CONTROL, INK, MEASURED, PREDICTED

#: Surer than this is drawn at the top, since the shape of the far tail is not known.
MOST_SURE = 1e-4
#: Of more genes than these at the top, names stand upright above them.
MOST_BESIDE = 3


@figure
def volcano(
    canvas: Canvas,
    effects: pd.DataFrame,
    perturbation: str | Sequence[str] | None = None,
    *,
    context: str | None = None,
    max_lfsr: float = 0.05,
    n_genes: int = 12,
    gene_symbols: GeneSymbols | None = None,
    **options: Unpack[FigureOptions],
) -> list[Axes] | Axes:
    """Draw the log2 fold change of every gene against its local false sign rate.

    Genes below `max_lfsr` are coloured by direction; the strongest of them are named.

    Parameters
    ----------
    effects
        What :func:`celldit.tl.effects` returns.
    perturbation
        One or several; None for all, a panel for each.
    context
        Which context; needed where there are several.
    max_lfsr
        Local false sign rate below which a gene is called changed.
    n_genes
        Genes to name in each panel, those furthest from the middle in both directions together.
    gene_symbols
        As for :func:`celldit.pl.effect_heatmap`.
    **options
        See :mod:`celldit.pl`; one axes for each perturbation.

    Raises
    ------
    InputError
        If `effects` holds no probabilities or several contexts, doses or times, or a number cannot
        be used.
    UnknownNameError
        If a perturbation or the context is not in it.

    Examples
    --------
    >>> table = cd.tl.effects(adata, model, ["STAT1", "JAK2"], contexts="rep_1")
    >>> axes = cd.pl.volcano(table)
    """
    check_effects(effects)
    if not {"lfsr", "log2_fold_change"} <= set(effects.columns):
        raise InputError(
            "effects holds no local false sign rates; make the table with "
            "cd.tl.effects(adata, model, ...)."
        )
    check_number(max_lfsr, "max_lfsr")
    check_whole(n_genes, "n_genes", 0)
    table = _of_context(effects, context)
    known = list(dict.fromkeys(table["perturbation"]))
    wanted = known if perturbation is None else perturbation
    labels = known_names(wanted, known, "perturbation", "perturbation in effects")
    if not labels:
        raise InputError("perturbation=[] names none; leave it out to draw all of them.")
    where = table["context"].iloc[0]
    symbols = effect_names(table, gene_symbols)
    colors = canvas.colors(("unchanged", "down", "up"), (CONTROL, MEASURED, PREDICTED))
    axes = canvas.panels(len(labels), size=(3.8, 3.4))
    drawn = [
        _draw(one, table[table["perturbation"] == label], label, where, max_lfsr, colors)
        for one, label in zip(axes, labels, strict=True)
    ]
    # Names are placed last, when the layout of all panels is final.
    for one, (x, y, names, sure) in zip(axes, drawn, strict=True):
        spread = np.abs(x) / max(np.abs(x).max(), 1e-9) + y / max(y.max(), 1e-9)
        order = np.argsort(-np.where(sure, spread, -1.0), kind="stable")[:n_genes]
        named = order[sure[order]]
        written = np.array([symbols.shown(names[i]) for i in named], dtype=object)
        in_row = y[named] >= -np.log10(MOST_SURE)
        if in_row.sum() > MOST_BESIDE:
            stand_labels(one, x[named[in_row]], float(y.max()), written[in_row])
            named, written = named[~in_row], written[~in_row]
        place_labels(one, x[named], y[named], written.tolist(), avoid=np.column_stack([x, y]))
    return axes if len(axes) > 1 else axes[0]


def _of_context(effects: pd.DataFrame, context: str | None) -> pd.DataFrame:
    known = list(dict.fromkeys(effects["context"]))
    context = one_name(context, known, "context", "effects")
    table = effects[effects["context"] == context]
    if table.duplicated(["perturbation", "gene"]).any():
        raise InputError(
            "effects holds several doses or times; select the rows of one of them first, such as "
            "effects[effects['dose'] == 1]."
        )
    return table


def _draw(
    ax: Axes, table: pd.DataFrame, label: str, where: str, max_lfsr: float, colors: Sequence[Any]
) -> tuple[np.ndarray, np.ndarray, list[str], np.ndarray]:
    x = table["log2_fold_change"].to_numpy(dtype=np.float64)
    lfsr = table["lfsr"].to_numpy(dtype=np.float64)
    y = -np.log10(lfsr.clip(MOST_SURE, 1.0))
    sure = lfsr < max_lfsr
    kinds = ~sure, sure & (x < 0), sure & (x > 0)
    for chosen, color in zip(kinds, colors, strict=True):
        ax.scatter(x[chosen], y[chosen], s=10, color=color, alpha=0.65, lw=0, rasterized=True)
    if 0 < max_lfsr < 1:
        ax.axhline(-np.log10(max_lfsr), color=INK, lw=0.8, ls="--", zorder=0)
    ax.axvline(0, color="#DDDDDD", lw=0.8, zorder=-1)
    reach = 1.18 * max(float(np.abs(x).max()), 0.5)
    top = max(float(y.max()), -np.log10(max_lfsr) if max_lfsr > 0 else 0.0, 1.0)
    if (lfsr < MOST_SURE).any():
        ticks = np.arange(-np.log10(MOST_SURE) + 1)
        ax.set_yticks(ticks, [*(f"{tick:g}" for tick in ticks[:-1]), f"≥{ticks[-1]:g}"])
    kind = str(table["extrapolation"].iloc[0]) if "extrapolation" in table else ""
    said = ", ".join(part for part in (str(where), kind) if part)
    ax.set(
        xlim=(-reach, reach),
        ylim=(0, 1.12 * top),
        xlabel="log2 fold change",
        ylabel="-log10 local false sign rate",
        title=f"{label}{f' ({said})' if said else ''}\n{int(sure.sum())} genes changed",
    )
    return x, y, table["gene"].astype(str).tolist(), sure
