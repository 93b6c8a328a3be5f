"""How counts scatter around their expectation, and what they become when the expectation changes.

The negative binomial with mean μ and inverse dispersion θ is a Poisson with a gamma rate: the cell
has g ~ Gamma(θ, θ) per gene, and its count is Poisson(μ g); the variance is μ + μ²/θ. Drawing counts
is the samplers' work (:mod:`celldit.samplers.counts`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MAX_LOG_RATE = 12.0


@dataclass(frozen=True)
class CountModel:
    """Counts of B cells and G genes.

    Attributes
    ----------
    mean_BG
        Expected counts.
    theta_G
        Inverse dispersion of each gene; large is Poisson.
    """

    mean_BG: Tensor
    theta_G: Tensor

    def log_prob(self, counts_BG: Tensor) -> Tensor:
        """Log probability of each count, shape (B, G)."""
        mean, theta, x = self.mean_BG, self.theta_G, counts_BG
        log_total = torch.log(theta + mean)
        return (
            torch.lgamma(x + theta)
            - torch.lgamma(theta)
            - torch.lgamma(x + 1)
            + theta * (torch.log(theta) - log_total)
            + x * (torch.log(mean + 1e-12) - log_total)
        )

    def counterfactual_mean(self, counts_BG: Tensor, new_mean_BG: Tensor) -> Tensor:
        """Expected counts of the same cells had their expectation been another.

        Abduction, action, prediction (Pearl 2009): given what was counted, what would the same cell
        have shown? Where the expectation falls, each transcript that was seen stays with probability
        new / old. Where it rises, those seen stay and new ones come at the cell's own rate, whose
        posterior mean is (x + θ) / (μ + θ). Counts that follow the old distribution become counts
        that follow the new one, and an unchanged expectation gives the cell back exactly.

        Parameters
        ----------
        counts_BG
            Counts observed under this model.
        new_mean_BG
            Their expectation under the counterfactual.

        Returns
        -------
        Tensor
            Shape (B, G).
        """
        kept = counts_BG * (new_mean_BG / self.mean_BG.clamp_min(1e-12)).clamp_max(1)
        rate = (counts_BG + self.theta_G) / (self.mean_BG + self.theta_G)
        return kept + (new_mean_BG - self.mean_BG).clamp_min(0) * rate
