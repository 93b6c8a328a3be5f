"""Predictions of the simple predictors as AnnData like the model's, of one or of all at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from celldit.arguments import check_seed
from celldit.data.cells import Cells
from celldit.data.fields import Fields
from celldit.data.labels.labels import canonical
from celldit.errors import CellditError, InputError, UnknownNameError
from celldit.evaluation.baselines.predictors import (
    Additive,
    Baseline,
    ControlCovariance,
    LatentArithmetic,
    MajorityVote,
    MeanShift,
    NearestPerturbation,
    NoChange,
)

#: The simple predictors that need nothing but cells, by the names used in tables.
SIMPLE: Mapping[str, Callable[..., Baseline]] = {
    "no change": NoChange,
    "mean shift": MeanShift,
    "majority vote": MajorityVote,
    "additive ridge": Additive,
    "nearest": NearestPerturbation,
    "latent arithmetic": LatentArithmetic,
    "covariance of controls": ControlCovariance,
}
# Largest factor by which a gene is scaled.
LARGEST = 100.0
ROUNDS = 30


def predict_all(
    train: ad.AnnData,
    control: ad.AnnData,
    conditions: set[tuple[str, str]],
    *,
    fields: Fields | None = None,
    truth: Collection[str] | None = None,
    seed: int = 0,
) -> tuple[dict[str, ad.AnnData], dict[str, str]]:
    """Fit every simple predictor on `train` and predict conditions from the controls in `control`.

    Cells of the conditions asked for, (perturbation, context), are not learned from; where no
    others are left, those are that `truth`, names of the cells that predictions are measured
    against, does not hold. `fields` say what the columns mean, as the setup of `train` does. Beside
    the predictions, by name, are the reasons of those that know nothing of what is asked.
    InputError if nothing is left to learn from, or to predict from.
    """
    fields = Fields.from_anndata(train) if fields is None else fields
    plain = replace(fields, dose_key=None, time_key=None)
    cells = Cells.from_anndata(train, plain)
    keys = list(zip(map(str, cells.perturbations), map(str, cells.contexts), strict=True))
    requested = np.array([key in conditions for key in keys])
    learned = cells.take(np.flatnonzero(~requested))
    if bool(learned.is_control.all()) and truth is not None and requested.any():
        # One perturbation, some cells of it held out: the rest is what there is to learn from.
        learned = cells.take(np.flatnonzero(~np.isin(cells.names, list(truth))))
    if bool(learned.is_control.all()):
        raise InputError(
            "There is nothing to fit baselines on: no perturbed cells are left without those of "
            "the conditions that are to be predicted; pass cells of other conditions, or the cells "
            "of the same that were trained on, as baselines=."
        )
    # Contexts without control cells have no effects that could be learned from.
    bases = set(learned.contexts[learned.is_control])
    learned = learned.take(np.isin(learned.contexts, list(bases)))
    base = Cells.from_anndata(control, plain, cells.genes)
    starts = {
        context: base.take(np.flatnonzero(base.is_control & (base.contexts == context)))
        for context in sorted({context for _, context in conditions})
    }
    asked = {
        context: sorted(label for label, where in conditions if where == context)
        for context, cells in starts.items()
        if cells.n_cells
    }
    if not asked:
        raise InputError("None of the contexts to predict has control cells; pass some as control.")
    found: dict[str, ad.AnnData] = {}
    skipped: dict[str, str] = {}
    for name, make in SIMPLE.items():
        try:
            made = make(perturbation_sep=fields.perturbation_sep).fit(learned)
            parts = [
                predict_anndata(made, starts[context], labels, fields, seed=seed)
                for context, labels in asked.items()
            ]
        except CellditError as error:
            skipped[name] = str(error)
            continue
        found[name] = ad.concat(parts, index_unique="-") if len(parts) > 1 else parts[0]
        found[name].uns = parts[0].uns
    if not found:
        raise InputError(f"No baseline can be made: {'; '.join(skipped.values())}")
    return found, skipped


def predict_baseline(
    baseline: str | Callable[..., Baseline],
    train: ad.AnnData,
    control: ad.AnnData,
    perturbations: Sequence[str],
    *,
    seed: int = 0,
) -> ad.AnnData:
    """Fit one simple predictor and predict perturbations in every context of the controls.

    `baseline` is one of :data:`SIMPLE`, or what makes another, called with ``perturbation_sep``. It
    learns from `train`, set up, and moves the controls in `control`; the seed is of the rounding of
    counts. UnknownNameError if there is no such baseline, or it knows nothing of a perturbation;
    InputError if cells or the seed cannot be used.
    """
    check_seed(seed)
    if isinstance(baseline, str) and baseline not in SIMPLE:
        raise UnknownNameError.among("baseline", baseline, SIMPLE)
    make = SIMPLE[baseline] if isinstance(baseline, str) else baseline
    fields = replace(Fields.from_anndata(train), dose_key=None, time_key=None)
    learned = Cells.from_anndata(train, fields)
    base = Cells.from_anndata(control, fields, learned.genes)
    made = make(perturbation_sep=fields.perturbation_sep).fit(learned)
    return predict_anndata(made, base, perturbations, fields, seed=seed)


def predict_anndata(
    baseline: Baseline,
    controls: Cells,
    perturbations: Sequence[str],
    fields: Fields,
    *,
    seed: int = 0,
) -> ad.AnnData:
    """Predict several perturbations of the same control cells.

    Parameters
    ----------
    baseline
        Fitted.
    controls
        N cells, of which the control cells are used.
    perturbations
        P labels.
    fields
        Names of the columns to write.
    seed
        Of the rounding of counts.

    Returns
    -------
    AnnData
        One cell for each control cell and perturbation. ``X``: log expression, float32, linear, so
        values below 0 occur. ``layers["edited_counts"]``: the control cell's counts, each gene
        scaled so that its mean log expression moves as far, for measures that need counts. ``obs``:
        perturbation, covariates, ``control_cell``, ``size_factor``. ``uns["celldit"]``: the name of
        the baseline.

    Raises
    ------
    InputError
        If there are no control cells, no perturbations, or the fields name no perturbation column.
    UnknownNameError
        If the baseline knows nothing of a perturbation.
    """
    if isinstance(perturbations, str):
        perturbations = [perturbations]
    if fields.perturbation_key is None:
        raise InputError("The fields name no perturbation_key, so predictions cannot be labelled.")
    cells = controls.take(np.flatnonzero(controls.is_control))
    if cells.n_cells == 0 or len(perturbations) == 0:
        lacking = "control cells" if cells.n_cells == 0 else "perturbations"
        raise InputError(f"There are no {lacking} to predict; give at least one.")
    labels = [canonical(p, fields.perturbation_sep, controls.control) for p in perturbations]
    labels = list(dict.fromkeys(labels))
    moved = [baseline.predict(cells, label) for label in labels]
    repeated = np.tile(np.arange(cells.n_cells), len(labels))
    names, written = cells.names[repeated], np.repeat(labels, cells.n_cells)
    contexts = cells.covariates[list(fields.covariate_keys)].astype(object).iloc[repeated]
    obs = contexts.set_axis(pd.Index([f"{n}-{p}" for n, p in zip(names, written, strict=True)]))
    obs.insert(0, fields.perturbation_key, pd.Categorical(written))
    obs = obs.assign(control_cell=names, size_factor=cells.size_factors[repeated])
    rng = np.random.default_rng(seed)
    edited = [_edit(baseline, cells, label, rng) for label in labels]
    return ad.AnnData(
        X=np.concatenate(moved),
        layers={"edited_counts": sparse.vstack(edited, format="csr")},
        obs=obs,
        var=pd.DataFrame(index=pd.Index(cells.genes, dtype=object)),
        uns={"celldit": {"baseline": baseline.name, "setup": fields.to_dict()}},
    )


def _edit(
    baseline: Baseline, cells: Cells, label: str, rng: np.random.Generator
) -> sparse.csr_matrix:
    """Counts of control cells moved by the shift of their contexts, in the order of the cells."""
    rows = [np.flatnonzero(cells.contexts == c) for c in dict.fromkeys(cells.contexts)]
    blocks = [
        edit_counts(
            cells.counts[own],
            cells.size_factors[own],
            baseline.shift(label, str(cells.contexts[own[0]])),
            rng,
        )
        for own in rows
    ]
    return sparse.vstack(blocks, format="csr")[np.argsort(np.concatenate(rows))]


def edit_counts(
    counts_NG: sparse.csr_matrix,
    size_factors_N: np.ndarray,
    shift_G: np.ndarray,
    rng: np.random.Generator,
) -> sparse.csr_matrix:
    """Scale each gene of control cells so that its mean log expression moves by a shift.

    The N cells are of one context, with library sizes; the shift is in mean log expression, log(1 +
    10,000 counts / size factor). One factor for each gene, found by bisection; cells without the
    gene stay without it, so a gene that no cell shows stays silent, and none is scaled by more than
    a hundred. Fractions are rounded up or down at random, right on average, to int32.
    """
    columns = counts_NG.tocsc().astype(np.float64)
    n_cells = columns.shape[0]
    per_count = 1e4 / np.asarray(size_factors_N, dtype=np.float64)
    unit = per_count[columns.indices]
    gene = np.repeat(np.arange(columns.shape[1]), np.diff(columns.indptr))

    def mean_log(factor_G: np.ndarray) -> np.ndarray:
        """Mean log expression that is to be expected after rounding."""
        wanted = columns.data * factor_G[gene]
        whole = np.floor(wanted)
        up = wanted - whole
        values = (1.0 - up) * np.log1p(whole * unit) + up * np.log1p((whole + 1.0) * unit)
        return np.bincount(gene, weights=values, minlength=columns.shape[1]) / n_cells

    target_G = np.maximum(mean_log(np.ones(columns.shape[1])) + shift_G, 0.0)
    low_G = np.full(columns.shape[1], np.log(1.0 / LARGEST) - 5.0)
    high_G = np.full(columns.shape[1], np.log(LARGEST))
    for _ in range(ROUNDS):
        middle_G = 0.5 * (low_G + high_G)
        below = mean_log(np.exp(middle_G)) < target_G
        low_G, high_G = np.where(below, middle_G, low_G), np.where(below, high_G, middle_G)
    wanted = columns.data * np.exp(0.5 * (low_G + high_G))[gene]
    columns.data = np.floor(wanted + rng.random(len(wanted)))
    columns.eliminate_zeros()
    return columns.tocsr().astype(np.int32)
