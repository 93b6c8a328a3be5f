"""Which cells responded, and which guides work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import anndata as ad
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from celldit.data.checks import check_anndata
from celldit.data.fields import Fields
from celldit.data.labels.columns import label_column
from celldit.data.labels.labels import canonical_array
from celldit.errors import InputError
from celldit.pl.figure import Canvas, FigureOptions, figure, known_names
from celldit.pl.style import CONTROL, MEASURED, PREDICTED

N_BINS = 40


@figure
def responders(
    canvas: Canvas,
    adata: ad.AnnData,
    perturbation: str | Sequence[str] | None = None,
    *,
    key: str = "responders",
    **options: Unpack[FigureOptions],
) -> list[Axes] | Axes:
    """Draw the share of cells that responded, and where cells lie along the effect.

    The last panel holds shares with their 90% intervals, of each guide where guides are known. The
    panels before it, one for each perturbation that is named, show the cells by their score, each
    split into the probability that it responded and that it did not.

    Parameters
    ----------
    adata
        After :func:`celldit.tl.responders`.
    perturbation
        One or several; None for the shares of all, without the cells.
    key
        Key in ``uns``.
    **options
        See :mod:`celldit.pl`; one axes for each perturbation that is named, and one for shares.

    Raises
    ------
    InputError
        If `adata` holds no result of :func:`celldit.tl.responders`.
    UnknownNameError
        If a perturbation is not in it.

    Examples
    --------
    >>> table = cd.tl.responders(adata, guide_key="grna")
    >>> axes = cd.pl.responders(adata, ["STAT1", "IRF1"])
    """
    check_anndata(adata, "adata")
    table = adata.uns.get(key)
    columns = {"p_responded", "response_score"}
    if not isinstance(table, pd.DataFrame) or not columns <= set(adata.obs.columns):
        raise InputError(
            f"adata.uns holds no shares under {key!r}; make them with cd.tl.responders(adata)."
        )
    known = list(dict.fromkeys(table["perturbation"]))
    what = "perturbation with responders"
    labels = known_names(() if perturbation is None else perturbation, known, "perturbation", what)
    if labels:
        table = pd.concat([table[table["perturbation"] == label] for label in labels])
    fields = Fields.from_anndata(adata)
    label_N = canonical_array(label_column(adata, fields), fields.perturbation_sep, fields.control)
    height = max(3.2, 0.17 * len(table) + 1.0) if canvas.ax is None else 3.2
    colors = canvas.colors(("unchanged", "responded"), (CONTROL, PREDICTED))
    axes = canvas.panels(len(labels) + 1, size=(3.6, height))
    for one, label in zip(axes, labels, strict=False):
        _draw_cells(one, adata.obs[label_N == label].dropna(subset=list(columns)), label, colors)
    _draw_shares(axes[-1], table, colors)
    return axes if len(axes) > 1 else axes[0]


def _draw_cells(ax: Axes, obs: pd.DataFrame, label: str, colors: Sequence[Any]) -> None:
    score = obs["response_score"].to_numpy(dtype=np.float64)
    p = obs["p_responded"].to_numpy(dtype=np.float64)
    ax.hist(
        [score, score],
        bins=np.linspace(score.min(), score.max() + 1e-9, N_BINS + 1).tolist(),
        weights=[1 - p, p],
        stacked=True,
        color=list(colors),
        label=["did not respond", "responded"],
    )
    ax.axvline(0, color=MEASURED, lw=0.9, ls="--", label="mean of controls")
    ax.set(
        title=f"{label}\n{p.mean():.0%} of {len(p):,} cells responded",
        xlabel="score along the effect (sd of controls)",
        ylabel="cells",
    )
    # Room for the legend above the bars.
    ax.set_ylim(0, 1.3 * ax.get_ylim()[1])
    ax.legend(loc="upper right", handlelength=1.0)


def _draw_shares(ax: Axes, table: pd.DataFrame, colors: Sequence[Any]) -> None:
    names = table["guide" if "guide" in table else "perturbation"].astype(str)
    if "dose" in table:
        names = names + ", dose " + table["dose"].astype(str)
    if names.duplicated().any():
        # Guides are often numbered within each perturbation.
        names = table["perturbation"].astype(str) + " " + names
    if "guide" not in table:
        order = np.argsort(table["share"].to_numpy(), kind="stable")[::-1]
        table, names = table.iloc[order], names.iloc[order]
    at = np.arange(len(table))[::-1]
    share = table["share"].to_numpy()
    low, high = table["low"].to_numpy(), table["high"].to_numpy()
    ax.hlines(at, low, high, color=colors[0], lw=1.6)
    ax.scatter(share, at, s=22, color=colors[1], zorder=3)
    ax.set_yticks(at, names)
    ax.set(
        xlim=(-0.02, 1.02),
        ylim=(-0.7, len(table) - 0.3),
        xlabel="share of cells that responded (90% interval)",
        title="guides" if "guide" in table else "perturbations",
    )
