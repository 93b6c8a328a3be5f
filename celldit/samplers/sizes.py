"""Library sizes of new cells, learned for each context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from celldit.conditions import ConditionTable
from celldit.conditions.population import Surroundings

N_QUANTILES = 101
PRIOR_CELLS = 10


@dataclass(frozen=True, eq=False)
class SizeModel:
    """Log size = mean + spread · residual, mean and spread of the context, residuals of all cells.

    The size is independent of the latent within a context: most of what ties the two in measured
    cells is that shallow cells have noisier latents, which drawing counts brings about by itself.

    Attributes
    ----------
    surroundings
        The X contexts of training.
    mean_X, spread_X
        Mean and standard deviation of the log size; one more at the end, for any other context.
    quantiles
        Of the standardised residuals of all cells.
    """

    surroundings: tuple[Surroundings, ...]
    mean_X: np.ndarray
    spread_X: np.ndarray
    quantiles: np.ndarray

    @classmethod
    def fit(
        cls, size_factors: np.ndarray, where: Sequence[Surroundings], table: ConditionTable
    ) -> SizeModel:
        """Learn from the size factors of N cells and the context of each condition.

        Contexts of few cells are drawn to all cells, as if these had been seen in 10.
        """
        log_size = np.log(size_factors.astype(np.float64))
        keys = tuple(dict.fromkeys(where))
        row_of = {key: x for x, key in enumerate(keys)}
        row_N = np.array([row_of[key] for key in where])[table.index]
        n_X = np.bincount(row_N, minlength=len(keys))
        overall = log_size.mean()
        mean_X = np.bincount(row_N, log_size, len(keys)) + PRIOR_CELLS * overall
        mean_X = mean_X / (n_X + PRIOR_CELLS)
        squared = (log_size - mean_X[row_N]) ** 2
        spread_X = np.bincount(row_N, squared, len(keys)) + PRIOR_CELLS * squared.mean()
        spread_X = np.sqrt(spread_X / (n_X + PRIOR_CELLS)).clip(1e-6)
        residual = (log_size - mean_X[row_N]) / spread_X[row_N]
        quantiles = np.quantile(residual, np.linspace(0, 1, N_QUANTILES))
        return cls(
            keys,
            np.append(mean_X, overall),
            np.append(spread_X, max(float(log_size.std()), 1e-6)),
            quantiles,
        )

    def __call__(self, row_B: np.ndarray, uniform_B: np.ndarray) -> np.ndarray:
        """Sizes of cells in the contexts `row_B` from uniform numbers, in counts, float32."""
        grid = np.linspace(0, 1, len(self.quantiles))
        residual_B = np.interp(uniform_B, grid, self.quantiles)
        log_size_B = self.mean_X[row_B] + self.spread_X[row_B] * residual_B
        return np.exp(log_size_B).astype(np.float32)

    def row(self, surroundings: Surroundings) -> int:
        """Which mean and spread belong to a context; the last for one not in training."""
        known = self.surroundings
        return known.index(surroundings) if surroundings in known else len(known)

    def to_config(self) -> dict[str, Any]:
        """Everything but the arrays, for JSON."""
        return {"surroundings": [list(key) for key in self.surroundings]}

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays, for safetensors."""
        return {"mean_X": self.mean_X, "spread_X": self.spread_X, "quantiles": self.quantiles}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> SizeModel:
        """Rebuild what :meth:`to_config` and :meth:`arrays` wrote."""
        keys = tuple((context, time) for context, time in config["surroundings"])
        return cls(keys, arrays["mean_X"], arrays["spread_X"], arrays["quantiles"])
