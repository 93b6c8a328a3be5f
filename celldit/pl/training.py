"""The course of training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Unpack

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from celldit.errors import InputError
from celldit.pl.figure import Canvas, FigureOptions, figure
from celldit.pl.style import CYCLE, INK

if TYPE_CHECKING:
    from celldit.model import CellDiT


LABELS = {
    "latent": ("Latent space", "held-out nats per gene"),  # of models of earlier versions
    "flow": ("Flow, on held-out conditions", "error in full / effect model's"),
    "noise": ("Flow from noise, on held-out cells", "velocity error"),
}
MARKERS = "osD^vP"


@figure
def training_curves(
    canvas: Canvas,
    model: CellDiT,
    **options: Unpack[FigureOptions],
) -> list[Axes]:
    """Draw what the stages of training were stopped by, one panel for each stage that ran.

    The first is, for each kind of held-out condition, the error of the network in full over that of
    the effect model it starts from: below the line at 1 the network adds something, and the title
    says how much of it predictions use. The second is the error of the velocity that generation
    uses, from noise to held-out cells, beside its error before training.

    Parameters
    ----------
    model
        A trained model.
    **options
        See :mod:`celldit.pl`; one axes for each stage that ran.

    Returns
    -------
    list of matplotlib.axes.Axes

    Raises
    ------
    NotTrainedError
        If the model was not trained.
    InputError
        If it was trained for no epoch at all, so that there is no course.

    Examples
    --------
    >>> model.train(max_epochs=4)                         # doctest: +SKIP
    >>> cd.pl.training_curves(model)                      # doctest: +SKIP
    """
    if not isinstance(getattr(model, "history", None), dict):
        raise InputError(f"model must be a CellDiT, not {type(model).__name__}.")
    history = {stage: rows for stage, rows in model.history.items() if rows}
    if not history:
        raise InputError(
            "This model was trained for 0 epochs and has no course to draw; call model.train() "
            "without max_epochs=0."
        )
    axes = canvas.panels(len(history), size=(3.6, 2.9))
    for one, (stage, rows) in zip(axes, history.items(), strict=True):
        labels = list(_courses(rows))
        everywhere = [name for others in history.values() for name in _courses(others)]
        _draw(one, stage, rows, canvas.colors(labels, CYCLE, everywhere))
        if said := _verdict(stage, rows, model):
            one.set_title(f"{LABELS[stage][0]}\n{said}")
    return axes


def _verdict(stage: str, rows: Sequence[dict[str, float]], model: CellDiT) -> str:
    """What came of a stage."""
    if stage == "flow":
        low, high = min(model.flow_weight.values()), max(model.flow_weight.values())
        if high == 0:
            return "no gain: the effect model predicts alone"
        return f"the network's weight is {f'{low:.2g} to ' if low < high else ''}{high:.2g}"
    if stage == "noise":
        gain = 1 - min(row["held_out_error"] / row["before"] for row in rows)
        return f"{gain:.1%} below its start" if gain >= 5e-4 else "no gain worth telling"
    return ""


def _courses(rows: Sequence[dict[str, float]]) -> dict[str, str]:
    """The courses of a stage: the name of each column, by what it is called."""
    columns = dict.fromkeys(column for row in rows for column in row)
    return {
        "trained" if column == "held_out_error" else column: column
        for column in columns
        if column not in ("epoch", "before")
    }


def _draw(ax: Axes, stage: str, rows: Sequence[dict[str, float]], colors: Sequence[Any]) -> None:
    title, measure = LABELS.get(stage, (stage, ""))
    epochs = [row.get("epoch", float(i)) for i, row in enumerate(rows)]
    # The first stage counts epochs from 0, the others from 1; people count from 1.
    shift = 1 if min(epochs) == 0 else 0
    for i, (label, column) in enumerate(_courses(rows).items()):
        ax.plot(
            [epoch + shift for epoch in epochs],
            [row.get(column, float("nan")) for row in rows],
            color=colors[i],
            marker=MARKERS[i % len(MARKERS)],
            # Courses that coincide stay visible: each later one is smaller.
            markersize=max(6 - 1.5 * i, 2.5),
            lw=1.2,
            label=label,
        )
    start, called = {"flow": (1.0, "effect model")}.get(
        stage, (rows[0].get("before", 0.0), "before training")
    )
    if start:
        ax.axhline(start, color=INK, lw=0.8, ls="--", zorder=0, label=called)
        ax.legend(loc="lower right")
    ax.set(title=title, xlabel="epoch", ylabel=measure)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    # A course that hardly moves keeps its numbers whole, without an offset above the axis.
    ax.ticklabel_format(axis="y", useOffset=False)
    # From 0, so that a gain looks as large as it is, with room below for the legend.
    ax.set_ylim(0, 1.1 * max(ax.dataLim.y1, start))
