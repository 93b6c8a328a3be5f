"""How probably each cell of one perturbation responded, from it and its controls."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import sparse

from celldit.calibration.responders.mixture import Responses, fit_responses
from celldit.calibration.responders.scores import N_FOLDS, response_scores
from celldit.conditions import ConditionTable
from celldit.conditions.strata import Strata
from celldit.data.store import CellStore

#: Fewer cells have no direction that the others of them could give.
MIN_CELLS = 2 * N_FOLDS
#: More controls of a stratum tell no more; some are drawn.
MAX_CONTROLS = 1_000
#: Strata whose controls are kept at hand.
KEPT_STRATA = 8


def controls_of(table: ConditionTable) -> dict[int, int]:
    """The control condition of each perturbed condition, where its context has enough of them."""
    strata, counts = Strata.of_table(table), table.counts
    found = {}
    for row, condition in enumerate(table.conditions):
        stratum = strata[condition.stratum]
        if not condition.is_control and stratum.is_identified and counts[stratum.row] >= N_FOLDS:
            found[row] = stratum.row
    return found


class MeasuredControls:
    """Log expression of the controls of each stratum, read once while it is asked for again.

    Parameters
    ----------
    cells, table
        N cells and their conditions.
    seed
        Of the choice where there are very many.
    most
        Controls of a stratum that are read.
    """

    def __init__(
        self, cells: CellStore, table: ConditionTable, seed: int, most: int = MAX_CONTROLS
    ) -> None:
        self.cells, self.table, self.row_of = cells, table, controls_of(table)
        self._seed, self._most = seed, most
        self._read = lru_cache(maxsize=KEPT_STRATA)(self._of_row)

    def _of_row(self, row: int) -> sparse.csr_matrix:
        own = np.flatnonzero(self.table.index == row)
        chosen = np.random.default_rng((self._seed, row)).permutation(own)[: self._most]
        return self.cells.take(np.sort(chosen)).log_normalized()

    def respond(self, own: np.ndarray, guide_P: np.ndarray) -> tuple[np.ndarray, Responses]:
        """Scores of P cells of one perturbation, and what the mixture says of them.

        Parameters
        ----------
        own
            Positions of the P cells, all of conditions in `row_of`; at least :data:`MIN_CELLS`.
        guide_P
            Guide of each, from 0.
        """
        control_P = np.array([self.row_of[row] for row in self.table.index[own]])
        used, stratum_P, n_own = np.unique(control_P, return_inverse=True, return_counts=True)
        controls = [self._read(int(row)) for row in used]
        n_controls = np.array([log_MG.shape[0] for log_MG in controls])
        stratum_N = np.concatenate([stratum_P, np.repeat(np.arange(len(used)), n_controls)])
        log_NG = sparse.vstack([self.cells.take(own).log_normalized(), *controls], format="csr")
        perturbed_N = np.arange(len(stratum_N)) < len(own)
        rng = np.random.default_rng(self._seed)
        score_N = response_scores(log_NG, stratum_N, perturbed_N, rng)
        # Folds learn from each other's cells, so under no response the difference of means scatters
        # more than one of independent scores, with a long tail above.
        variance = 2 * (((n_own / n_own.sum()) ** 2 / n_controls).sum() + 1 / len(own))
        score_P = score_N[perturbed_N]
        return score_P, fit_responses(score_P, guide_P, score_N[~perturbed_N], variance**0.5)
