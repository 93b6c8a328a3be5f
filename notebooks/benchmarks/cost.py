"""What a velocity network costs, counted without making it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from celldit.nn.dit import DiT, DiTConfig
from celldit.nn.views import TokenViews, ViewedDiT


@dataclass(frozen=True)
class Cost:
    """What a network costs.

    Attributes
    ----------
    parameters
        Number of weights.
    flops
        Floating-point operations of matrix products in one velocity of one cell, a multiplication
        and an addition counted as two. A step of training takes three times as many, a prediction
        with the default solver (8 steps of Heun) 16 times.
    """

    parameters: int
    flops: int


def cost_of(config: DiTConfig, n_tokens: int = 6, token_dim: int = 8, n_features: int = 4) -> Cost:
    """Count weights and operations of a DiT.

    Parameters
    ----------
    config
        The size.
    n_tokens, token_dim
        Tokens K of the latent and their dimensions D; the network's own are views of it, unless
        its configuration says otherwise.
    n_features
        Features of the condition as a whole.
    """
    with torch.device("meta"):
        network: nn.Module = DiT(n_tokens, token_dim, 2 * token_dim, n_features, config)
        if config.tokens != "latent":
            shape = config.n_views, n_tokens * token_dim, config.view_values
            identity_T = torch.zeros(config.n_views, dtype=torch.int64)
            network = ViewedDiT(TokenViews(torch.zeros(shape), identity_T), n_features, config)
        network.eval()
        x_BKD = torch.zeros(1, n_tokens, token_dim)
        known_BKF = torch.zeros(1, n_tokens, 2 * token_dim)
        inputs = x_BKD, torch.zeros(1), known_BKF, torch.zeros(1, n_features)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(*inputs)
    return Cost(sum(p.numel() for p in network.parameters()), counter.get_total_flops())
