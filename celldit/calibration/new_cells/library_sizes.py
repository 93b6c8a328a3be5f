"""Library sizes of new cells, learned for each state of each context."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

N_QUANTILES = 101
PRIOR_CELLS = 10
N_TAIL = 4


@dataclass(frozen=True, eq=False)
class SizeModel:
    """Log size = mean + spread · residual, mean and spread of the state, residuals of all cells.

    The size is independent of the latent within a state: most of what ties the two in measured
    cells is that shallow cells have noisier latents, which drawing counts brings about by itself.

    Attributes
    ----------
    mean_S, spread_S
        Mean and standard deviation of the log size in each state.
    quantiles
        Of the standardised residuals of all cells.
    """

    mean_S: np.ndarray
    spread_S: np.ndarray
    quantiles: np.ndarray

    @classmethod
    def fit(cls, size_factors: np.ndarray, state_N: np.ndarray, n_states: int) -> SizeModel:
        """Learn from the size factors of N cells and the state of each.

        States of few cells are drawn to all cells, as if these had been seen in 10.
        """
        log_size = np.log(size_factors.astype(np.float64))
        n_S = np.bincount(state_N, minlength=n_states)
        overall = log_size.mean()
        mean_S = np.bincount(state_N, log_size, n_states) + PRIOR_CELLS * overall
        mean_S = mean_S / (n_S + PRIOR_CELLS)
        squared = (log_size - mean_S[state_N]) ** 2
        spread_S = np.bincount(state_N, squared, n_states) + PRIOR_CELLS * squared.mean()
        spread_S = np.sqrt(spread_S / (n_S + PRIOR_CELLS)).clip(1e-6)
        residual = (log_size - mean_S[state_N]) / spread_S[state_N]
        return cls(mean_S, spread_S, np.quantile(residual, np.linspace(0, 1, N_QUANTILES)))

    def __call__(self, state_B: np.ndarray, uniform_B: np.ndarray) -> np.ndarray:
        """Sizes of cells in the states `state_B` from uniform numbers, in counts, float32."""
        grid = np.linspace(0, 1, len(self.quantiles))
        residual_B = np.interp(uniform_B, grid, self.quantiles)
        log_size_B = self.mean_S[state_B] + self.spread_S[state_B] * residual_B
        return np.exp(log_size_B).astype(np.float32)

    def log_densities(self, size_B: np.ndarray) -> np.ndarray:
        """Log density of given sizes in each state, up to a constant, shape (B, S).

        As if log sizes were t-distributed: normal tails would make too much of unusual sizes.
        """
        log_size_B1 = np.log(size_B.astype(np.float64))[:, None]
        away_BS = (log_size_B1 - self.mean_S) / self.spread_S
        return np.asarray(-(N_TAIL + 1) / 2 * np.log1p(away_BS**2 / N_TAIL) - np.log(self.spread_S))

    def with_earlier(self, earlier: SizeModel, kept: np.ndarray) -> SizeModel:
        """Together with some states of an earlier training."""
        return replace(
            self,
            mean_S=np.append(self.mean_S, earlier.mean_S[kept]),
            spread_S=np.append(self.spread_S, earlier.spread_S[kept]),
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays, for safetensors."""
        return {"mean_S": self.mean_S, "spread_S": self.spread_S, "quantiles": self.quantiles}
