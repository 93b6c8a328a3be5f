"""A plainer velocity field to compare the DiT with: a perceptron over all tokens.

It has the arguments of :class:`celldit.nn.dit.DiT`, and an output projection that starts at zero,
so that an untrained network leaves the source where it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from celldit.nn.attention import MLP
from celldit.nn.layers import TimeEmbedding, zero_linear


@dataclass(frozen=True)
class MLPConfig:
    """Size of a :class:`VelocityMLP`.

    Attributes
    ----------
    width, depth
        Width of the hidden state, number of blocks.
    mlp_ratio
        Hidden width of a block over `width`.
    dropout
        In the blocks.
    """

    width: int = 256
    depth: int = 3
    mlp_ratio: float = 2.0
    dropout: float = 0.1


class ConditionedBlock(nn.Module):
    """Residual perceptron on the last dimension, modulated by the condition; silent until trained.

    The half of a DiT block that does not mix tokens.
    """

    def __init__(self, width: int, n_condition: int, mlp_ratio: float, dropout: float) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width, eps=1e-6, elementwise_affine=False)
        self.mlp = MLP(width, int(mlp_ratio * width), dropout)
        self.modulation = nn.Sequential(nn.SiLU(), zero_linear(n_condition, 3 * width))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Both of shape (B, ..., W), the condition broadcasting against the state."""
        shift, scale, gate = self.modulation(condition).chunk(3, dim=-1)
        return x + gate * self.mlp(self.norm(x) * (1 + scale) + shift)


class VelocityMLP(nn.Module):
    """Velocity over K tokens of D dimensions that sees them as one vector."""

    def __init__(
        self,
        n_tokens: int,
        token_dim: int,
        n_token_features: int,
        n_features: int,
        config: MLPConfig,
    ) -> None:
        super().__init__()
        width = config.width
        self.project_in = nn.Linear(n_tokens * (token_dim + n_token_features), width)
        self.time = TimeEmbedding(width)
        self.condition = nn.Sequential(
            nn.Linear(n_features, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.blocks = nn.ModuleList(
            ConditionedBlock(width, width, config.mlp_ratio, config.dropout)
            for _ in range(config.depth)
        )
        self.norm_out = nn.RMSNorm(width, eps=1e-6, elementwise_affine=False)
        self.project_out = zero_linear(width, n_tokens * token_dim)

    def forward(
        self, x_BKD: Tensor, t_B: Tensor, token_features_BKF: Tensor, features_BC: Tensor
    ) -> Tensor:
        x_BW = self.project_in(torch.cat([x_BKD, token_features_BKF], dim=-1).flatten(1))
        condition_BW = self.time(t_B) + self.condition(features_BC)
        for block in self.blocks:
            x_BW = block(x_BW, condition_BW)
        return self.project_out(self.norm_out(x_BW)).view(x_BKD.shape)  # (B, K, D)
