"""How counts scatter around their expectation, and what they become when the expectation changes.

The negative binomial with mean μ and inverse dispersion θ is a Poisson with a gamma rate: the cell
has g ~ Gamma(θ, θ) per gene, and its count is Poisson(μ g); the variance is μ + μ²/θ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

MAX_LOG_RATE = 12.0
# Rates beyond what 32-bit counts hold are bounded.
MAX_RATE = 1e9


@dataclass(frozen=True)
class CountModel:
    """Negative binomial counts of B cells and G genes."""

    mean_BG: Tensor  # expected counts
    theta_G: Tensor  # inverse dispersion of each gene; large is Poisson

    def counterfactual_mean(self, counts_BG: Tensor, new_mean_BG: Tensor) -> Tensor:
        """Expected counts (B, G) of the same cells had their expectation been another.

        Abduction, action, prediction (Pearl 2009): given what was counted, what would the same cell
        have shown? Where the expectation falls, each transcript that was seen stays with the
        probability new / old. Where it rises, those seen stay and new ones come at the cell's own
        rate, whose posterior mean is (x + θ) / (μ + θ). Counts that follow the old distribution
        become counts that follow the new one, and an unchanged expectation gives the cell back
        exactly.
        """
        kept = counts_BG * (new_mean_BG / self.mean_BG.clamp_min(1e-12)).clamp_max(1)
        rate = (counts_BG + self.theta_G) / (self.mean_BG + self.theta_G)
        return kept + (new_mean_BG - self.mean_BG).clamp_min(0) * rate

    def draw(self, cell: int, rng: np.random.Generator) -> np.ndarray:
        """Draw the counts of one cell, int64, shape (G,)."""
        return poisson_gamma(rng, as_array(self.mean_BG[cell]), as_array(self.theta_G))

    def draw_counterfactual(
        self, cell: int, seen_G: np.ndarray, new_mean_G: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Draw what a cell with counts `seen_G` would have had under another expectation.

        int64, shape (G,). The expectation of the draw is :meth:`counterfactual_mean`; an unchanged
        expectation gives the observed counts back exactly.
        """
        mean_G, theta_G = as_array(self.mean_BG[cell]), as_array(self.theta_G)
        drawn_G = seen_G.astype(np.int64)
        falls = np.flatnonzero((drawn_G > 0) & (new_mean_G < mean_G))
        drawn_G[falls] = rng.binomial(drawn_G[falls], new_mean_G[falls] / mean_G[falls])
        rises = np.flatnonzero(new_mean_G > mean_G)
        shape = seen_G[rises] + theta_G[rises]
        rate = shape / (mean_G[rises] + theta_G[rises])
        drawn_G[rises] += poisson_gamma(rng, (new_mean_G[rises] - mean_G[rises]) * rate, shape)
        return drawn_G


def as_array(tensor: Tensor) -> np.ndarray:
    """A tensor as float64 array."""
    return tensor.detach().double().cpu().numpy()


def poisson_gamma(rng: np.random.Generator, mean: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """Draw negative binomial counts as a Poisson with a gamma rate."""
    rate = mean * rng.standard_gamma(theta) / theta
    return rng.poisson(np.minimum(rate, MAX_RATE))
