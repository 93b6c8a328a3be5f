"""Expected log expression of cells whose counts are edited, in closed form but for one integral.

A mean of log(1 + k Y), k transcripts per 10,000 for one count, follows from the Laplace transform
of the count Y by Frullani's integral,

    E log(1 + k Y) = ∫₀^∞ (1 - E exp(-s k Y)) exp(-s) / s ds,

and an edited count (:meth:`celldit.latent.likelihoods.CountModel.draw_counterfactual`) has a simple
one: of the x transcripts seen each stays with probability p, and new ones follow a negative
binomial with mean m and inverse dispersion r, so that with q = 1 - exp(-s k)

    E exp(-s k Y) = (1 - p q)^x (1 + m q / r)^(-r).

No draws are needed, so that what is learned from it has no noise of its own.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Nodes of the trapezoidal rule in log s; more change log expression by less than 0.01.
N_NODES = 18
# The integral is cut where s k Y is too small to matter, and where exp(-s) is.
LOWEST, HIGHEST = -5.5, 3.2


def expected_log(
    counts_BG: Tensor, mean_BG: Tensor, new_mean_BG: Tensor, theta_G: Tensor, size_B: Tensor
) -> Tensor:
    """Expected log(1 + 10,000 Y / size) of edited counts Y, shape (B, G).

    Parameters
    ----------
    counts_BG, mean_BG, new_mean_BG
        Counts seen, their expectation, and that under the counterfactual.
    theta_G, size_B
        Inverse dispersions and library sizes.
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
