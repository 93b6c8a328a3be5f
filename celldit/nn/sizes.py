"""Named sizes of the diffusion transformer, with what each costs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from celldit.errors import UnknownNameError
from celldit.nn.dit import DiT, DiTConfig
from celldit.nn.views import TokenViews, ViewedDiT

SIZES: dict[str, DiTConfig] = {
    "celldit-S": DiTConfig(width=64, depth=2, n_heads=4),
    "celldit-B": DiTConfig(width=256, depth=8, n_heads=8, mlp_ratio=4.0),
    "celldit-L": DiTConfig(width=768, depth=12, n_heads=12, mlp_ratio=4.0),
    "celldit-XL": DiTConfig(width=1152, depth=28, n_heads=16, mlp_ratio=4.0),
}
"""``celldit-S`` is the default; each of the others is meant for ten times the cells or more."""


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


def size_of(name: str) -> DiTConfig:
    """Look up a size by its name, ``"celldit-B"`` or ``"B"`` for short.

    Raises
    ------
    UnknownNameError
        If there is no such size; names those that exist.
    """
    for full, config in SIZES.items():
        if name.lower() in (full.lower(), full.removeprefix("celldit-").lower()):
            return config
    raise UnknownNameError.among("size", name, SIZES)


def cost_of(config: DiTConfig, n_tokens: int = 6, token_dim: int = 8, n_features: int = 4) -> Cost:
    """Count weights and operations of a DiT without making it.

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
        told_BKF = torch.zeros(1, n_tokens, 2 * token_dim)
        inputs = x_BKD, torch.zeros(1), told_BKF, torch.zeros(1, n_features)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(*inputs)
    return Cost(sum(p.numel() for p in network.parameters()), counter.get_total_flops())
