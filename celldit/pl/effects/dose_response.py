"""Changes along the dose, or time: predicted ones, or measured ones with their curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import anndata as ad
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter
from scipy.interpolate import PchipInterpolator

from celldit.errors import InputError
from celldit.pl.effects.effect_heatmap import GENES, check_effects, effect_names
from celldit.pl.figure import Canvas, FigureOptions, figure
from celldit.pl.gene_names import GeneNames, GeneSymbols
from celldit.pl.style import CYCLE, INK

POINTS = {"perturbation", "context", "gene", "dose", "log_fold_change", "sd", "fitted", "low"}
CURVES = {"perturbation", "context", "gene", "ec50", "ec50_low", "ec50_high", "lfsr"}


@figure
def dose_response(
    canvas: Canvas,
    effects: pd.DataFrame,
    genes: Sequence[str] | str | None = None,
    *,
    curves: pd.DataFrame | None = None,
    n_genes: int = 5,
    gene_symbols: GeneSymbols | None = None,
    **options: Unpack[FigureOptions],
) -> list[Axes] | Axes:
    """Draw the log2 fold change of some genes against the dose.

    Predicted effects come with bands of one standard deviation. With `curves`, measured changes are
    drawn as points with one standard error, the fitted curve with its 90% band, and the EC50 with
    its 90% interval in the legend.

    Parameters
    ----------
    effects
        ``cd.tl.effects(adata, model, "NAME", dose=[0.1, 1, 10])``, of which contexts are averaged;
        or ``adata.uns["dose_response_points"]`` after :func:`celldit.tl.dose_response`.
    genes
        Genes; None for those of the largest changes, with `curves` for the surest.
    curves
        What :func:`celldit.tl.dose_response` returned, to draw measured points.
    n_genes
        How many of these, at most 8.
    gene_symbols
        As for :func:`celldit.pl.effect_heatmap`.
    **options
        See :mod:`celldit.pl`; one axes for each perturbation, with `curves` for each context, too.

    Raises
    ------
    InputError
        If `effects` holds fewer than two doses, or `curves` does not belong to it.
    UnknownNameError
        If a gene is not in it.

    Examples
    --------
    >>> drug = cd.datasets.sciplex2()
    >>> cd.CellDiT.setup_anndata(
    ...     drug, perturbation_key="perturbation", dose_key="dose_um", size_factor_key="total_umis"
    ... )
    >>> curves = cd.tl.dose_response(drug)
    >>> axes = cd.pl.dose_response(drug.uns["dose_response_points"], curves=curves, n_genes=3)
    """
    alone = isinstance(effects, ad.AnnData) or "ec50" in getattr(effects, "columns", ())
    if curves is None and not alone:
        return draw_courses(effects, "dose", genes, n_genes, gene_symbols, canvas)
    _check_measured(effects, "effects", POINTS)
    _check_measured(curves, "curves", CURVES)
    assert curves is not None
    written = effect_names(effects, gene_symbols)
    requested = chosen_genes(genes, n_genes, written, GENES)
    by = ["perturbation", "context", *(["time"] if "time" in effects else [])]
    of_curves = dict(list(curves.groupby(by, sort=False)))
    shown = [(key, own) for key, own in effects.groupby(by, sort=False) if key in of_curves]
    if not shown:
        raise InputError(
            "curves and effects have no perturbation in common; pass those of one call."
        )
    axes = canvas.panels(len(shown), size=(4.6, 3.2))
    for one, (key, own) in zip(axes, shown, strict=True):
        _draw(one, own, of_curves[key], requested or n_genes, written, canvas)
        one.set_title(" in ".join(str(part) for part in key if str(part)))
    return axes if len(axes) > 1 else axes[0]


def _check_measured(given: object, name: str, needed: set[str]) -> None:
    if not isinstance(given, pd.DataFrame) or not needed <= set(given.columns) or given.empty:
        raise InputError(
            f"{name} does not hold measured curves; pass curves=cd.tl.dose_response(adata) and "
            "adata.uns['dose_response_points'] before it."
        )


def _draw(
    ax: Axes,
    points: pd.DataFrame,
    curves: pd.DataFrame,
    genes: list[str] | int,
    written: GeneNames,
    canvas: Canvas,
) -> None:
    curves = curves.set_index("gene")
    changes = ["log_fold_change", "sd", "fitted", "low", "high"]
    points = points.assign(**{name: points[name] / np.log(2) for name in changes})
    if isinstance(genes, int):
        genes = list(curves.sort_values("lfsr", kind="stable").index[:genes])
    labels = [written.shown(gene) for gene in genes]
    for gene, label, color in zip(genes, labels, canvas.colors(labels, CYCLE), strict=True):
        own = points[points["gene"] == gene].sort_values("dose")
        dose = own["dose"].to_numpy(dtype=np.float64)
        fine = np.geomspace(dose[0], dose[-1], 100)

        def smooth(column: str, own: pd.DataFrame = own, dose: np.ndarray = dose) -> Any:
            return PchipInterpolator(np.log(dose), own[column].to_numpy())

        low, middle, high = (smooth(name)(np.log(fine)) for name in ("low", "fitted", "high"))
        row = curves.loc[gene]
        said = f"{label}\nEC50 {row.ec50:.2g} ({row.ec50_low:.2g} to {row.ec50_high:.2g})"
        ax.fill_between(fine, low, high, color=color, alpha=0.15, lw=0)
        ax.plot(fine, middle, color=color, lw=1.4, label=said)
        ax.errorbar(
            dose, own["log_fold_change"], own["sd"], fmt="o", color=color, markersize=4, lw=0.8
        )
        if dose[0] <= row.ec50 <= dose[-1]:
            at = float(smooth("fitted")(np.log(row.ec50)))
            ax.plot(row.ec50, at, marker="D", color=color, markersize=6, markeredgecolor="white")
    _scale_by_logarithm(ax)
    _finish(ax, "dose")


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
    axes = canvas.panels(len(names), size=(4.2, 3.0))
    for one, name in zip(axes, names, strict=True):
        own = effects[effects["perturbation"] == name]
        _draw_course(one, own, along, requested or n_genes, written, canvas)
        one.set_title(str(name))
    return axes if len(axes) > 1 else axes[0]


def chosen_genes(
    genes: Sequence[str] | str | None, n_genes: int, written: GeneNames, where: str
) -> list[str] | None:
    """The genes asked for, as a list; None stays None, for those of the largest changes.

    InputError if there are more than colours can tell apart; UnknownNameError if a gene is not
    among the known ones.
    """
    if not 1 <= n_genes <= len(CYCLE):
        raise InputError(f"n_genes={n_genes!r} must be between 1 and {len(CYCLE)}.")
    if genes is None:
        return None
    requested = written.genes(genes, where)
    if len(requested) > len(CYCLE):
        raise InputError(f"{len(requested)} genes cannot be told apart; draw at most {len(CYCLE)}.")
    return requested


def _draw_course(
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
    if along == "dose" and (x > 0).all() and x.max() > 20 * x.min():
        _scale_by_logarithm(ax)
    _finish(ax, along)


def _scale_by_logarithm(ax: Axes) -> None:
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())


def _finish(ax: Axes, along: str) -> None:
    ax.axhline(0, color=INK, lw=0.8, ls="--", zorder=0)
    ax.set(xlabel=along, ylabel="log2 fold change")
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), handlelength=1.4)
