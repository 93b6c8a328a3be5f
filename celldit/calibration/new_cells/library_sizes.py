"""Library sizes of new cells, learned for each state of each context and each perturbation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy import sparse

from celldit.conditions import Condition, ConditionTable

N_QUANTILES = 101
PRIOR_CELLS = 10
N_TAIL = 4
# Of log sizes: below this a perturbation does not change them.
LEAST_VARIANCE = 1e-8


@dataclass(frozen=True, eq=False)
class SizeModel:
    """Log size = mean of the state + shift of the condition + spread of the state · residual.

    The size is independent of the latent within a state and condition. A context may have sizes of
    its own in states that it shares with others, and a perturbation may change them, as it must
    where the library is the total of a panel of few genes.

    Attributes
    ----------
    mean_S, spread_S
        Mean of the log size in each state, of control cells where there are any, and its standard
        deviation about the means of conditions.
    quantiles
        Of the standardised residuals of all cells.
    shift
        What conditions of training add to the log size.
    """

    mean_S: np.ndarray
    spread_S: np.ndarray
    quantiles: np.ndarray
    shift: Mapping[Condition, float] = field(default_factory=dict)

    @classmethod
    def fit(
        cls, size_factors: np.ndarray, state_N: np.ndarray, n_states: int, table: ConditionTable
    ) -> SizeModel:
        """Learn from the size factors of N cells, the state of each, and their conditions.

        A ridge regression of log sizes: states of few cells are drawn to all cells, as if these had
        been seen in 10, conditions to no shift, by the ratio of the variance of sizes
        within conditions to that between them.
        """
        log_size_N = np.log(size_factors.astype(np.float64))
        mean_S, shift_C = _regress(log_size_N, state_N, n_states, table)
        away_N = log_size_N - shift_C[table.index] - mean_S[state_N]
        n_S = np.bincount(state_N, minlength=n_states)
        spread_S = np.bincount(state_N, away_N**2, n_states) + PRIOR_CELLS * (away_N**2).mean()
        spread_S = np.sqrt(spread_S / (n_S + PRIOR_CELLS)).clip(1e-6)
        residual_N = away_N / spread_S[state_N]
        quantiles = np.quantile(residual_N, np.linspace(0, 1, N_QUANTILES))
        known = zip(table.conditions, shift_C.tolist(), strict=True)
        return cls(mean_S, spread_S, quantiles, dict(known))

    def shifts(self, conditions: Sequence[Condition]) -> np.ndarray:
        """What Q conditions add to the log size, (Q,).

        One never seen adds to its controls' what its perturbations do alone, in the mean over
        training conditions.
        """
        alone: dict[tuple[str, ...], list[float]] = {}
        for condition, shift in self.shift.items():
            of_control = self.shift.get(condition.control(), 0.0)
            alone.setdefault(condition.parts, []).append(shift - of_control)
        mean = {parts: float(np.mean(shifts)) for parts, shifts in alone.items()}

        def of(condition: Condition) -> float:
            apart = sum(mean.get((part,), 0.0) for part in condition.parts)
            of_control = self.shift.get(condition.control(), 0.0)
            return self.shift.get(condition, of_control + mean.get(condition.parts, apart))

        return np.array([of(condition) for condition in conditions])

    def __call__(
        self, state_B: np.ndarray, shift_B: np.ndarray, uniform_B: np.ndarray
    ) -> np.ndarray:
        """Sizes of cells in the states `state_B` from uniform numbers, in counts, float32."""
        grid = np.linspace(0, 1, len(self.quantiles))
        residual_B = np.interp(uniform_B, grid, self.quantiles)
        log_size_B = self.mean_S[state_B] + shift_B + self.spread_S[state_B] * residual_B
        return np.exp(log_size_B).astype(np.float32)

    def log_densities(self, size_B: np.ndarray, shift_B: np.ndarray) -> np.ndarray:
        """Log density of given sizes in each state, up to a constant, shape (B, S).

        As if log sizes were t-distributed: normal tails would make too much of unusual sizes.
        """
        log_size_B1 = (np.log(size_B.astype(np.float64)) - shift_B)[:, None]
        away_BS = (log_size_B1 - self.mean_S) / self.spread_S
        return np.asarray(-(N_TAIL + 1) / 2 * np.log1p(away_BS**2 / N_TAIL) - np.log(self.spread_S))

    def with_earlier(self, earlier: SizeModel, kept: np.ndarray) -> SizeModel:
        """Together with some states of an earlier training, and its perturbations."""
        return replace(
            self,
            mean_S=np.append(self.mean_S, earlier.mean_S[kept]),
            spread_S=np.append(self.spread_S, earlier.spread_S[kept]),
            shift={**earlier.shift, **self.shift},
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays, for safetensors."""
        return {"mean_S": self.mean_S, "spread_S": self.spread_S, "quantiles": self.quantiles}

    def to_config(self) -> dict[str, Any]:
        """Everything but the arrays, for JSON."""
        return {"shift": [[condition.to_list(), x] for condition, x in self.shift.items()]}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> SizeModel:
        """Rebuild what :meth:`to_config` and :meth:`arrays` wrote; older models shift nothing."""
        shift = {Condition.from_list(entry): float(x) for entry, x in config.get("shift", [])}
        return cls(**arrays, shift=shift)


