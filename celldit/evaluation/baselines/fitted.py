"""All simple predictors at once, fitted on the cells that are not to be predicted."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import anndata as ad
import numpy as np

from celldit.data.cells import Cells
from celldit.data.fields import Fields
from celldit.errors import CellditError, InputError, UnknownNameError
from celldit.evaluation.baselines.additive import Additive
from celldit.evaluation.baselines.base import Baseline
from celldit.evaluation.baselines.constant import MajorityVote, MeanShift, NoChange
from celldit.evaluation.baselines.covariance import ControlCovariance
from celldit.evaluation.baselines.frame import predict_anndata
from celldit.evaluation.baselines.latent import LatentArithmetic
from celldit.evaluation.baselines.nearest import NearestPerturbation

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


def predict_all(
    train: ad.AnnData,
    control: ad.AnnData,
    conditions: set[tuple[str, str]],
    *,
    truth: Collection[str] | None = None,
    seed: int = 0,
) -> tuple[dict[str, ad.AnnData], dict[str, str]]:
    """Fit every simple predictor and predict conditions.

    Parameters
    ----------
    train
        Cells to learn from, set up with :meth:`celldit.CellDiT.setup_anndata`. Cells of the
        conditions asked for are left out.
    control
        Cells whose controls are moved.
    conditions
        (perturbation, context) to predict.
    truth
        Names of the cells that predictions are measured against. Where no other condition is left
        to learn from, other cells of the same conditions are; None if they may be among `train`.
    seed
        Of the rounding of counts.

    Returns
    -------
    predictions
        By name, as :func:`predict_anndata` writes them.
    skipped
        Why others know nothing of what is asked.

    Raises
    ------
    InputError
        If nothing is left to learn from, or to predict from.
    """
    fields = Fields.from_anndata(train)
    cells = Cells.from_anndata(train, replace(fields, dose_key=None, time_key=None))
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
    base = Cells.from_anndata(control, replace(fields, dose_key=None, time_key=None), cells.genes)
    found: dict[str, ad.AnnData] = {}
    skipped: dict[str, str] = {}
    for name, make in SIMPLE.items():
        try:
            made = make(perturbation_sep=fields.perturbation_sep).fit(learned)
            found[name] = _predict(made, base, conditions, fields, seed)
        except CellditError as error:
            skipped[name] = str(error)
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

    Parameters
    ----------
    baseline
        One of :data:`SIMPLE`, or what makes another, called with ``perturbation_sep``.
    train
        Cells to learn from, set up.
    control
        Cells whose controls are moved.
    perturbations
        Labels.
    seed
        Of the rounding of counts.

    Raises
    ------
    UnknownNameError
        If there is no such baseline, or it knows nothing of a perturbation.
    InputError
        If cells cannot be used.
    """
    if isinstance(baseline, str) and baseline not in SIMPLE:
        raise UnknownNameError.among("baseline", baseline, SIMPLE)
    make = SIMPLE[baseline] if isinstance(baseline, str) else baseline
    fields = replace(Fields.from_anndata(train), dose_key=None, time_key=None)
    learned = Cells.from_anndata(train, fields)
    base = Cells.from_anndata(control, fields, learned.genes)
    made = make(perturbation_sep=fields.perturbation_sep).fit(learned)
    return predict_anndata(made, base, perturbations, fields, seed=seed)


def _predict(
    made: Baseline, base: Cells, conditions: set[tuple[str, str]], fields: Fields, seed: int
) -> ad.AnnData:
    """Predict each condition from the control cells of its context."""
    parts = []
    for context in sorted({context for _, context in conditions}):
        labels = sorted(label for label, where in conditions if where == context)
        of_context = base.take(np.flatnonzero(base.is_control & (base.contexts == context)))
        if of_context.n_cells:
            parts.append(predict_anndata(made, of_context, labels, fields, seed=seed))
    if not parts:
        raise InputError("None of the contexts to predict has control cells; pass some as control.")
    joined = ad.concat(parts, index_unique="-") if len(parts) > 1 else parts[0]
    joined.uns = parts[0].uns
    return joined
