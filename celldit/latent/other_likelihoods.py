"""Alternatives to the negative binomial: zero-inflated, Poisson, and Gaussian on log expression."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from celldit.latent.likelihoods import MAX_RATE, CountModel, as_array

# What a negative binomial needs to be a Poisson to four digits at any count.
POISSON_THETA = 1e8


@dataclass(frozen=True)
class PoissonModel:
    """Poisson counts: no scatter between cells beyond what the latent explains.

    Attributes
    ----------
    mean_BG
        Expected counts.
    """

    mean_BG: Tensor

    @property
    def theta_G(self) -> Tensor:
        """Large for every gene."""
        return torch.full_like(self.mean_BG[0], POISSON_THETA, dtype=torch.float64)

    def log_prob(self, counts_BG: Tensor) -> Tensor:
        """Log probability of each count, shape (B, G)."""
        log_mean_BG = torch.log(self.mean_BG + 1e-12)
        return counts_BG * log_mean_BG - self.mean_BG - torch.lgamma(counts_BG + 1)

    def counterfactual_mean(self, counts_BG: Tensor, new_mean_BG: Tensor) -> Tensor:
        """Transcripts seen stay with probability new / old; new ones come at the difference.

        See :meth:`CountModel.counterfactual_mean`; the cell has no rate of its own.
        """
        kept_BG = counts_BG * (new_mean_BG / self.mean_BG.clamp_min(1e-12)).clamp_max(1)
        return kept_BG + (new_mean_BG - self.mean_BG).clamp_min(0)

    def draw(self, cell: int, rng: np.random.Generator) -> np.ndarray:
        """Draw the counts of one cell, int64, shape (G,)."""
        return rng.poisson(np.minimum(as_array(self.mean_BG[cell]), MAX_RATE))

    def draw_counterfactual(
        self, cell: int, seen_G: np.ndarray, new_mean_G: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Draw counterfactual counts of one cell, int64, shape (G,)."""
        mean_G = as_array(self.mean_BG[cell])
        drawn_G = seen_G.astype(np.int64)
        falls = np.flatnonzero((drawn_G > 0) & (new_mean_G < mean_G))
        drawn_G[falls] = rng.binomial(drawn_G[falls], new_mean_G[falls] / mean_G[falls])
        return drawn_G + rng.poisson(np.clip(new_mean_G - mean_G, 0, MAX_RATE))


