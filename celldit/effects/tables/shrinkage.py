"""What a whole table says of each of its rows: empirical Bayes in a latent.

A table tells little of dimensions that its genes hardly see, and nothing sure where few cells were
measured. Its rows are therefore weighed against how effects scatter,

    y_p ~ N(μ, c_p Σ),   estimate of y_p ~ N(y_p, n_p A⁻¹ + I / cells),

where most perturbations do little and some do much, hence the scale c_p, that of a t distribution
(Lange, Little & Taylor 1989). n_p is the noise that the table states, or what its values leave over
a straight decoder, if that is more, and I / cells that of the cells themselves. μ, Σ, c and the
noise are those under which the table is most likely, found by EM. Σ begins as the scatter that
effects have in the user's own screen, and counts as much as one perturbation a dimension.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from celldit.effects.tables.projection import Projection

STEPS = 40
START = 0.1
FREEDOM = 4.0
LEAST_SCALE = 1e-3


class Shrunk(NamedTuple):
    """Posterior means of all rows (P, F), μ as it is in them, and what is believed of it, (F,)."""

    means_PF: np.ndarray
    common_F: np.ndarray
    shared_F: np.ndarray


def shrunk(table: Projection, signal_F: np.ndarray) -> Shrunk:
    """Posterior means of what a table measured, in coordinates in which cells scatter by 1.

    `signal_F` is the variance of effects in each of these, up to a factor.
    """
    n_rows, n_dims = table.right_PF.shape
    prior_F = signal_F / signal_F.mean()
    mean_F, spread_FF = np.zeros(n_dims), START * np.diag(prior_F)
    scale_P, noise_P = np.ones(n_rows), table.noise_P.copy()
    y_PF = np.zeros((n_rows, n_dims))
    for _ in range(STEPS):
        root_FF = _root(spread_FF)
        seen_F, turn_FF = np.linalg.eigh(root_FF @ table.gram_FF @ root_FF)
        seen_F, map_FF = seen_F.clip(min=0), root_FF @ turn_FF
        # What cells scatter along each of these directions.
        cells_F = np.diag(turn_FF.T @ np.linalg.inv(spread_FF) @ turn_FF)
        right_PF = table.right_PF - mean_F @ table.gram_FF
        noise_PF = noise_P[:, None] + seen_F * cells_F / table.cells_P[:, None]
        total_PF = seen_F * scale_P[:, None] + noise_PF
        x_PF = (right_PF @ map_FF) * scale_P[:, None] / total_PF
        left_PF = scale_P[:, None] * noise_PF / total_PF
        y_PF = mean_F + x_PF @ map_FF.T
        scale_P = (FREEDOM + (x_PF**2 + left_PF).sum(1)) / (FREEDOM + n_dims)
        scale_P = scale_P.clip(min=LEAST_SCALE)
        weight_P = 1 / scale_P
        # μ is drawn to zero as by one perturbation of the usual size.
        mean_F = (weight_P @ y_PF) / (weight_P.sum() + 1)
        second_FF = (x_PF * weight_P[:, None]).T @ x_PF + np.diag(weight_P @ left_PF)
        total_FF = map_FF @ second_FF @ map_FF.T
        typical = float((np.diag(total_FF) / prior_F).mean()) / n_rows
        spread_FF = (total_FF + n_dims * typical * np.diag(prior_F)) / (n_rows + n_dims)
        spread_FF += 1e-9 * np.trace(spread_FF) / n_dims * np.eye(n_dims)
        noise_P = table.noise_P + _misfit(table, y_PF, left_PF @ seen_F)
    return Shrunk(y_PF, mean_F, _without_noise_of_controls(table, mean_F, spread_FF))


def _without_noise_of_controls(
    table: Projection, mean_F: np.ndarray, spread_FF: np.ndarray
) -> np.ndarray:
    """μ, drawn to zero by the noise of the controls, which all rows share."""
    root_FF = _root(spread_FF)
    seen_F, turn_FF = np.linalg.eigh(root_FF @ table.gram_FF @ root_FF)
    seen_F, map_FF = seen_F.clip(min=1e-12), root_FF @ turn_FF
    cells_F = np.diag(turn_FF.T @ np.linalg.inv(spread_FF) @ turn_FF)
    cells, noise = float(np.median(table.cells_P)), float(np.median(table.noise_P))
    noise_F = noise * cells / (cells + table.controls) + seen_F * cells_F / table.controls
    shared_F: np.ndarray = map_FF @ (np.linalg.solve(map_FF, mean_F) * seen_F / (seen_F + noise_F))
    return shared_F


def _misfit(table: Projection, y_PF: np.ndarray, doubt_P: np.ndarray) -> np.ndarray:
    """By how much values lie off a straight decoder beyond their noise."""
    fitted_P = ((y_PF @ table.gram_FF) * y_PF).sum(1)
    crossed_P = (y_PF * table.right_PF).sum(1)
    left_P = (table.square_P - 2 * crossed_P + fitted_P + doubt_P) / table.n_genes
    return np.asarray((left_P - table.scatter_P).clip(min=0))


def _root(matrix_FF: np.ndarray) -> np.ndarray:
    """Symmetric square root."""
    values_F, vectors_FF = np.linalg.eigh(matrix_FF)
    return np.asarray((vectors_FF * np.sqrt(values_F.clip(min=1e-12))) @ vectors_FF.T)
