"""Heat map of attention: which gene sets read which."""

from __future__ import annotations

from typing import Unpack

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from celldit.errors import InputError, UnknownNameError
from celldit.pl.figure import Canvas, FigureOptions, figure
from celldit.pl.style import style

COLUMNS = ("perturbation", "context", "reader", "token", "attention", "difference")


@figure
def attention(
    table: pd.DataFrame,
    perturbation: str | None = None,
    *,
    difference: bool = True,
    n_tokens: int = 20,
    **options: Unpack[FigureOptions],
) -> Axes:
    """Draw which tokens the network reads together, and how a perturbation changes that.

    Parameters
    ----------
    table
        What :func:`celldit.tl.attention` returns; contexts are averaged.
    perturbation
        Needed when the table holds several.
    difference
        Draw perturbed minus control (True) or the attention itself.
    n_tokens
        Tokens to draw on either side, those with the largest values.
    **options
        See :mod:`celldit.pl`.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    InputError
        If the table was made by something else, or holds no difference.
    UnknownNameError
        If the perturbation is not in it.

    Examples
    --------
    >>> table = cd.tl.attention(adata, model, "STAT1")
    >>> ax = cd.pl.attention(table)
    """
    canvas = Canvas.of("attention", options)
    wide, label = wide_attention(table, perturbation, difference=difference, n_tokens=n_tokens)
    with style():
        size = (3.6 + 0.2 * wide.shape[1], 2.2 + 0.19 * len(wide))
        (ax,) = canvas.panels(1, size=size)
        values = wide.to_numpy()
        bound = float(np.abs(values).max()) or 1.0
        low, colors = (-bound, "RdBu_r") if difference else (0.0, "cividis")
        image = ax.imshow(values, cmap=canvas.colormap(colors), vmin=low, vmax=bound, aspect="auto")
        ax.set_yticks(range(len(wide)), [short_name(str(name)) for name in wide.index], fontsize=7)
        readers = [short_name(str(name)) for name in wide.columns]
        ax.set_xticks(range(wide.shape[1]), readers, fontsize=7, rotation=90)
        ax.set(xlabel="reads", ylabel="is read")
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        bar = ax.figure.colorbar(image, ax=ax, shrink=0.9, aspect=16, pad=0.02)
        bar.set_label("attention, minus control" if difference else "attention", fontsize=8)
        bar.ax.tick_params(labelsize=7)
        bar.outline.set_visible(False)
        ax.set_title(label)
    return canvas.finish(ax)


def wide_attention(
    table: object, perturbation: str | None, *, difference: bool, n_tokens: int
) -> tuple[pd.DataFrame, str]:
    """Attention, or its difference, of the strongest tokens: tokens x readers, and what of.

    Raises
    ------
    InputError
        If the table was made by something else, or holds no difference.
    UnknownNameError
        If the perturbation is not in it.
    """
    if not isinstance(table, pd.DataFrame) or not set(COLUMNS) <= set(table.columns):
        raise InputError("table must be what cd.tl.attention returns.")
    if n_tokens < 1:
        raise InputError(f"n_tokens={n_tokens!r} must be at least 1.")
    column = "difference" if difference else "attention"
    label = _choose(table, perturbation, difference)
    own = table[(table["perturbation"] == label) & table[column].notna()]
    if own.empty:
        raise InputError(
            f"The table has no control cells in the contexts of {label!r}, so there is no "
            "difference; pass difference=False."
        )
    # Tokens of one name, in the order of the tokenizer, are one row.
    wide = own.pivot_table(index="token", columns="reader", values=column, sort=False)
    rows, columns = (
        wide.abs().max(axis=axis).sort_values(ascending=False, kind="stable").index[:n_tokens]
        for axis in (1, 0)
    )
    return wide.loc[rows, columns], str(label)


def _choose(table: pd.DataFrame, perturbation: str | None, difference: bool) -> str:
    labels = list(dict.fromkeys(table["perturbation"]))
    if perturbation is not None:
        if not isinstance(perturbation, str) or perturbation not in labels:
            raise UnknownNameError.among("perturbation in the table", perturbation, labels)
        return perturbation
    # A control differs from itself by nothing, so it is what to leave out.
    moved = table.groupby("perturbation")["difference"].apply(lambda d: d.abs().max() > 0)
    candidates = [label for label in labels if not difference or moved[label]]
    if len(candidates) != 1:
        raise InputError(
            f"The table holds {len(candidates)} perturbations to draw; say which, such as "
            f"perturbation={labels[-1]!r}."
        )
    return candidates[0]


def short_name(name: str, longest: int = 34) -> str:
    """Names of gene sets as people read them: no prefix of the collection, no overlong line."""
    text = name
    for prefix in ("HALLMARK_", "REACTOME_", "GOBP_", "GO_"):
        text = text.removeprefix(prefix)
    text = text.replace("_", " ")
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
