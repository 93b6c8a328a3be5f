"""What genes do in one state and not in others, as new cells have to have it.

One offset and one dispersion for each gene do not do for all states: a hormone varies by orders of
magnitude among the cells that make it, and as little as counting does where it is background. So
each gene has, in each state, an offset of its log rate and a factor of its inverse dispersion
beside those that all states have in common. They are moved, round by round, by what the mean and
the variance of log expression of drawn cells differ in from those measured there, and tied to zero
as if 20 further cells had said that the state is as all others: cells, for the mean; cells with a
count, for the variance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PRIOR_CELLS = 20.0
# Added to variances of log expression, of which a smaller one is not told from none.
LEAST_VARIANCE = 0.02
MOST_OFFSET, MOST_LOG_FACTOR = 2.0, float(np.log(10))
# How far the log of a variance answers to that of a dispersion, at most about two thirds.
GAIN = 1.5


@dataclass(frozen=True, eq=False)
class Moments:
    """Log expression of cells in X states.

    Attributes
    ----------
    mean_XG, variance_XG
        Its mean and variance; 0 where there are no cells.
    present_XG
        Cells with a count.
    cells_X
        Cells.
    mean_G
        Mean over all cells.
    """

    mean_XG: np.ndarray
    variance_XG: np.ndarray
    present_XG: np.ndarray
    cells_X: np.ndarray
    mean_G: np.ndarray

    @classmethod
    def of(
        cls, counts_NG: np.ndarray, size_N: np.ndarray, row_N: np.ndarray, n_states: int
    ) -> Moments:
        """Measure N cells in the states `row_N`."""
        shape = n_states, counts_NG.shape[1]
        mean_XG, variance_XG, present_XG = (np.zeros(shape) for _ in range(3))
        cells_X = np.bincount(row_N, minlength=n_states)
        for x in np.flatnonzero(cells_X):
            own_NG = counts_NG[row_N == x]
            log_NG = np.log1p(own_NG * (1e4 / size_N[row_N == x, None]).astype(np.float32))
            mean_XG[x], variance_XG[x] = log_NG.mean(0), log_NG.var(0)
            present_XG[x] = (own_NG > 0).sum(0)
        return cls(
            mean_XG, variance_XG, present_XG, cells_X, cells_X @ mean_XG / max(cells_X.sum(), 1)
        )


def towards(
    offset_XG: np.ndarray,
    log_factor_XG: np.ndarray,
    measured: Moments,
    drawn: Moments,
    step: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Move both deviations by what drawn cells differ in from those measured, float32.

    What all states have in common is left to the offset that they share.

    Parameters
    ----------
    offset_XG, log_factor_XG
        What is added to log rates, and to the log of inverse dispersions.
    measured, drawn
        Log expression of both.
    step
        Share of the way to go.
    """
    known_X1 = (measured.cells_X / (measured.cells_X + PRIOR_CELLS))[:, None]
    missing_XG = measured.mean_XG - drawn.mean_XG - (measured.mean_G - drawn.mean_G)
    # How log expression answers to a log rate: little where a gene is hardly seen.
    missing_XG = missing_XG / (1 - np.exp(-measured.mean_XG.clip(0.1)))
    move_XG = known_X1 * missing_XG - (1 - known_X1) * offset_XG
    offset_XG = offset_XG + (step * move_XG).clip(-1, 1)
    known_XG = measured.present_XG / (measured.present_XG + PRIOR_CELLS)
    wider_XG = np.log(
        (drawn.variance_XG + LEAST_VARIANCE) / (measured.variance_XG + LEAST_VARIANCE)
    )
    move_XG = known_XG * GAIN * wider_XG - (1 - known_XG) * log_factor_XG
    log_factor_XG = log_factor_XG + (step * move_XG).clip(-1, 1)
    return (
        offset_XG.clip(-MOST_OFFSET, MOST_OFFSET).astype(np.float32),
        log_factor_XG.clip(-MOST_LOG_FACTOR, MOST_LOG_FACTOR).astype(np.float32),
    )
