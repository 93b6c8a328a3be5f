"""Baseline predictions as an AnnData, like the model's."""

from __future__ import annotations

from collections.abc import Sequence

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from celldit.data.cells import Cells
from celldit.data.fields import Fields
from celldit.data.labels.labels import canonical
from celldit.errors import InputError
from celldit.evaluation.baselines.base import Baseline
from celldit.evaluation.baselines.counts import edit_counts


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
    blocks = [baseline.predict(cells, label) for label in labels]
    repeated = np.tile(np.arange(cells.n_cells), len(labels))
    written = np.repeat(np.asarray(labels, dtype=object), cells.n_cells)
    obs = pd.DataFrame(
        {
            fields.perturbation_key: pd.Categorical(written),
            **{
                key: cells.covariates[key].to_numpy(dtype=object)[repeated]
                for key in fields.covariate_keys
            },
            "control_cell": cells.names[repeated],
            "size_factor": cells.size_factors[repeated],
        },
        index=pd.Index(
            [f"{name}-{label}" for name, label in zip(cells.names[repeated], written, strict=True)]
        ),
    )
    rng = np.random.default_rng(seed)
    edited = [_edit(baseline, cells, label, rng) for label in labels]
    return ad.AnnData(
        X=np.concatenate(blocks),
        layers={"edited_counts": sparse.vstack(edited, format="csr")},
        obs=obs,
        var=pd.DataFrame(index=pd.Index(cells.genes, dtype=object)),
        uns={"celldit": {"baseline": baseline.name, "setup": fields.to_dict()}},
    )


def _edit(
    baseline: Baseline, cells: Cells, label: str, rng: np.random.Generator
) -> sparse.csr_matrix:
    """Counts of control cells moved by the shift of their contexts, in the order of the cells."""
    rows, blocks = [], []
    for context in dict.fromkeys(cells.contexts):
        of_context = np.flatnonzero(cells.contexts == context)
        shift_G = baseline.shift(label, str(context))
        blocks.append(
            edit_counts(cells.counts[of_context], cells.size_factors[of_context], shift_G, rng)
        )
        rows.append(of_context)
    return sparse.vstack(blocks, format="csr")[np.argsort(np.concatenate(rows))]
