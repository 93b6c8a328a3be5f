"""Attention: a heat map of which gene sets read which, and a network of those read together."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from scipy.cluster.hierarchy import leaves_list, linkage

from celldit.arguments import check_whole
from celldit.errors import InputError
from celldit.pl.figure import Canvas, FigureOptions, color_bar, figure, one_name
from celldit.pl.style import INK

# Room around the ring for the names, in radii.
MARGIN = 2.3
LONGEST_NAME = 26
COLUMNS = ("perturbation", "context", "reader", "token", "attention", "difference")


@figure
def attention(
    canvas: Canvas,
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
    wide, label = wide_attention(table, perturbation, difference=difference, n_tokens=n_tokens)
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
    color_bar(ax, image, _measure(difference), shrink=0.9, aspect=16, pad=0.02)
    ax.set_title(label)
    return ax


@figure
def attention_network(
    canvas: Canvas,
    table: pd.DataFrame,
    perturbation: str | None = None,
    *,
    difference: bool = True,
    n_tokens: int = 20,
    n_edges: int = 30,
    **options: Unpack[FigureOptions],
) -> Axes:
    """Draw which gene sets are read together, as a ring of tokens joined by lines.

    With x_kt the change of the attention that reader k pays to token t (or, with
    ``difference=False``, that attention less the token's mean over the readers), two tokens s and t
    are joined by a line of width Σ_k x_ks x_kt: the same readers turn to both. Lines are drawn for
    the largest positive sums. Similar tokens stand side by side.

    Parameters
    ----------
    table
        What :func:`celldit.tl.attention` returns; contexts are averaged.
    perturbation
        Needed when the table holds several.
    difference
        Draw what the perturbation changes (True), or the attention itself.
    n_tokens
        Tokens to draw, those with the largest values; at least 3.
    n_edges
        Most lines to draw.
    **options
        See :mod:`celldit.pl`.

    Raises
    ------
    InputError
        If the table was made by something else, or holds no difference.
    UnknownNameError
        If the perturbation is not in it.

    Examples
    --------
    >>> table = cd.tl.attention(adata, model, "STAT1")
    >>> ax = cd.pl.attention_network(table)
    """
    if n_tokens < 3 or n_edges < 0:
        raise InputError(f"n_tokens={n_tokens!r} and n_edges={n_edges!r} must be at least 3 and 0.")
    wide, label = wide_attention(table, perturbation, difference=difference, n_tokens=n_tokens)
    if len(wide) < 3:
        raise InputError(f"A network needs at least 3 tokens; the table has {len(wide)}.")
    values_TK = wide.to_numpy(dtype=np.float64)
    mean_T = values_TK.mean(axis=1)
    x_TK = values_TK if difference else values_TK - mean_T[:, None]
    order = _ring_order(x_TK)
    wide, x_TK, mean_T = wide.iloc[order], x_TK[order], mean_T[order]
    angle_T = np.pi / 2 - 2 * np.pi * (np.arange(len(wide)) + 0.5) / len(wide)
    (ax,) = canvas.panels(1, size=(7.4, 6.4))
    _lines(ax, angle_T, x_TK @ x_TK.T, n_edges)
    _tokens(ax, angle_T, mean_T, difference, canvas)
    _names(ax, angle_T, [short_name(str(name), LONGEST_NAME) for name in wide.index])
    ax.set(xlim=(-MARGIN, MARGIN), ylim=(-MARGIN, MARGIN), xticks=[], yticks=[])
    ax.set_aspect("equal")
    ax.spines[:].set_visible(False)
    ax.set_title(f"{label}: tokens read together")
    return ax


def _ring_order(x_TK: np.ndarray) -> np.ndarray:
    """Similar profiles side by side."""
    scale = np.linalg.norm(x_TK, axis=1, keepdims=True)
    unit = x_TK / np.where(scale > 0, scale, 1)
    return np.asarray(leaves_list(linkage(unit, "average", optimal_ordering=True)))


def _lines(ax: Axes, angle_T: np.ndarray, together_TT: np.ndarray, n_edges: int) -> None:
    first, second = np.triu_indices(len(angle_T), k=1)
    weight = together_TT[first, second]
    strongest = np.argsort(-weight, kind="stable")[:n_edges]
    strongest = strongest[weight[strongest] > 0]
    if not len(strongest):
        return
    at = np.column_stack([np.cos(angle_T), np.sin(angle_T)])
    # The weakest first, so that the strong ones lie on top.
    for edge in strongest[::-1]:
        share = float(weight[edge] / weight[strongest[0]])
        # Bent through the middle, so that lines between neighbours do not run along the ring.
        curve = Path(
            [at[first[edge]], (0.0, 0.0), at[second[edge]]], [Path.MOVETO, Path.CURVE3, Path.CURVE3]
        )
        patch = PathPatch(
            curve, facecolor="none", edgecolor=INK, lw=0.3 + 3.2 * share, alpha=0.15 + 0.5 * share
        )
        ax.add_patch(patch)


def _tokens(
    ax: Axes, angle_T: np.ndarray, mean_T: np.ndarray, difference: bool, canvas: Canvas
) -> None:
    bound = float(np.abs(mean_T).max()) or 1.0
    size = 25 + 165 * np.abs(mean_T) / bound
    colors: dict[str, Any] = {"vmin": float(mean_T.min()), "vmax": bound}
    if difference:
        colors = {"norm": TwoSlopeNorm(0.0, -bound, bound)}
    points = ax.scatter(
        np.cos(angle_T),
        np.sin(angle_T),
        s=size,
        c=mean_T,
        cmap=canvas.colormap("RdBu_r" if difference else "cividis"),
        edgecolor=INK,
        lw=0.6,
        zorder=3,
        **colors,
    )
    color_bar(ax, points, f"mean {_measure(difference)}", shrink=0.4, aspect=14, pad=0.02)


def _names(ax: Axes, angle_T: np.ndarray, names: list[str]) -> None:
    for angle, name in zip(angle_T, names, strict=True):
        degrees = np.rad2deg(angle) % 360
        leftward = 90 < degrees < 270
        ax.text(
            1.13 * np.cos(angle),
            1.13 * np.sin(angle),
            name,
            rotation=degrees + 180 if leftward else degrees,
            rotation_mode="anchor",
            ha="right" if leftward else "left",
            va="center",
            fontsize=6.2,
            color=INK,
        )


def wide_attention(
    table: object, perturbation: str | None, *, difference: bool, n_tokens: int
) -> tuple[pd.DataFrame, str]:
    """Attention, or its difference, of the strongest tokens: tokens x readers, and what of.

    InputError if the table was made by something else, or holds no difference; UnknownNameError if
    the perturbation is not in it.
    """
    if not isinstance(table, pd.DataFrame) or not set(COLUMNS) <= set(table.columns):
        raise InputError("table must be what cd.tl.attention returns.")
    check_whole(n_tokens, "n_tokens")
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


def _measure(difference: bool) -> str:
    return "attention, minus control" if difference else "attention"


def _choose(table: pd.DataFrame, perturbation: str | None, difference: bool) -> str:
    labels = list(dict.fromkeys(table["perturbation"]))
    # A control differs from itself by nothing, so it is what to leave out.
    moved = table.groupby("perturbation")["difference"].apply(lambda d: d.abs().max() > 0)
    usable = [label for label in labels if not difference or moved[label]]
    return str(one_name(perturbation, labels, "perturbation", "The table", usable))


def short_name(name: str, longest: int = 34) -> str:
    """Names of gene sets as people read them: no prefix of the collection, no overlong line."""
    text = name
    for prefix in ("HALLMARK_", "REACTOME_", "GOBP_", "GO_"):
        text = text.removeprefix(prefix)
    text = text.replace("_", " ")
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
