"""Which of the perturbed cells responded."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import anndata as ad
import numpy as np
import pandas as pd

from celldit.analysis.response_mixture import Responses, fit_responses
from celldit.analysis.response_scores import N_FOLDS, response_scores
from celldit.arguments import check_seed, text_list
from celldit.compute import threads
from celldit.conditions import ConditionTable
from celldit.conditions.strata import Strata
from celldit.data.cells import Cells
from celldit.data.labels.columns import obs_column
from celldit.data.labels.labels import canonical
from celldit.errors import InputError, UnknownNameError, examples
from celldit.tl.cells import measured_cells, writable

__all__ = ["responders"]

#: Fewer cells have no direction that the others of them could give.
MIN_CELLS = 2 * N_FOLDS
#: More controls tell no more; some are drawn.
MAX_CONTROLS = 3_000


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
    (:mod:`celldit.analysis.response_scores`). Its score comes from the distribution of the
    controls of its context, or from the same moved by a response; Bayes' rule gives the
    probability of the latter (:mod:`celldit.analysis.response_mixture`). No model is needed.
    What the probabilities are worth is in ``docs/cells_and_pairs.md``.

    Parameters
    ----------
    adata
        Measured cells, set up with :meth:`celldit.CellDiT.setup_anndata`.
    perturbations
        Labels; None for all.
    guide_key
        Column of ``obs`` with the guide of each cell; each has a share of its own. None where they
        are not known.
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
    target = writable(adata, copy=False)
    check_seed(seed)
    cells, fields = measured_cells(adata)
    guide_N = np.full(cells.n_cells, "")
    if guide_key is not None:
        guide_N = obs_column(adata, guide_key, "guide_key").astype(str).to_numpy()
    known = sorted(set(cells.perturbations) - {fields.control})
    labels = known if perturbations is None else text_list(perturbations, "perturbations")
    labels = [canonical(label, fields.perturbation_sep, fields.control) for label in labels]
    for label in labels:
        if label not in known:
            raise UnknownNameError.among("perturbation in adata", label, known)
    table = ConditionTable.from_cells(cells, fields.perturbation_sep)
    control_of = _controls(table)
    groups: dict[tuple[str, tuple[float, ...] | None], list[int]] = {}
    for row, condition in enumerate(table.conditions):
        label = condition.label(fields.perturbation_sep, fields.control)
        if label in labels:
            groups.setdefault((label, condition.doses), []).append(row)
    p_N, score_N = np.full(cells.n_cells, np.nan), np.full(cells.n_cells, np.nan)
    frames, left_out = [], []
    with threads():
        for (label, doses), conditions in sorted(groups.items(), key=str):
            usable = [row for row in conditions if row in control_of]
            own = np.flatnonzero(np.isin(table.index, usable))
            if len(own) < MIN_CELLS:
                left_out.append(label)
                continue
            guides, guide_P = np.unique(guide_N[own], return_inverse=True)
            score_N[own], found = _respond(cells, table, control_of, own, guide_P, seed)
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
    result.index = result.index.astype(str)
    target.obs["p_responded"], target.obs["response_score"] = p_N, score_N
    target.uns[key_added] = result
    return result


def _controls(table: ConditionTable) -> dict[int, int]:
    """The control condition of each perturbed condition, where its context has enough of them."""
    strata, counts = Strata.of_table(table), table.counts
    found = {}
    for row, condition in enumerate(table.conditions):
        stratum = strata[condition.stratum]
        if not condition.is_control and stratum.is_identified and counts[stratum.row] >= N_FOLDS:
            found[row] = stratum.row
    return found


def _respond(
    cells: Cells,
    table: ConditionTable,
    control_of: Mapping[int, int],
    own: np.ndarray,
    guide_P: np.ndarray,
    seed: int,
) -> tuple[np.ndarray, Responses]:
    """Scores of P cells of one perturbation, and what the mixture says of them."""
    rng = np.random.default_rng(seed)
    control_P = np.array([control_of[row] for row in table.index[own]])
    used, n_own = np.unique(control_P, return_counts=True)
    pool = np.flatnonzero(np.isin(table.index, used))
    if len(pool) > MAX_CONTROLS:
        pool = np.sort(_thinned(table.index[pool], pool, rng))
    n_controls = np.array([(table.index[pool] == row).sum() for row in used])
    stratum_N = np.searchsorted(used, np.concatenate([control_P, table.index[pool]]))
    perturbed_N = np.arange(len(own) + len(pool)) < len(own)
    log_NG = cells.take(np.concatenate([own, pool])).log_normalized()
    score_N = response_scores(log_NG, stratum_N, perturbed_N, rng)
    # Folds learn from each other's cells, so under no response the difference of means scatters
    # more than one of independent scores, with a long tail above.
    variance = 2 * (((n_own / n_own.sum()) ** 2 / n_controls).sum() + 1 / len(own))
    score_P = score_N[perturbed_N]
    return score_P, fit_responses(score_P, guide_P, score_N[~perturbed_N], variance**0.5)


def _thinned(stratum_M: np.ndarray, pool: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Some of the controls, about :data:`MAX_CONTROLS`, of each stratum in proportion."""
    share = MAX_CONTROLS / len(pool)
    kept = []
    for row in np.unique(stratum_M):
        of_row = pool[stratum_M == row]
        kept.append(rng.permutation(of_row)[: max(N_FOLDS, round(share * len(of_row)))])
    return np.concatenate(kept)
