"""Everything that the page shows, computed once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA

from celldit.calibration.rates.means import MeanRates, mean_rates, measured_fold_change
from celldit.conditions import Condition
from celldit.conditions.strata import StratumKey
from celldit.data.cells import Cells
from celldit.data.labels.labels import canonical, parts
from celldit.errors import InputError
from celldit.inference import counterfactual, request
from celldit.inference.attribution import attribute
from celldit.inference.effects.changes import effects_of, new_controls
from celldit.inference.effects.summary import summary
from celldit.inference.effects.table import CHANGED
from celldit.inference.maps.transport import Sampler
from celldit.inference.solver import SamplingOptions, SolverConfig
from celldit.io.shards import Output
from celldit.pl.gene_sets.attention import short_name
from celldit.random import short_seed
from celldit.report.explore.page import packed, packed_rates, packed_shares
from celldit.training.trained import Trained

#: Fewer cells are mostly noise.
MIN_CELLS = 20
#: Measured cells in the plane, of all conditions together.
MOST_BACKGROUND = 2000
N_PROGRAMS = 12


Keys = tuple[str, str]
"""Name of a perturbation or target, and context."""


def content(
    trained: Trained,
    cells: Cells,
    labels: Sequence[str],
    contexts: Sequence[StratumKey],
    targets: Mapping[str, np.ndarray],
    *,
    dose: object,
    max_cells: int,
    seed: int,
) -> dict[str, Any]:
    """What the page shows, as JSON takes it.

    Of measured cells with the model's genes, perturbations by their canonical labels, contexts and
    times, each with control cells, and masks of cells to be reached, by name. At most `max_cells`
    control cells of a context, chosen by the seed, are shown before and after.
    """
    fields = trained.fields
    sep, control = fields.perturbation_sep, fields.control
    controls = new_controls(trained, cells)
    conditions = [
        Condition(names, request.resolve_dose(dose, len(names), fields, label), *where)
        for label in labels
        for names in [parts(label, sep, control)]
        for where in contexts
    ]
    effects = list(effects_of(trained, conditions, controls))
    measured, n_cells = _measured(cells, targets, sep)
    shown = [context for context, _ in contexts]
    nothing = np.full(len(trained.genes), np.nan)
    cards = [(label, where) for label in labels for where in shown]
    start = _start(cells, shown, max_cells, seed)
    base = {effect.condition.context: effect.base_G for effect in effects}
    return {
        "summary": summary(trained).splitlines(),
        "genes": list(trained.genes),
        "perturbations": list(labels),
        "contexts": shown,
        "changed": CHANGED,
        "kinds": [str(effect.kind) for effect in effects],
        "cells": [n_cells.get(key, 0) for key in cards],
        "effect": packed(_rows(effects, lambda e: e.spread.mean_G / np.log(2))),
        "sd": packed_rates(_rows(effects, lambda e: e.spread.sd_G / np.log(2)), 100.0),
        "lfsr": packed_rates(_rows(effects, lambda e: e.spread.false_sign_G)),
        "p_changed": packed_shares(_rows(effects, lambda e: e.spread.exceeds(CHANGED * np.log(2)))),
        "measured": packed(np.stack([measured.get(key, nothing) for key in cards]) / np.log(2)),
        "base": [[float(f"{x:.3g}") for x in base[where]] for where in shown],
        "targets": _targets(measured, targets, shown),
        "plane": _plane(trained, cells, start, labels, shown, dose, seed),
        "programs": _programs(trained, start, labels, dose),
    }


def _rows(effects: Sequence[Any], of: Any) -> np.ndarray:
    return np.stack([of(effect) for effect in effects])


def _measured(
    cells: Cells, targets: Mapping[str, np.ndarray], sep: str
) -> tuple[dict[Keys, np.ndarray], dict[Keys, int]]:
    """Log fold changes against the controls of the same context, and numbers of cells."""
    contexts = cells.contexts.astype(str)
    label_of = {p: canonical(str(p), sep, cells.control) for p in set(cells.perturbations)}
    named = [np.array([label_of[p] for p in cells.perturbations], dtype=object)]
    # A cell may be in several targets, so each of these takes a pass over the cells of its own.
    named += [np.where(mask, f"target:{name}", "") for name, mask in targets.items()]
    changes: dict[Keys, np.ndarray] = {}
    n_cells: dict[Keys, int] = {}
    before: dict[str, MeanRates] = {}
    for names in named:
        groups = pd.DataFrame({"name": names, "where": contexts}).groupby(["name", "where"])
        sizes = {(str(name), str(where)): int(n) for (name, where), n in groups.size().items()}
        rates = mean_rates(cells, groups.ngroup().to_numpy(), range(len(sizes)))
        after = dict(zip(sizes, rates.values(), strict=True))
        if not before:
            before = {
                where: rate
                for (name, where), rate in after.items()
                if name == cells.control and sizes[name, where] >= MIN_CELLS
            }
        for key, n in sizes.items():
            name, where = key
            if name and where in before:
                n_cells[key] = n
                if n >= MIN_CELLS and name != cells.control:
                    changes[key] = measured_fold_change(before[where], after[key])[0]
    return changes, n_cells


def _targets(
    measured: Mapping[Keys, np.ndarray], targets: Iterable[str], shown: Sequence[str]
) -> list[dict[str, Any]]:
    """Changes that lead from the controls of a context to the target cells of it."""
    found = []
    for name in targets:
        places = [where for where in shown if (f"target:{name}", where) in measured]
        if not places:
            raise InputError(
                f"The target {name!r} has fewer than {MIN_CELLS} cells in every context shown; "
                "choose a wider query, or leave it out of targets=."
            )
        values = np.stack([measured[f"target:{name}", where] for where in places]) / np.log(2)
        found.append({"name": name, "contexts": places, "effect": packed(values)})
    return found


def _start(cells: Cells, shown: Sequence[str], max_cells: int, seed: int) -> Cells:
    """Some control cells of each context."""
    rng, kept = np.random.default_rng(seed), []
    contexts = cells.contexts.astype(str)
    for where in shown:
        rows = np.flatnonzero(cells.is_control & (contexts == where))
        kept.append(np.sort(rng.permutation(rows)[:max_cells]))
    return cells.take(np.concatenate(kept))


def _plane(
    trained: Trained, cells: Cells, start: Cells, labels: Sequence[str], shown: Sequence[str],
    dose: object, seed: int,
) -> dict[str, Any]:  # fmt: skip
    """Measured cells, and control cells before and after, in two principal components."""
    encode = trained.autoencoder
    contexts = cells.contexts.astype(str)
    rng = np.random.default_rng(seed)
    rows = np.flatnonzero(np.isin(contexts, shown))
    some = cells.take(np.sort(rng.permutation(rows)[:MOST_BACKGROUND]))
    background_NF = encode.at_own_size(encode.encode(some))
    plane = PCA(2, random_state=short_seed(seed)).fit(background_NF)
    before_NF = encode.at_own_size(encode.encode(start))
    requested = request.Counterfactuals(labels, dose)
    options = SamplingOptions(seed=seed)
    predicted = counterfactual.predict(trained, start, requested, Sampler(), options, Output())
    after_NF = plane.transform(np.asarray(predicted.obsm["X_celldit"]))
    sep = trained.fields.perturbation_sep
    names = [canonical(str(p), sep, cells.control) for p in some.perturbations]
    shares = plane.explained_variance_ratio_
    return {
        "explained": [round(float(share), 3) for share in shares],
        "background": packed(plane.transform(background_NF)),
        "background_label": names,
        "background_context": some.contexts.astype(str).tolist(),
        "before": packed(plane.transform(before_NF)),
        "context": start.contexts.astype(str).tolist(),
        "after": packed(np.stack(np.split(after_NF, len(labels)))),
    }


def _programs(
    trained: Trained, start: Cells, labels: Sequence[str], dose: object
) -> list[dict[str, Any]]:
    """The gene sets that carry the shift of each perturbation and context; none without tokens."""
    try:
        trained.flow.views  # noqa: B018 - networks of other kinds have none
    except InputError:
        return []
    z_NKD = trained.autoencoder.encode(start)
    means = counterfactual.control_means(start, z_NKD)
    found = []
    for label in labels:
        conditions = request.counterfactual_conditions(start, label, trained.fields, dose, None)
        parts_of = attribute(trained, z_NKD, conditions, SolverConfig(), None, means)
        for q, condition in enumerate(parts_of.conditions):
            shift_F = parts_of.shift_QF[q]
            square = float(shift_F @ shift_F)
            if square == 0:
                continue
            effect_T = parts_of.effect_QTF[q] @ shift_F / square
            network_T = parts_of.network_QTF[q] @ shift_F / square
            share_T = effect_T + network_T
            top = np.argsort(-np.abs(share_T), kind="stable")[:N_PROGRAMS]
            found.append(
                {
                    "perturbation": label,
                    "context": condition.context,
                    "names": [short_name(parts_of.names[t]) for t in top],
                    "effect_model": [round(float(effect_T[t]), 4) for t in top],
                    "network": [round(float(network_T[t]), 4) for t in top],
                }
            )
    return found
