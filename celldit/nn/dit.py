"""The diffusion transformer: a velocity field over latent tokens, silent until trained.

Peebles & Xie 2023 ("Scalable diffusion models with transformers") for the AdaLN-Zero block. What
differs: tokens have no position but an identity, each its own projection in and out, and each
receives its own part of the condition beside its value.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from celldit.nn.attention import MLP, Attention
from celldit.nn.embeddings import TimeEmbedding
from celldit.nn.per_token import PerTokenLinear


@dataclass(frozen=True)
class DiTConfig:
    """Size of a :class:`DiT`.

    Attributes
    ----------
    width, depth, n_heads
        Width of a token, number of blocks, heads per block.
    mlp_ratio
        Hidden width of a block's perceptron over `width`.
    dropout
        Dropout in attention and perceptron.
    """

    width: int = 64
    depth: int = 3
    n_heads: int = 4
    mlp_ratio: float = 2.0
    dropout: float = 0.1


def zero_linear(n_in: int, n_out: int) -> nn.Linear:
    """A linear layer that returns zero until trained."""
    layer = nn.Linear(n_in, n_out)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class DiTBlock(nn.Module):
    """Pre-norm attention and perceptron, scaled, shifted and gated by the condition.

    The six modulations come from one linear layer that starts at zero, so a new block is the
    identity (AdaLN-Zero).
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        width = config.width
        self.norm_attention = nn.RMSNorm(width, eps=1e-6, elementwise_affine=False)
        self.attention = Attention(width, config.n_heads, config.dropout)
        self.norm_mlp = nn.RMSNorm(width, eps=1e-6, elementwise_affine=False)
        self.mlp = MLP(width, int(config.mlp_ratio * width), config.dropout)
        self.modulation = nn.Sequential(nn.SiLU(), zero_linear(width, 6 * width))

    def forward(self, x_BKW: Tensor, condition_BW: Tensor) -> Tensor:
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.modulation(condition_BW)[
            :, None
        ].chunk(6, dim=-1)  # each (B, 1, W)
        h_BKW = self.norm_attention(x_BKW) * (1 + scale_a) + shift_a
        x_BKW = x_BKW + gate_a * self.attention(h_BKW, h_BKW)
        h_BKW = self.norm_mlp(x_BKW) * (1 + scale_m) + shift_m
        return x_BKW + gate_m * self.mlp(h_BKW)


class DiT(nn.Module):
    """Velocity ``v(x_t, t, condition)`` over K latent tokens of D dimensions.

    Parameters
    ----------
    n_tokens, token_dim
        K and D.
    n_token_features
        Features of the condition that belong to one token (its part of the effect, and so on).
    n_features
        Features of the condition as a whole.
    config
        The size.

    Notes
    -----
    The output projection starts at zero: an untrained DiT returns zero velocity everywhere, and
    the flow leaves its source where it is.
    """

    def __init__(
        self,
        n_tokens: int,
        token_dim: int,
        n_token_features: int,
        n_features: int,
        config: DiTConfig,
    ) -> None:
        super().__init__()
        width = config.width
        self.project_in = PerTokenLinear(n_tokens, token_dim + n_token_features, width)
        self.time = TimeEmbedding(width)
        self.condition = nn.Sequential(
            nn.Linear(n_features, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.blocks = nn.ModuleList(DiTBlock(config) for _ in range(config.depth))
        self.modulation = nn.Sequential(nn.SiLU(), zero_linear(width, 2 * width))
        self.norm_out = nn.RMSNorm(width, eps=1e-6, elementwise_affine=False)
        self.project_out = PerTokenLinear(n_tokens, width, token_dim, zero=True)

    def forward(
        self, x_BKD: Tensor, t_B: Tensor, token_features_BKF: Tensor, features_BC: Tensor
    ) -> Tensor:
        x_BKW = self.project_in(torch.cat([x_BKD, token_features_BKF], dim=-1))
        condition_BW = self.time(t_B) + self.condition(features_BC)
        for block in self.blocks:
            x_BKW = block(x_BKW, condition_BW)
        shift, scale = self.modulation(condition_BW)[:, None].chunk(2, dim=-1)  # each (B, 1, W)
        return self.project_out(self.norm_out(x_BKW) * (1 + scale) + shift)  # (B, K, D)
