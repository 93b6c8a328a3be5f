"""Which of the perturbed cells responded."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import anndata as ad
import numpy as np
import pandas as pd

from celldit.arguments import check_known, check_seed, text_list
from celldit.calibration.responders.respond import MIN_CELLS, MeasuredControls
from celldit.calibration.responders.scores import N_FOLDS
from celldit.compute import threads
from celldit.conditions import ConditionTable
from celldit.data.labels.columns import obs_column
from celldit.data.labels.labels import canonical
from celldit.errors import InputError, examples
from celldit.tl.cells import measured_cells, text_rows, writable

#: The guide of cells of which none is known.
NO_GUIDE = "unknown"


def responders(
    adata: ad.AnnData,
    perturbations: Sequence[str] | str | None = None,
    *,
    guide_key: str | None = None,
    seed: int = 0,
    key_added: str = "responders",
) -> pd.DataFrame:
    """Say of every perturbed cell how probably it responded, and of every guide how many do.

    Some cells that got a guide or a drug are as they were: the gene was not cut, or not enough. A
    cell is projected onto the effect of its perturbation, which is learned from the other cells
    (:mod:`celldit.calibration.responders.scores`). Its score comes from the distribution of the
    controls of its context, or from the same moved by a response; Bayes' rule gives the
    probability of the latter (:mod:`celldit.calibration.responders.mixture`). No model is needed.
    What the probabilities are worth is in ``docs/cells_and_pairs.md``.

    Parameters
    ----------
    adata
        Measured cells, set up with :meth:`celldit.CellDiT.setup_anndata`.
    perturbations
        Labels; None for all.
    guide_key
        Column of ``obs`` with the guide of each cell; each has a share of its own, and so have the
        cells without one, as ``"unknown"``. None where no guides are known.
    seed
        Of the folds.
    key_added
        Key in ``uns``.

    Returns
    -------
    pandas.DataFrame
        Also written to ``uns[key_added]``. One row for each perturbation (and dose, where there
        are), and guide: ``perturbation``, ``dose``, ``guide``; ``n_cells``; ``share`` of the cells
        that responded, ``low`` and ``high``, the ends of its 90% interval; ``size`` of a response
        along the effect, in standard deviations of the controls: below about 2, cells are hard to
        tell apart one by one. ``obs["p_responded"]`` holds the probability of each cell, and
        ``obs["response_score"]`` where it lies along the effect. They are missing for controls, for
        perturbations of fewer than ten cells, and in contexts with fewer than five controls.

    Raises
    ------
    InputError
        If `adata` was not set up with perturbations, or no perturbation has cells and controls
        enough.
    UnknownNameError
        If a perturbation or the column of guides does not exist.

    Examples
    --------
    >>> table = cd.tl.responders(adata, guide_key="grna").set_index("guide")
    >>> bool(table.loc["STAT1g2", "share"] > 0.8 > table.loc["IRF1g1", "share"])
    True
    >>> escaped = adata[adata.obs["p_responded"] < 0.1]
    """
    target = writable(adata, key_added)
    check_seed(seed)
    cells, fields = measured_cells(adata)
    guide_N = np.full(cells.n_cells, "")
    if guide_key is not None:
        guides = obs_column(adata, guide_key, "guide_key").astype(object)
        guide_N = guides.where(guides.notna(), NO_GUIDE).astype(str).to_numpy()
    known = sorted(set(cells.perturbations) - {fields.control})
    labels = known if perturbations is None else text_list(perturbations, "perturbations")
    labels = [canonical(label, fields.perturbation_sep, fields.control) for label in labels]
    check_known(labels, known, "perturbation in adata")
    table = ConditionTable.from_cells(cells, fields.perturbation_sep)
    controls = MeasuredControls(cells, table, seed)
    groups: dict[tuple[str, tuple[float, ...] | None], list[int]] = {}
    for row, condition in enumerate(table.conditions):
        label = condition.label(fields.perturbation_sep, fields.control)
        if label in labels:
            groups.setdefault((label, condition.doses), []).append(row)
    p_N, score_N = np.full(cells.n_cells, np.nan), np.full(cells.n_cells, np.nan)
    frames, left_out = [], []
    with threads():
        for (label, doses), conditions in sorted(groups.items(), key=str):
            usable = [row for row in conditions if row in controls.row_of]
            own = np.flatnonzero(np.isin(table.index, usable))
            if len(own) < MIN_CELLS:
                left_out.append(label)
                continue
            guides, guide_P = np.unique(guide_N[own], return_inverse=True)
            score_N[own], found = controls.respond(own, guide_P)
            p_N[own] = found.p_N
            said = {"perturbation": label}
            if doses is not None:
                said["dose"] = fields.perturbation_sep.join(f"{dose:g}" for dose in doses)
            frames.append(
                pd.DataFrame(
                    {
                        **said,
                        "guide": guides,
                        "n_cells": np.bincount(guide_P),
                        "share": found.share_K,
                        "low": found.low_K,
                        "high": found.high_K,
                        "size": found.size,
                    }
                )
            )
    if not frames:
        raise InputError(
            f"No perturbation has at least {MIN_CELLS} cells in contexts with at least {N_FOLDS} "
            f"controls; label control cells {fields.control!r} in the same contexts, or set up "
            "adata with fewer covariate_keys."
        )
    if left_out:
        warnings.warn(
            f"{examples(dict.fromkeys(left_out))} have fewer than {MIN_CELLS} cells in contexts "
            f"with at least {N_FOLDS} controls, so it is not said which of them responded.",
            UserWarning,
            stacklevel=2,
        )
    result = pd.concat(frames, ignore_index=True)
    if guide_key is None:
        del result["guide"]
    target.obs["p_responded"], target.obs["response_score"] = p_N, score_N
    target.uns[key_added] = text_rows(result)
    return result
