"""Which perturbation moves some cells towards others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse, stats

from celldit.arguments import check_whole
from celldit.compute import threads
from celldit.conditions import Condition
from celldit.conditions.strata import StratumKey
from celldit.data.cells import Cells
from celldit.data.query import Selection, selected
from celldit.errors import InputError
from celldit.inference.request import counterfactual_conditions, labels_or_all
from celldit.model import CellDiT
from celldit.progress import counted
from celldit.tl.cells import read_cells, text_rows, trained_parts, writable
from celldit.training.trained import Trained


def rank_perturbations(
    adata: ad.AnnData,
    model: CellDiT,
    *,
    source: Selection,
    target: Selection,
    perturbations: Sequence[str] | None = None,
    dose: object = None,
    time: float | None = None,
    key_added: str = "rank_perturbations",
    max_cells: int = 200,
    batch_size: int = 512,
    seed: int = 0,
) -> pd.DataFrame:
    """Rank perturbations by how far they move the source cells towards the target cells.

    With d the difference between the mean log expression of target and source, and e the predicted
    mean shift of the source cells, the score is the share of the squared distance that the
    perturbation removes::

        score = 1 - |d - e|² / |d|²

    1 is arrival, 0 is no approach, and below 0 the cells end farther away than they began (in the
    wrong direction, or beside it). Perturbations are predicted one after another, so memory does
    not grow with their number.

    Parameters
    ----------
    adata
        Measured cells with the model's genes and columns; also the targets.
    model
        A trained model.
    source, target
        Cells: a query of ``obs`` such as ``"cell_type == 'B' and condition == 'control'"``, or a
        boolean mask of length N. The control cells among the source are perturbed.
    perturbations
        Labels to try, new combinations included; None for all of the training.
    dose, time
        Where the training data have them.
    key_added
        Key in ``uns``.
    max_cells
        Most source cells to predict; more are thinned.
    batch_size
        Cells at a time.
    seed
        Of the thinning and the drawn counts.

    Returns
    -------
    pandas.DataFrame
        Also written to ``uns[key_added]``; one row per perturbation, best first. ``perturbation``,
        ``score``, ``sd`` (of the score, by the delta method from the posterior of the effect;
        contexts are taken to err together, which is the cautious side), ``p_closer`` (probability
        of a score above 0 if the score is normal), ``progress`` (e·d / d·d: 1 goes the whole way
        along the line), ``alignment`` (cosine of e and d),
        ``extrapolation`` (the commonest among the source cells).

    Raises
    ------
    InputError
        If a selection is empty, cannot be read, or source and target do not differ.
    UnknownNameError
        If nothing is known of a perturbation.
    NotTrainedError
        If the model was not trained.

    Examples
    --------
    >>> ranking = cd.tl.rank_perturbations(
    ...     adata, model, source="perturbation == 'control'", target="perturbation == 'STAT1'"
    ... )
    >>> ranking["perturbation"].iloc[0]
    'STAT1'
    """
    trained = trained_parts(model)
    writable(adata, key_added)
    cells = read_cells(adata, trained)
    is_source = selected(adata, source, "source") & cells.is_control
    is_target = selected(adata, target, "target")
    if not is_source.any():
        raise InputError(
            f"No source cell is labelled {trained.fields.control!r}; predictions start from "
            "control cells, so let source= select some."
        )
    check_whole(max_cells, "max_cells")
    labels = labels_or_all(trained, perturbations)
    rows = np.flatnonzero(is_source)
    if len(rows) > max_cells:
        rows = np.sort(np.random.default_rng(seed).choice(rows, max_cells, replace=False))
    start = cells.take(rows)
    before_G = _mean_log(start.log_normalized())
    way_G = _mean_log(cells.take(is_target).log_normalized()) - before_G
    found = []
    for label in counted(labels, "ranking", "perturbations"):
        predicted = model.predict(
            adata[rows],
            perturbations=[label],
            dose=dose,
            time=time,
            seed=seed,
            batch_size=batch_size,
        )
        score, slope_G, rest = _measure(predicted, before_G, way_G)
        conditions = counterfactual_conditions(start, label, trained.fields, dose, time)
        with threads():
            sd = _sd_along(trained, start, conditions, slope_G)
        p_closer = float(stats.norm.cdf(score / sd)) if sd > 0 else float(score > 0)
        said = {"perturbation": label, "score": score, "sd": sd, "p_closer": p_closer}
        found.append({**said, **rest})
    table = pd.DataFrame(found)
    table = table.sort_values("score", ascending=False, kind="stable", ignore_index=True)
    adata.uns[key_added] = text_rows(table)
    return table


def _measure(
    predicted: ad.AnnData, before_G: np.ndarray, way_G: np.ndarray
) -> tuple[float, np.ndarray, dict[str, object]]:
    """Compare the predicted step with the way: score, its slope in each log rate (G,), the rest."""
    counts = sparse.csr_matrix(predicted.layers["counts"], dtype=np.float32)
    scale = (1e4 / predicted.obs["size_factor"].to_numpy(np.float64)).astype(np.float32)
    rates = sparse.csr_matrix(sparse.diags(scale) @ counts)
    step_G = _mean_log(rates.log1p()) - before_G
    left_G = way_G - step_G
    squared, length = float(way_G @ way_G), float(np.linalg.norm(step_G))
    # A change of the log rate changes log(1 + rate) by rate / (1 + rate) of it.
    rate_G = np.asarray(rates.mean(axis=0), dtype=np.float64).ravel()
    slope_G = 2 * left_G / squared * rate_G / (1 + rate_G)
    return (
        1 - float(left_G @ left_G) / squared,
        slope_G,
        {
            "progress": float(step_G @ way_G) / squared,
            "alignment": float(step_G @ way_G) / (length * squared**0.5) if length > 0 else 0.0,
            "extrapolation": str(predicted.obs["extrapolation"].astype(str).mode()[0]),
        },
    )


def _sd_along(
    trained: Trained, start: Cells, conditions: Sequence[Condition], slope_G: np.ndarray
) -> float:
    """Posterior standard deviation of the mean effect along a linear function of the log rates."""
    known, share = trained.population.references, Counter(conditions)
    new = {c.stratum for c in share} - set(known)
    references: dict[StratumKey, np.ndarray] = {}
    for key in new:
        own = start.take([c.stratum == key for c in conditions])
        references[key] = trained.autoencoder.encode(own).flatten(1).double().numpy().mean(0)
    estimate = trained.population.prior.estimate(list(share), references)
    loadings_FG = trained.autoencoder.decoder.loadings.detach().double().cpu().numpy()
    _, sd_Q1 = estimate.project((loadings_FG @ slope_G)[:, None])
    return float(np.average(sd_Q1[:, 0], weights=list(share.values())))


def _mean_log(log: sparse.csr_matrix) -> np.ndarray:
    return np.asarray(log.mean(axis=0), dtype=np.float64).ravel()
