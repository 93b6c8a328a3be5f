"""How far predictions go from a baseline (0) to a replicate (1), by the measures of the challenge.

The baseline is the mean response of the panel, or a method that has seen the training data only.
Of several methods there are intervals over perturbations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import anndata as ad
import numpy as np
import pandas as pd

from celldit.arguments import check_known
from celldit.errors import InputError
from celldit.evaluation.catalogue import CEILING
from celldit.evaluation.challenge.measures import (
    MEASURES,
    Reference,
    Side,
    aggregate,
    fold_change_error,
    measure_panel,
    own_targets,
    weighted,
)
from celldit.evaluation.challenge.package import check_installed, package_values
from celldit.evaluation.challenge.panel import CountGroups, MeasuredCells, Panel

Engine = Literal["cell-eval2", "celldit"]
Values = Mapping[str, np.ndarray]

COMPOSITE = "composite"
#: Random halvings of the measured cells.
N_SPLITS = 5
N_RESAMPLES = 500
#: Measures that are better lower.
ERRORS = ("squared_error", "fold_change_error")
#: Ends beyond which a score is not counted, as the challenge clips them.
CLIPPED = {"squared_error": (0.0, 1.0), "fold_change_error": (-6.0, np.inf)}


def check_engine(engine: str) -> None:
    """Refuse, before any work, an engine that is not known or not installed."""
    check_known([engine], get_args(Engine), "engine")
    if engine == "cell-eval2":
        check_installed()


def score_panels(
    panels: Mapping[str, Panel], *, engine: Engine = "cell-eval2", seed: int = 0
) -> pd.DataFrame:
    """Score the prediction of every context, as :func:`celldit.evaluation.evaluate` returns it.

    The composite of a context, the mean of its scores, is NaN where one of them is.
    """
    tables = []
    for context, panel in panels.items():
        table = package_values(panel, seed) if engine == "cell-eval2" else own_values(panel, seed)
        values = zip(MEASURES, table.to_numpy(), strict=True)
        scores = [float(place(value, base, top, m)) for m, (value, base, top) in values]
        table = table.assign(score=scores)
        # One missing score is not made up for by the others.
        table.loc[COMPOSITE] = [np.nan, np.nan, np.nan, float(np.mean(scores))]
        tables.append(table.rename_axis("measure").reset_index().assign(context=context))
    columns = ["context", "measure", "value", "mean_response", "replicate", "score"]
    return pd.concat(tables, ignore_index=True)[columns]


def own_values(panel: Panel, seed: int = 0) -> pd.DataFrame:
    """Measure a panel, its mean response and its replicate; see :func:`package_values`."""
    standing = _stand({"value": panel}, panel.real.labels, None, seed)
    halvings = [aggregate(values) for values in standing.halvings]
    return pd.DataFrame(
        {
            "value": aggregate(standing.methods["value"]),
            "mean_response": aggregate(standing.base),
            "replicate": {m: float(np.mean([half[m] for half in halvings])) for m in MEASURES},
        }
    ).rename_axis("measure")


def compare_panels(
    predictions: Mapping[str, ad.AnnData],
    truth: ad.AnnData,
    control: ad.AnnData | None = None,
    *,
    baseline: str | None = None,
    called: Mapping[str, str] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Score methods by the measures of the challenge; see :func:`celldit.tl.compare`.

    `called` is how messages call each prediction, where not by its method. There is a row for each
    method and one for the replicate, which is 1 by definition. The composite is the mean over the
    measures in which the replicate is better than the baseline (``attrs["measures"]``); the others
    cannot tell anything on these data. ``attrs["drawn"]`` has the composite of every method on
    resampled perturbations.

    InputError as :meth:`MeasuredCells.panels`, if no context has perturbations that all methods
    predicted, or if no measure can tell a replicate from the baseline.
    """
    # The mean response needs two perturbations in a context.
    least = 2 if baseline is None else 1
    names, measured = called or {}, MeasuredCells.read(truth, control)
    read = {
        method: measured.panels(adata, least=least, name=names.get(method, method))[0]
        for method, adata in predictions.items()
    }
    standings = {}
    for context in sorted(set.intersection(*map(set, read.values()))):
        panels = {method: found[context] for method, found in read.items()}
        labels = tuple(sorted(set.intersection(*(set(p.real.labels) for p in panels.values()))))
        if len(labels) >= least:
            standings[context] = _stand(panels, labels, baseline, seed)
    if not standings:
        raise InputError(
            "No context has perturbations that every method predicted with ten cells, so there is "
            "nothing to compare them on."
        )
    methods = list(predictions)
    means = pd.DataFrame(
        _known_mean([standing.scores() for standing in standings.values()], axis=0)[0],
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
    table.loc[CEILING] = [1.0 if c in (*usable, COMPOSITE) else np.nan for c in table.columns]
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
    of_methods = _known_mean(tables, axis=0)[:, :, kept]
    return pd.DataFrame(_known_mean(of_methods, axis=2), columns=methods)


def _known_mean(arrays: Sequence[np.ndarray] | np.ndarray, axis: int) -> np.ndarray:
    """Mean of what is known, such as over contexts; NaN where nothing is."""
    return np.asarray(np.ma.masked_invalid(arrays).mean(axis=axis).filled(np.nan))


@dataclass(frozen=True, eq=False)
class Standing:
    """Methods on the panel of one context, which are compared on P perturbations.

    `methods`, `base`, which scores 0, and `halvings` of the measured cells, whose mean scores 1,
    are what :func:`measure_panel` returns of each.
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


def mean_response(panel: Panel, seed: int = 0) -> CountGroups:
    """Predict the mean of all measured perturbations for each of them, in fractional counts.

    Control cells drawn with replacement, as many as were measured, each gene scaled by the ratio of
    its mean over perturbations to its mean in control cells. A perturbation does not count for the
    genes it acts on.
    """
    real, controls = panel.real, panel.controls
    means_PG = real.sums() / real.sizes[:, None]
    counted_PG = (~own_targets(real.labels, panel.targets, means_PG.shape[1])).astype(np.float64)
    # A gene that every perturbation acts on keeps its mean over all of them.
    counted_PG[:, counted_PG.sum(axis=0) == 0] = 1.0
    profile_G = (means_PG * counted_PG).sum(axis=0) / counted_PG.sum(axis=0)
    base_G = controls.sums()[0] / controls.sizes[0]
    ratio_G = np.divide(profile_G, base_G, out=np.zeros_like(base_G), where=base_G > 0)
    rng = np.random.default_rng(seed)
    drawn = np.concatenate([rng.integers(0, controls.sizes[0], size=n) for n in real.sizes])
    cells = controls.counts[drawn].copy()
    cells.data = (cells.data * ratio_G[cells.indices]).astype(np.float32)
    cells.eliminate_zeros()
    return CountGroups(cells, np.repeat(np.arange(len(real.labels)), real.sizes), real.labels)


def replicate(panel: Panel, full: Side, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Score one half of the measured cells as a prediction of the other, in five halvings.

    Each half has control cells of its own: with the same for both, the noise of the controls is
    taken for agreement. `full`, all measured cells, says which genes the error of fold changes is
    taken over. Of each halving what :func:`measure_panel` returns.
    """
    own_PG = own_targets(full.labels, panel.targets, len(panel.genes))
    found = []
    for state in np.random.SeedSequence(seed).generate_state(N_SPLITS):
        halves = _halves(panel, int(state))
        measured, predicted = (Side.of(cells, Reference.of(base)) for cells, base in halves)
        values = measure_panel(predicted, measured, panel.targets)
        # A half calls fewer genes, so of fewer perturbations: all cells say which genes count.
        changes = (predicted.tests.log2_fold_change, measured.tests.log2_fold_change)
        values["fold_change_error"] = fold_change_error(*changes, full.tests, own_PG)
        found.append(values)
    return found


def _halves(panel: Panel, seed: int) -> list[tuple[CountGroups, CountGroups]]:
    real, controls, control_label = panel.real, panel.controls, panel.control_label
    rng = np.random.default_rng(seed)
    first: dict[str, np.ndarray] = {}
    second: dict[str, np.ndarray] = {}
    groups = dict(zip(real.labels, real.rows(), strict=True))
    groups[control_label] = np.arange(controls.counts.shape[0])
    # Where the control cells stand in the alphabet decides which random numbers they get.
    for label in sorted(groups):
        shuffled = rng.permutation(groups[label])
        half = len(shuffled) // 2
        first[label], second[label] = shuffled[:half], shuffled[half : 2 * half]
    sides = []
    for half_rows in (first, second):
        perturbed = np.concatenate([half_rows[label] for label in real.labels])
        sides.append((real.take(perturbed), controls.take(half_rows[control_label])))
    return sides


def place(
    value_R: np.ndarray, base_R: np.ndarray, replicate_R: np.ndarray, measure: str
) -> np.ndarray:
    """Place R values between a baseline (0) and a replicate (1), clipped as the challenge clips.

    NaN when the replicate is no better than the baseline, or one of the two is missing: then there
    is nothing that could be gained. A value that is missing scores as the worst there is.
    """
    gap_R = replicate_R - base_R
    possible_R = (-gap_R if measure in ERRORS else gap_R) > 0
    low, high = CLIPPED.get(measure, (-np.inf, np.inf))
    # The worst of a bounded measure is 0; an unbounded one has a worst score.
    worst_R = np.full_like(gap_R, low) if np.isfinite(low) else -base_R / _safe(gap_R)
    score_R = np.clip((value_R - base_R) / _safe(gap_R), low, high)
    return np.where(possible_R, np.where(np.isfinite(value_R), score_R, worst_R), np.nan)


def _safe(gap_R: np.ndarray) -> np.ndarray:
    return np.where(gap_R == 0, np.nan, gap_R)
