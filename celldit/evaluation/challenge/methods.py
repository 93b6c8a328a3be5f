"""Several methods on one scale, with intervals over perturbations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import anndata as ad
import numpy as np
import pandas as pd

from celldit.errors import InputError, UnknownNameError
from celldit.evaluation.challenge.anchors import mean_response, replicate
from celldit.evaluation.challenge.groups import CountGroups
from celldit.evaluation.challenge.measures import (
    MEASURES,
    Reference,
    Side,
    measure_panel,
    weighted,
)
from celldit.evaluation.challenge.panel import Panel, read_panels
from celldit.evaluation.challenge.scores import COMPOSITE, place

REPLICATE = "ceiling"
N_RESAMPLES = 500

Values = Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Standing:
    """Methods on the panel of one context.

    Parameters
    ----------
    labels
        P perturbations that all methods predicted.
    methods
        What :func:`measure_panel` returns of each method.
    base
        The same of what scores 0.
    halvings
        The same of each halving of the measured cells; their mean scores 1.
    """

    labels: tuple[str, ...]
    methods: Mapping[str, Values]
    base: Values
    halvings: Sequence[Values]

    def scores(self, weight_RP: np.ndarray | None = None) -> np.ndarray:
        """Scores with weights of the perturbations, shape (R, methods, measures)."""
        weight = np.ones((1, len(self.labels))) if weight_RP is None else weight_RP
        low = weighted(self.base, weight)
        halves = [weighted(values, weight) for values in self.halvings]
        high = {name: np.mean([half[name] for half in halves], axis=0) for name in MEASURES}
        found = []
        for values in self.methods.values():
            own = weighted(values, weight)
            found.append([place(own[m], low[m], high[m], m) for m in MEASURES])
        return np.moveaxis(np.array(found), 2, 0)


def measure_methods(
    predictions: Mapping[str, ad.AnnData],
    truth: ad.AnnData,
    control: ad.AnnData | None = None,
    *,
    baseline: str | None = None,
    seed: int = 0,
) -> dict[str, Standing]:
    """Measure methods by context, on the perturbations that all of them predicted.

    `baseline` scores 0; None for the mean response of the measured panel, which needs two
    perturbations in a context.

    Raises
    ------
    InputError
        As :func:`read_panels`, or if no context has perturbations that all methods predicted.
    """
    least = 2 if baseline is None else 1
    read = {
        name: read_panels(adata, truth, control, least=least)[0]
        for name, adata in predictions.items()
    }
    shared = [set(panels) for panels in read.values()]
    standings = {}
    for context in sorted(set.intersection(*shared)):
        panels = {name: found[context] for name, found in read.items()}
        labels = tuple(sorted(set.intersection(*(set(p.real.labels) for p in panels.values()))))
        if len(labels) >= least:
            standings[context] = _stand(panels, labels, baseline, seed)
    if not standings:
        raise InputError(
            "No context has perturbations that every method predicted with ten cells, so there is "
            "nothing to compare them on."
        )
    return standings


def compare_panels(
    predictions: Mapping[str, ad.AnnData],
    truth: ad.AnnData,
    control: ad.AnnData | None = None,
    *,
    baseline: str | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Score methods by the measures of the challenge; see :func:`celldit.tl.compare`.

    Returns
    -------
    pandas.DataFrame
        A row for each method and one for the replicate, which is 1 by definition; the score of each
        measure, ``composite``, and its 90% interval over perturbations, ``low`` and ``high``. The
        composite is the mean over the measures in which the replicate is better than the baseline
        (``attrs["measures"]``); the others cannot tell anything on these data. ``attrs["drawn"]``
        has the composite of every method on resampled perturbations.

    Raises
    ------
    UnknownNameError
        If the baseline is not among the predictions.
    InputError
        As :func:`measure_methods`, or if no measure can tell a replicate from the baseline.
    """
    if baseline is not None and baseline not in predictions:
        raise UnknownNameError.among("baseline among the predictions", baseline, predictions)
    standings = measure_methods(predictions, truth, control, baseline=baseline, seed=seed)
    methods = list(predictions)
    means = pd.DataFrame(
        _mean([standing.scores() for standing in standings.values()])[0],
        index=methods,
        columns=list(MEASURES),
    )
    usable = [name for name in MEASURES if means[name].notna().any()]
    if not usable:
        raise InputError(
            "In no measure is a replicate of the measurement better than the baseline, so there is "
            "nothing to be gained on these data that could be measured; use more cells, or "
            "perturbations with larger effects."
        )
    table = means.assign(composite=means[usable].mean(axis=1, skipna=False))
    drawn = _resample(standings, usable, seed)
    ends = drawn.quantile([0.05, 0.95])
    table["low"], table["high"] = ends.iloc[0], ends.iloc[1]
    table.loc[REPLICATE] = [1.0 if c in (*usable, COMPOSITE) else np.nan for c in table.columns]
    table.index.name = "method"
    table.attrs.update(
        measures=usable,
        n_conditions={COMPOSITE: sum(len(s.labels) for s in standings.values())},
        drawn={str(name): list(column) for name, column in drawn.items()},
        not_scored={},
    )
    return table


def _stand(
    panels: Mapping[str, Panel], labels: tuple[str, ...], baseline: str | None, seed: int
) -> Standing:
    one = next(iter(panels.values()))
    targets = {label: one.targets[label] for label in labels}
    panel = replace(one, real=one.real.only(labels), targets=targets)
    control = Reference.of(panel.controls)
    real = Side.of(panel.real, control)

    def measured(groups: CountGroups) -> Values:
        return measure_panel(Side.of(groups, control), real, targets)

    methods = {name: measured(p.predicted.only(labels)) for name, p in panels.items()}
    base = measured(mean_response(panel, seed)) if baseline is None else methods[baseline]
    return Standing(labels, methods, base, replicate(panel, real, seed))


def _resample(standings: Mapping[str, Standing], usable: Sequence[str], seed: int) -> pd.DataFrame:
    """Composite of each method on perturbations drawn again, a perturbation in all its contexts."""
    labels = sorted({label for standing in standings.values() for label in standing.labels})
    methods = list(next(iter(standings.values())).methods)
    n = len(labels)
    if n < 2:
        return pd.DataFrame(np.nan, index=range(1), columns=methods)
    rng = np.random.default_rng(seed)
    weight_RP = rng.multinomial(n, np.full(n, 1.0 / n), size=N_RESAMPLES).astype(np.float64)
    position = {label: i for i, label in enumerate(labels)}
    tables = [
        standing.scores(weight_RP[:, [position[label] for label in standing.labels]])
        for standing in standings.values()
    ]
    kept = [list(MEASURES).index(name) for name in usable]
    return pd.DataFrame(_nanmean(_mean(tables)[:, :, kept], axis=2), columns=methods)


def _mean(tables: Sequence[np.ndarray]) -> np.ndarray:
    """Mean over contexts; NaN where no context has a score."""
    return _nanmean(np.stack(tables), axis=0)


def _nanmean(values: np.ndarray, axis: int) -> np.ndarray:
    known = np.isfinite(values)
    n = known.sum(axis=axis)
    total = np.where(known, values, 0.0).sum(axis=axis)
    return np.divide(total, n, out=np.full(n.shape, np.nan), where=n > 0)