@dataclass(frozen=True)
class ZeroInflatedModel:
    """Negative binomial counts of which a share, the same in all cells, is replaced by zero.

    The share belongs to the gene and not to the cell (unlike in scVI), so that a perturbation
    acts through the expectation alone.

    Attributes
    ----------
    mean_BG
        Expected counts, replaced zeros included.
    theta_G
        Inverse dispersion of the negative binomial part.
    zeros_G
        Share π of counts replaced by zero, in [0, 1).
    """

    mean_BG: Tensor
    theta_G: Tensor
    zeros_G: Tensor

    @property
    def part(self) -> CountModel:
        """The negative binomial before anything is replaced."""
        return CountModel(self.mean_BG / (1 - self.zeros_G), self.theta_G)

    def _log_zero(self) -> Tensor:
        """Log probability that the negative binomial part is zero, shape (B, G)."""
        log_ratio_BG = torch.log1p(self.part.mean_BG / self.theta_G)
        return -self.theta_G * log_ratio_BG

    def log_prob(self, counts_BG: Tensor) -> Tensor:
        """Log probability of each count, shape (B, G)."""
        log_stay_G = torch.log1p(-self.zeros_G)
        log_replaced_G = torch.log(self.zeros_G.clamp_min(1e-12))
        at_zero_BG = torch.logaddexp(log_replaced_G, log_stay_G + self._log_zero())
        above_BG = log_stay_G + self.part.log_prob(counts_BG)
        return torch.where(counts_BG == 0, at_zero_BG, above_BG)

    def genuine(self) -> Tensor:
        """Probability that an observed zero was not put in its place, shape (B, G)."""
        genuine_BG = (1 - self.zeros_G) * torch.exp(self._log_zero())
        return genuine_BG / (self.zeros_G + genuine_BG).clamp_min(1e-12)

    def counterfactual_mean(self, counts_BG: Tensor, new_mean_BG: Tensor) -> Tensor:
        """The edit of the negative binomial part; a zero that replaced a count stays zero.

        See :meth:`CountModel.counterfactual_mean`.
        """
        edited_BG = self.part.counterfactual_mean(counts_BG, new_mean_BG / (1 - self.zeros_G))
        return torch.where(counts_BG == 0, edited_BG * self.genuine(), edited_BG)

    def draw(self, cell: int, rng: np.random.Generator) -> np.ndarray:
        """Draw the counts of one cell, int64, shape (G,)."""
        drawn_G = self.part.draw(cell, rng)
        return np.where(rng.random(len(drawn_G)) < as_array(self.zeros_G), 0, drawn_G)

    def draw_counterfactual(
        self, cell: int, seen_G: np.ndarray, new_mean_G: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Draw counterfactual counts of one cell, int64, shape (G,)."""
        one = ZeroInflatedModel(self.mean_BG[cell : cell + 1], self.theta_G, self.zeros_G)
        new_G = new_mean_G / (1 - as_array(self.zeros_G))
        drawn_G = one.part.draw_counterfactual(0, seen_G, new_G, rng)
        replaced_G = (seen_G == 0) & (rng.random(len(drawn_G)) >= as_array(one.genuine()[0]))
        return np.where(replaced_G, 0, drawn_G)


@dataclass(frozen=True)
class GaussianModel:
    """Normally distributed log expression, y = log(1 + 10,000 counts / size factor).

    Its likelihood is a density of log expression and no probability of counts: the numbers of the
    other likelihoods do not compare. Counts drawn from it are log-normal, which suits deep data; of
    sparse counts it makes too many high ones.

    Attributes
    ----------
    mean_BG
        The counts at the expected log expression.
    sigma_G
        Standard deviation of log expression.
    size_B
        Size factors.
    """

    mean_BG: Tensor
    sigma_G: Tensor
    size_B: Tensor

    @property
    def theta_G(self) -> Tensor:
        """Large for every gene: counts drawn with it scatter as a Poisson."""
        return torch.full_like(self.sigma_G, POISSON_THETA, dtype=torch.float64)

    def _log(self, counts_BG: Tensor) -> Tensor:
        return torch.log1p(counts_BG * (1e4 / self.size_B[:, None]))

    def log_prob(self, counts_BG: Tensor) -> Tensor:
        """Log density of each log expression, shape (B, G)."""
        error_BG = (self._log(counts_BG) - self._log(self.mean_BG)) / self.sigma_G
        return -0.5 * (error_BG.square() + math.log(2 * math.pi)) - torch.log(self.sigma_G)

    def counterfactual_mean(self, counts_BG: Tensor, new_mean_BG: Tensor) -> Tensor:
        """Add the change of expected log expression to the observed log expression.

        Expression cannot fall below zero. An unchanged expectation gives the cell back exactly.
        """
        log_BG = self._log(counts_BG) + self._log(new_mean_BG) - self._log(self.mean_BG)
        edited_BG = torch.expm1(log_BG.clamp_min(0)) * (self.size_B[:, None] / 1e4)
        return torch.where(new_mean_BG == self.mean_BG, counts_BG, edited_BG)

    def draw(self, cell: int, rng: np.random.Generator) -> np.ndarray:
        """Draw log expression of one cell and round to counts, int64, shape (G,)."""
        scale = float(self.size_B[cell]) / 1e4
        sigma_G = as_array(self.sigma_G)
        log_G = np.log1p(as_array(self.mean_BG[cell]) / scale)
        log_G = np.maximum(log_G + sigma_G * rng.standard_normal(len(sigma_G)), 0)
        return np.rint(np.minimum(np.expm1(log_G) * scale, MAX_RATE)).astype(np.int64)

    def draw_counterfactual(
        self, cell: int, seen_G: np.ndarray, new_mean_G: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """The edited expression of one cell, rounded up or down at random to keep its mean."""
        mean_1G = self.mean_BG[cell : cell + 1].double()
        one = GaussianModel(mean_1G, self.sigma_G.double(), self.size_B[cell : cell + 1].double())
        seen, new = (torch.from_numpy(a.astype(np.float64))[None] for a in (seen_G, new_mean_G))
        edited_G = np.minimum(as_array(one.counterfactual_mean(seen, new)[0]), MAX_RATE)
        return np.floor(edited_G + rng.random(len(edited_G))).astype(np.int64)
