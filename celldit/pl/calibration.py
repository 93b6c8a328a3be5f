"""Whether predicted standard deviations are as large as the errors."""

from __future__ import annotations

from typing import Unpack

import anndata as ad
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy import stats

from celldit.calibration.rates.fold_change import PSEUDO_RATE
from celldit.calibration.rates.means import mean_rates, measured_fold_change
from celldit.data.cells import Cells
from celldit.data.fields import Fields
from celldit.errors import InputError
from celldit.pl.effects.effect_heatmap import check_effects
from celldit.pl.figure import Canvas, FigureOptions, figure
from celldit.pl.style import CYCLE, INK

LEVELS = np.linspace(0.05, 0.95, 19)
MIN_CELLS = 10


@figure
def calibration(
    canvas: Canvas,
    adata: ad.AnnData,
    effects: pd.DataFrame,
    *,
    min_rate: float = 0.5,
    **options: Unpack[FigureOptions],
) -> Axes:
    """Draw how often measured log fold changes lie inside the predicted intervals.

    An interval is central under a normal distribution with the predicted mean, and as variance the
    sum of the predicted one and the sampling variance of the measurement (delta method on the mean
    counts). On the diagonal the uncertainty is as large as the errors; below it the prediction is
    too sure of itself. One curve for each kind of extrapolation.

    Parameters
    ----------
    adata
        Measured perturbed and control cells, set up with :meth:`celldit.CellDiT.setup_anndata`.
    effects
        What :func:`celldit.tl.effects` or :meth:`celldit.CellDiT.predict_effects` returns.
    min_rate
        Genes with fewer mean counts per 10,000, in control or perturbed cells, are left out: of
        them too little is measured to say anything.
    **options
        See :mod:`celldit.pl`.

    Raises
    ------
    InputError
        If `effects` lacks a column, or nothing in it was measured.

    Examples
    --------
    >>> effects = cd.tl.effects(adata, model, ["STAT1", "JAK2"])
    >>> ax = cd.pl.calibration(adata, effects)
    """
    check_effects(effects)
    fields = Fields.from_anndata(adata)
    measured = _measured(Cells.from_anndata(adata, fields), min_rate)
    keys = ["perturbation", "context", "gene"]
    merged = effects.merge(measured, on=keys, how="inner")
    if merged.empty:
        raise InputError(
            "No effect was measured: adata needs the perturbations and contexts of effects, with "
            f"at least {MIN_CELLS} perturbed and control cells each, and genes above min_rate."
        )
    error = merged["measured"] - merged["log_fold_change"]
    z = (error / np.sqrt(merged["sd"] ** 2 + merged["noise"] ** 2)).abs().to_numpy()
    kinds = merged.get("extrapolation", pd.Series("", index=merged.index)).astype(str).to_numpy()
    bounds = stats.norm.ppf(0.5 + LEVELS / 2)
    axes = canvas.panels(1, size=(3.6, 3.4))
    axes[0].plot([0, 1], [0, 1], color=INK, lw=0.8, ls="--", zorder=0)
    drawn = sorted(set(kinds))
    colors = canvas.colors([kind or "all" for kind in drawn], CYCLE)
    for kind, color in zip(drawn, colors, strict=True):
        own = z[kinds == kind]
        covered = [(own <= bound).mean() for bound in bounds]
        label = f"{kind or 'all'} ({len(own):,} genes x conditions)"
        axes[0].plot(
            LEVELS,
            covered,
            color=color,
            marker="o",
            markersize=3.5,
            lw=1.2,
            label=label,
            # Intervals that hold everything lie on the frame, which would cut them in half.
            clip_on=False,
            zorder=3,
        )
    axes[0].set(
        xlim=(0, 1),
        ylim=(0, 1),
        xlabel="predicted interval",
        ylabel="share of measurements inside",
        title="Calibration",
    )
    axes[0].set_aspect("equal")
    # Below, since a curve may run anywhere in the square.
    axes[0].legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), handlelength=1.4)
    return axes[0]


def _measured(cells: Cells, min_rate: float) -> pd.DataFrame:
    """Measured log fold change of each gene and condition, with its sampling error."""
    frame = pd.DataFrame({"p": cells.perturbations, "c": cells.contexts})
    groups = frame.groupby(["p", "c"], sort=True)
    names = [(str(p), str(c)) for p, c in groups.groups]
    size = dict(zip(names, groups.size().to_numpy(), strict=True))
    group = {name: i for i, name in enumerate(names)}
    rates = mean_rates(cells, groups.ngroup().to_numpy(), range(len(names)))
    tables = []
    for (perturbation, context), n_cells in size.items():
        base = cells.control, context
        if perturbation == cells.control or min(n_cells, size.get(base, 0)) < MIN_CELLS:
            continue
        treated, control = rates[group[perturbation, context]], rates[group[base]]
        seen = np.minimum(treated.mean_G, control.mean_G) > min_rate + PSEUDO_RATE
        fold_G, variance_G = measured_fold_change(control, treated)
        tables.append(
            pd.DataFrame(
                {
                    "perturbation": perturbation,
                    "context": context,
                    "gene": np.array(cells.genes, dtype=object)[seen],
                    "measured": fold_G[seen],
                    "noise": np.sqrt(variance_G[seen]),
                }
            )
        )
    columns = ["perturbation", "context", "gene", "measured", "noise"]
    return pd.concat(tables) if tables else pd.DataFrame(columns=columns)