def _regress(
    log_size_N: np.ndarray, state_N: np.ndarray, n_states: int, table: ConditionTable
) -> tuple[np.ndarray, np.ndarray]:
    """Ridge regression on states and perturbed conditions: means (S,), shifts (C,)."""
    n_cells, overall = len(log_size_N), log_size_N.mean()
    shape = len(table), n_states
    cells_CS = sparse.csr_matrix((np.ones(n_cells), (table.index, state_N)), shape)
    sums_CS = sparse.csr_matrix((log_size_N - overall, (table.index, state_N)), shape)
    n_C, n_S = (np.asarray(cells_CS.sum(axis)).ravel() for axis in (1, 0))
    sums_C, sums_S = (np.asarray(sums_CS.sum(axis)).ravel() for axis in (1, 0))
    # Controls are what shifts are measured from.
    free_C = np.array([not c.is_control for c in table.conditions]) & (n_C > 0)
    own_CS, own_n_C = cells_CS[free_C], n_C[free_C]
    away_C = sums_C[free_C] - own_CS @ (sums_S / n_S.clip(1))
    place_N = table.index * n_states + state_N
    means_N = (np.bincount(place_N, log_size_N) / np.bincount(place_N).clip(1))[place_N]
    within = max(float(((log_size_N - means_N) ** 2).mean()), LEAST_VARIANCE)

    def tied(away_C: np.ndarray, n_C: np.ndarray) -> np.ndarray:
        """Cells of each condition and, as if measured in more, how strongly it is tied to none."""
        between = float((away_C**2 / n_C - within).sum() / max(n_C.sum(), 1))
        found_C: np.ndarray = n_C + within / max(between, LEAST_VARIANCE)
        return found_C

    tied_C = tied(away_C, own_n_C)
    # Shifts are eliminated first, so that what is solved is as large as there are states.
    normal_SS = np.diag(n_S + PRIOR_CELLS) - (own_CS.T @ sparse.diags(1 / tied_C) @ own_CS)
    mean_S = np.linalg.solve(np.asarray(normal_SS), sums_S - own_CS.T @ (sums_C[free_C] / tied_C))
    shift_C = np.zeros(len(table))
    shift_C[free_C] = (sums_C[free_C] - own_CS @ mean_S) / tied_C
    # What is left are contexts whose controls differ from others' in the same states.
    control_C = ~free_C & (n_C > 0)
    left_C = sums_C[control_C] - cells_CS[control_C] @ mean_S
    shift_C[control_C] = left_C / tied(left_C, n_C[control_C])
    return overall + mean_S, shift_C
