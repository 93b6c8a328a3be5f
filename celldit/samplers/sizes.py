"""Library sizes of new cells, learned for each context."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

N_QUANTILES = 101
PRIOR_CELLS = 10


@dataclass(frozen=True, eq=False)
class SizeModel:
    """Log size = mean + spread · residual, mean and spread of the context, residuals of all cells.

    The size is independent of the latent within a context: most of what ties the two in measured
    cells is that shallow cells have noisier latents, which drawing counts brings about by itself.

    Attributes
    ----------
    mean_X, spread_X
        Mean and standard deviation of the log size in each context of training; one more at the
        end, for any other.
    quantiles
        Of the standardised residuals of all cells.
    """

    mean_X: np.ndarray
    spread_X: np.ndarray
    quantiles: np.ndarray

    @classmethod
    def fit(cls, size_factors: np.ndarray, row_N: np.ndarray) -> SizeModel:
        """Learn from the size factors of N cells and the context of each, numbered from 0.

        Contexts of few cells are drawn to all cells, as if these had been seen in 10.
        """
        log_size = np.log(size_factors.astype(np.float64))
        n_contexts = int(row_N.max()) + 1
        n_X = np.bincount(row_N, minlength=n_contexts)
        overall = log_size.mean()
        mean_X = np.bincount(row_N, log_size, n_contexts) + PRIOR_CELLS * overall
        mean_X = mean_X / (n_X + PRIOR_CELLS)
        squared = (log_size - mean_X[row_N]) ** 2
        spread_X = np.bincount(row_N, squared, n_contexts) + PRIOR_CELLS * squared.mean()
        spread_X = np.sqrt(spread_X / (n_X + PRIOR_CELLS)).clip(1e-6)
        residual = (log_size - mean_X[row_N]) / spread_X[row_N]
        quantiles = np.quantile(residual, np.linspace(0, 1, N_QUANTILES))
        return cls(
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

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays, for safetensors."""
        return {"mean_X": self.mean_X, "spread_X": self.spread_X, "quantiles": self.quantiles}
