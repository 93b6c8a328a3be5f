"""Expected log expression of cells whose counts are edited, in closed form but for one integral.

A mean of log(1 + k Y), k transcripts per 10,000 for one count, follows from the Laplace transform
of the count Y by Frullani's integral,

    E log(1 + k Y) = ∫₀^∞ (1 - E exp(-s k Y)) exp(-s) / s ds,

and an edited count (:meth:`celldit.latent.likelihoods.CountModel.draw_counterfactual`) has a simple
one: of the x transcripts seen each stays with probability p, and new ones follow a negative
binomial with mean m and inverse dispersion r, so that with q = 1 - exp(-s k)

    E exp(-s k Y) = (1 - p q)^x (1 + m q / r)^(-r).

No draws are needed, so that what is learned from it has no noise of its own.

A cell whose counts nobody has seen has the same with x = 0 and r = θ, so that the mean log
expression of a population is a mean over its cells of one function of the log rate for each gene
(:class:`LogExpression`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# Nodes of the trapezoidal rule in log s; more change log expression by less than 0.01.
N_NODES = 18
# The integral is cut where s k Y is too small to matter, and where exp(-s) is.
LOWEST, HIGHEST = -5.5, 3.2
# Log rates, counts per 10,000, from silence to all that a cell has, at which it is tabulated.
STEP = 0.25
GRID = np.arange(-7.0, math.log(1e4) + STEP, STEP)


def expected_log(
    counts_BG: Tensor, mean_BG: Tensor, new_mean_BG: Tensor, theta_G: Tensor, size_B: Tensor
) -> Tensor:
    """Expected log(1 + 10,000 Y / size) of edited counts Y, shape (B, G).

    From the counts seen, their expectation, and that under the counterfactual; theta are inverse
    dispersions, sizes those of libraries.
    """
    scale_B1 = (1e4 / size_B)[:, None].to(mean_BG)
    kept_BG = (new_mean_BG / mean_BG.clamp_min(1e-12)).clamp_max(1)
    # m / r of the new ones: the rate of a cell is (x + θ) / (μ + θ), their dispersion x + θ.
    new_BG = (new_mean_BG - mean_BG).clamp_min(0) / (mean_BG + theta_G)
    shape_BG = counts_BG + theta_G
    most = max(float(counts_BG.max()), float(new_mean_BG.max()), 1.0) * float(scale_B1.max())
    lowest = LOWEST - math.log(max(most, 1.0))
    nodes = torch.linspace(lowest, HIGHEST, N_NODES, dtype=mean_BG.dtype)
    step = float(nodes[1] - nodes[0])
    total_BG = torch.zeros_like(mean_BG)
    for s in nodes.exp().tolist():
        q_B1 = -torch.expm1(-s * scale_B1)
        # A whole loss at large s is minus infinity, and nothing times that is not a number.
        log_BG = counts_BG * torch.log1p(-(kept_BG * q_B1).clamp_max(1 - 1e-6))
        log_BG = log_BG - shape_BG * torch.log1p(new_BG * q_B1)
        total_BG -= torch.expm1(log_BG) * (math.exp(-s) * step)
    return total_BG


@dataclass(frozen=True, eq=False)
class LogExpression:
    """Expected log expression of each gene as a function of its log rate."""

    table_PG: Tensor  # at the points of GRID, over cells of some library sizes

    @classmethod
    def of(cls, theta_G: Tensor, sizes: np.ndarray) -> LogExpression:
        """Tabulate it for genes of inverse dispersion `theta_G`, in cells of some library sizes."""
        rate_P1 = torch.from_numpy(np.exp(GRID)).float()[:, None]
        unseen_PG = torch.zeros(len(GRID), len(theta_G))
        each = [
            expected_log(
                unseen_PG,
                unseen_PG,
                (rate_P1 * (size / 1e4)).expand_as(unseen_PG),
                theta_G,
                torch.full((len(GRID),), size),
            )
            for size in sizes.tolist()
        ]
        return cls(torch.stack(each).mean(0))

    def shares(self, log_rate_NG: Tensor) -> Tensor:
        """How many of N cells are at each point of the grid, as shares, shape (P, G).

        A cell between two points counts for both, by how near it is.
        """
        place_NG = ((log_rate_NG - GRID[0]) / STEP).clamp(0, len(GRID) - 1 - 1e-4)
        low_NG = place_NG.floor()
        high_NG = (place_NG - low_NG) / len(log_rate_NG)
        index_NG, low_share_NG = low_NG.long(), 1 / len(log_rate_NG) - high_NG
        shares_PG = torch.zeros_like(self.table_PG)
        shares_PG.scatter_add_(0, index_NG, low_share_NG)
        return shares_PG.scatter_add_(0, index_NG + 1, high_NG)

    def means(self, shares_PG: Tensor, steps: list[int]) -> Tensor:
        """Mean log expression when all log rates grow by so many steps, (len(steps), G).

        Rates beyond the ends of the grid count as those at the ends.
        """
        last = len(self.table_PG) - 1
        moved = [(torch.arange(last + 1) + step).clamp(0, last) for step in steps]
        return torch.stack([(shares_PG * self.table_PG[at]).sum(0) for at in moved])
