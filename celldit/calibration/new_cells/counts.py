"""Counts of new cells: negative binomial genes under a total that is held."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from celldit.calibration.new_cells.quantiles import CountQuantiles
from celldit.latent.likelihoods import MAX_RATE, CountModel, as_array

MAX_LOG_FACTOR = 5.0


@dataclass(frozen=True)
class NewCounts(CountModel):
    """Negative binomial counts of cells whose genes compete for one library.

    Each gene's rate gets its gamma factor, then all rates of a cell are multiplied by one number
    that leaves only a `share` of the deviation of their log total from what is usual in the
    context. Genes that were independent given the latent would add up to totals that vary too much:
    in a measured cell, where one gene takes more of the library, others get less. Counts then take
    the distribution that each gene has in measured cells.

    Attributes
    ----------
    size_B
        Size factors.
    theta_G
        Inverse dispersion of each gene, or one for each cell and gene, shape (B, G).
    total_B
        Log total of each cell's expected rates per 10,000.
    share
        How much of a deviation from it stays; 1 leaves the genes independent.
    before_BG
        Expected counts before they are brought to other distributions; what they are drawn from.
    count_quantiles, group_B
        These distributions, and that of each cell; -1 for cells whose counts stay as drawn.
    """

    size_B: Tensor
    total_B: Tensor
    share: float
    before_BG: Tensor
    count_quantiles: CountQuantiles
    group_B: np.ndarray

    def draw(self, cell: int, rng: np.random.Generator) -> np.ndarray:
        """Draw the counts of one cell, int64, shape (G,)."""
        own = slice(cell, cell + 1)
        mean_1G = as_array(self.before_BG[own])
        theta_1G = as_array(self.theta_G if self.theta_G.ndim == 1 else self.theta_G[own])
        depth = float(self.size_B[cell]) / 1e4
        rate_1G = mean_1G / depth * rng.standard_gamma(theta_1G, mean_1G.shape) / theta_1G
        rate_1G *= held_total(rate_1G, as_array(self.total_B[own]), self.share)[:, None]
        expected_1G = np.minimum(rate_1G * depth, MAX_RATE)
        counts_1G = rng.poisson(expected_1G)
        uniform_1G = rng.random(counts_1G.shape)
        moved = self.count_quantiles.moved(counts_1G, expected_1G, self.group_B[own], uniform_1G)
        return moved[0]

    @classmethod
    def held(
        cls,
        mean_BG: Tensor,
        theta_G: Tensor,
        size_B: Tensor,
        total_B: Tensor,
        share: float,
        count_quantiles: CountQuantiles,
        row_B: np.ndarray,
    ) -> NewCounts:
        """From expectations of independent genes, whose totals are held to a share, too.

        Parameters
        ----------
        mean_BG, theta_G, size_B
            Expected counts, inverse dispersions and size factors.
        total_B
            Usual log total of rates per 10,000 in each cell's context.
        share
            How much of a deviation from it stays.
        count_quantiles, row_B
            Distributions of counts, and the state of each cell.
        """
        rate_BG = as_array(mean_BG) / (as_array(size_B) / 1e4)[:, None]
        factor_B = torch.from_numpy(held_total(rate_BG, as_array(total_B), share))
        before_BG = mean_BG * factor_B.to(mean_BG.dtype)[:, None]
        # The gamma factors move the total from here, and only a share of that stays, too.
        reached_B = torch.log((before_BG.sum(1) * 1e4 / size_B).clamp_min(1e-12))
        group_B = count_quantiles.groups(size_B.numpy(), row_B)
        mean_BG = torch.from_numpy(before_BG.numpy() * count_quantiles.factors(group_B))
        return cls(mean_BG, theta_G, size_B, reached_B, share, before_BG, count_quantiles, group_B)


def held_total(rate_BG: np.ndarray, total_B: np.ndarray, share: float) -> np.ndarray:
    """The number for each cell that leaves a share of its log total's deviation from `total_B`."""
    away_B = np.log(rate_BG.sum(1).clip(1e-12)) - total_B
    return np.exp(((share - 1) * away_B).clip(-MAX_LOG_FACTOR, MAX_LOG_FACTOR))
