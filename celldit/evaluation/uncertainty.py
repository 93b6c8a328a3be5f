"""Which effects are there at all."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
from scipy import stats
from scipy.spatial.distance import cdist

from celldit.errors import InputError
from celldit.evaluation.metrics.cells import thin
from celldit.evaluation.task import Task


def detectable(
    truth: ad.AnnData,
    control: ad.AnnData | None = None,
    *,
    n_permutations: int = 200,
    alpha: float = 0.05,
    min_cells: int = 10,
    max_cells: int = 500,
    seed: int = 0,
) -> pd.DataFrame:
    """Test which conditions differ from their control cells.

    Conditions without a measurable effect add nothing but noise to an average over conditions. The
    energy distance to the control cells of the same context, in principal components, is compared
    with those after permuting the labels of the cells.

    Parameters
    ----------
    truth, control
        As in :func:`celldit.evaluation.evaluate`.
    n_permutations
        Permutations; the smallest p-value is 1 / (n_permutations + 1).
    alpha
        False discovery rate (Benjamini and Hochberg) over the conditions.
    min_cells
        Conditions with fewer perturbed or control cells are not tested.
    max_cells
        Most cells of either kind in a test; more are thinned.
    seed
        Of permutations and thinning.

    Returns
    -------
    pandas.DataFrame
        ``perturbation``, ``context``, ``n_cells``, ``energy``, ``p_value``, ``q_value``,
        ``detectable``; one row for each condition, NaN and False where it was not tested.

    Raises
    ------
    InputError, UnknownNameError
        As :func:`celldit.evaluation.evaluate`, or if ``n_permutations`` is not above 0.

    Examples
    --------
    >>> measured = adata[adata.obs["perturbation"].isin(["control", "STAT1"])]
    >>> table = cd.tl.detectable(measured, measured, n_permutations=50)
    >>> bool(table["detectable"].all())
    True
    """
    if n_permutations < 1:
        raise InputError(f"n_permutations must be above 0, but is {n_permutations}.")
    task = Task.prepare(truth, control, seed=seed)
    controls = task.control.by_context()
    rows: list[tuple] = []
    for (perturbation, context), cells in task.truth.conditions().items():
        base = controls.get(context, np.empty(0, dtype=np.int64))
        energy = p_value = float("nan")
        if min(len(cells), len(base)) >= max(min_cells, 2):
            x_ND = task.components.transform(
                task.truth.log[cells[thin(len(cells), max_cells, seed)]]
            )
            y_MD = task.components.transform(
                task.control.log[base[thin(len(base), max_cells, seed)]]
            )
            energy, p_value = permutation_p_value(x_ND, y_MD, n_permutations, seed)
        rows.append((perturbation, context, len(cells), energy, p_value))
    table = pd.DataFrame(rows, columns=["perturbation", "context", "n_cells", "energy", "p_value"])
    tested = table["p_value"].notna().to_numpy()
    q_values = np.full(len(table), np.nan)
    if tested.any():
        q_values[tested] = stats.false_discovery_control(table["p_value"].to_numpy()[tested])
    return table.assign(q_value=q_values, detectable=q_values < alpha)


def permutation_p_value(
    x_ND: np.ndarray, y_MD: np.ndarray, n_permutations: int = 200, seed: int = 0
) -> tuple[float, float]:
    """Energy distance of samples (N, D) and (M, D), and how often permuted labels give as much.

    All (N + M)^2 distances are held in memory. The p value is ``(1 + #{permuted >= measured}) / (1
    + n_permutations)``.
    """
    n, m = len(x_ND), len(y_MD)
    both = np.concatenate([x_ND, y_MD])
    distances = cdist(both, both)
    rng = np.random.default_rng(seed)
    labels = np.zeros((n_permutations + 1, n + m))
    labels[0, :n] = 1.0
    for row in labels[1:]:
        row[rng.permutation(n + m)[:n]] = 1.0
    # With s = D z: z's = sum within x, (1 - z)'s = sum between; the rest is within y.
    sums = labels @ distances
    within_x = np.einsum("pn,pn->p", labels, sums)
    between = sums.sum(axis=1) - within_x
    within_y = distances.sum() - within_x - 2.0 * between
    energy = 2.0 * between / (n * m) - within_x / (n * (n - 1)) - within_y / (m * (m - 1))
    # Equal splits in another order must count as equal despite rounding.
    reached = np.count_nonzero(energy[1:] >= energy[0] - 1e-9 * abs(energy[0]))
    return float(energy[0]), (1 + reached) / (1 + n_permutations)
