"""Counts of new cells: negative binomial genes under a total that is held."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from celldit.calibration.new_cells.quantiles import CellQuantiles
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
    count_quantiles
        These distributions; None where counts stay as they are drawn.
    """

    size_B: Tensor
    total_B: Tensor
    share: float
    before_BG: Tensor
    count_quantiles: CellQuantiles | None = None

    def draw(self, cell: int, rng: np.random.Generator) -> np.ndarray:
        """Draw the counts of one cell, int64, shape (G,)."""
        mean_G = as_array(self.before_BG[cell])
        theta_G = as_array(self.theta_G if self.theta_G.ndim == 1 else self.theta_G[cell])
        depth = float(self.size_B[cell]) / 1e4
        rate_G = mean_G / depth * rng.standard_gamma(theta_G) / theta_G
        total_1 = self.total_B[cell : cell + 1].double().numpy()
        rate_G *= held_total(rate_G[None], total_1, self.share)[0]
        expected_G = np.minimum(rate_G * depth, MAX_RATE)
        counts_G = rng.poisson(expected_G)
        if self.count_quantiles is None:
            return counts_G
        return self.count_quantiles.moved(cell, counts_G, expected_G, rng)

    @classmethod
    def held(
        cls,
        mean_BG: Tensor,
        theta_G: Tensor,
        size_B: Tensor,
        total_B: Tensor,
        share: float,
        count_quantiles: CellQuantiles | None = None,
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
        count_quantiles
            As in the class.
        """
        rate_BG = as_array(mean_BG) / (as_array(size_B) / 1e4)[:, None]
        factor_B = torch.from_numpy(held_total(rate_BG, as_array(total_B), share))
        mean_BG = mean_BG * factor_B.to(mean_BG.dtype)[:, None]
        # The gamma factors move the total from here, and only a share of that stays, too.
        reached_B = torch.log((mean_BG.sum(1) * 1e4 / size_B).clamp_min(1e-12))
        before_BG = mean_BG
        if count_quantiles is not None:
            mean_BG = torch.from_numpy(count_quantiles.means(before_BG.numpy()))
        return cls(mean_BG, theta_G, size_B, reached_B, share, before_BG, count_quantiles)


def held_total(rate_BG: np.ndarray, total_B: np.ndarray, share: float) -> np.ndarray:
    """The number for each cell that leaves a share of its log total's deviation from `total_B`."""
    away_B = np.log(rate_BG.sum(1).clip(1e-12)) - total_B
    return np.exp(((share - 1) * away_B).clip(-MAX_LOG_FACTOR, MAX_LOG_FACTOR))
