"""Plainer velocity fields to compare the DiT with: a perceptron over all tokens, and a U-Net.

Tokens have no order, so in the U-Net there is nothing to convolve: learned mixtures take the place
of strides. Ronneberger et al. 2015 ("U-Net") for the shape, Tolstikhin et al. 2021 ("MLP-Mixer")
for the mixtures of tokens. Both have the arguments of :class:`celldit.nn.dit.DiT`, and an output
projection that starts at zero, so that an untrained network leaves the source where it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from celldit.nn.attention import MLP
from celldit.nn.layers import PerTokenLinear, TimeEmbedding, zero_linear


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


@dataclass(frozen=True)
class UNetConfig:
    """Size of a :class:`TokenUNet`.

    Attributes
    ----------
    width
        Width of a token at full resolution; it doubles at every level.
    levels
        How often the number of tokens is halved; fewer where there are too few tokens.
    mlp_ratio
        Hidden width of a block over the width of its level.
    dropout
        In the blocks.
    """

    width: int = 48
    levels: int = 2
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


class Resample(nn.Module):
    """From K tokens of width W to other numbers of both, by a linear mixture of each."""

    def __init__(self, tokens_in: int, width_in: int, tokens_out: int, width_out: int) -> None:
        super().__init__()
        self.tokens = nn.Linear(tokens_in, tokens_out)
        self.width = nn.Linear(width_in, width_out)

    def forward(self, x_BKW: Tensor) -> Tensor:
        return self.width(self.tokens(x_BKW.transpose(1, 2)).transpose(1, 2))


class TokenUNet(nn.Module):
    """Velocity over K tokens of D dimensions through fewer, wider tokens and back, with skips."""

    def __init__(
        self,
        n_tokens: int,
        token_dim: int,
        n_token_features: int,
        n_features: int,
        config: UNetConfig,
    ) -> None:
        super().__init__()
        width = config.width
        tokens, widths = [n_tokens], [width]
        while len(tokens) <= config.levels and tokens[-1] > 1:
            tokens.append(-(-tokens[-1] // 2))
            widths.append(2 * widths[-1])
        sizes = list(zip(tokens, widths, strict=True))

        def block(level_width: int) -> ConditionedBlock:
            return ConditionedBlock(level_width, width, config.mlp_ratio, config.dropout)

        self.project_in = PerTokenLinear(n_tokens, token_dim + n_token_features, width)
        self.time = TimeEmbedding(width)
        self.condition = nn.Sequential(
            nn.Linear(n_features, width), nn.SiLU(), nn.Linear(width, width)
        )
        steps = list(pairwise(sizes))
        self.blocks_down = nn.ModuleList(block(w) for _, w in sizes[:-1])
        self.down = nn.ModuleList(Resample(*fine, *coarse) for fine, coarse in steps)
        self.middle = block(widths[-1])
        self.up = nn.ModuleList(Resample(*coarse, *fine) for fine, coarse in reversed(steps))
        self.join = nn.ModuleList(nn.Linear(2 * fine[1], fine[1]) for fine, _ in reversed(steps))
        self.blocks_up = nn.ModuleList(block(fine[1]) for fine, _ in reversed(steps))
        self.norm_out = nn.RMSNorm(width, eps=1e-6, elementwise_affine=False)
        self.project_out = PerTokenLinear(n_tokens, width, token_dim, zero=True)

    def forward(
        self, x_BKD: Tensor, t_B: Tensor, token_features_BKF: Tensor, features_BC: Tensor
    ) -> Tensor:
        x = self.project_in(torch.cat([x_BKD, token_features_BKF], dim=-1))  # (B, K, W)
        condition_B1W = (self.time(t_B) + self.condition(features_BC))[:, None]
        skips = []
        for block, down in zip(self.blocks_down, self.down, strict=True):
            x = block(x, condition_B1W)
            skips.append(x)
            x = down(x)  # (B, K/2, 2W)
        x = self.middle(x, condition_B1W)
        for up, join, block in zip(self.up, self.join, self.blocks_up, strict=True):
            x = join(torch.cat([up(x), skips.pop()], dim=-1))  # (B, K, W) of the finer level
            x = block(x, condition_B1W)
        return self.project_out(self.norm_out(x))  # (B, K, D)
