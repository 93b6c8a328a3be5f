"""The diffusion transformer: a velocity field over latent tokens, silent until trained.

Peebles & Xie 2023 ("Scalable diffusion models with transformers") for the AdaLN-Zero block. What
differs: tokens have no position but an identity, each its own projection in and out, and each
receives its own part of the condition beside its value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from celldit.arguments import check_whole, refuses_former
from celldit.errors import UnknownNameError
from celldit.nn.attention import MLP, Attention
from celldit.nn.layers import PerTokenLinear, RMSNorm, TimeEmbedding, zero_linear

TOKENS = ("views", "latent", "random")
FORMER = {
    "conditioning": "The condition modulates every block; leave it out.",
    "context_embedding": "A context is known by where its controls lie; leave it out.",
    "context_dropout": "Contexts have no embedding; leave it out.",
}
"""Options that earlier versions had, and what to do instead."""


@refuses_former(FORMER)
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
    tokens
        What a token is: ``"views"``, what the tokenizer's tokens (gene sets, modules, genes) see of
        the latent (default); ``"latent"``, a slice of the latent; ``"random"``, a random view of
        it, for comparison.
    n_views, view_values
        Most tokens, and values of each, where they are views.
    """

    width: int = 64
    depth: int = 2
    n_heads: int = 4
    mlp_ratio: float = 2.0
    dropout: float = 0.1
    tokens: Literal["views", "latent", "random"] = "views"
    n_views: int = 20
    view_values: int = 3

    def __post_init__(self) -> None:
        if self.tokens not in TOKENS:
            raise UnknownNameError.among("tokens", str(self.tokens), TOKENS)
        for name in ("n_views", "view_values"):
            check_whole(getattr(self, name), name)


SIZES: dict[str, DiTConfig] = {
    "celldit-S": DiTConfig(width=64, depth=2, n_heads=4),
    "celldit-B": DiTConfig(width=256, depth=8, n_heads=8, mlp_ratio=4.0),
    "celldit-L": DiTConfig(width=768, depth=12, n_heads=12, mlp_ratio=4.0),
    "celldit-XL": DiTConfig(width=1152, depth=28, n_heads=16, mlp_ratio=4.0),
}
"""``celldit-S`` is the default; each of the others is meant for ten times the cells or more."""


def size_of(name: str) -> DiTConfig:
    """Look up a size by its name, ``"celldit-B"`` or ``"B"`` for short, or UnknownNameError."""
    for full, config in SIZES.items():
        if name.lower() in (full.lower(), full.removeprefix("celldit-").lower()):
            return config
    raise UnknownNameError.among("size", name, SIZES)


class DiTBlock(nn.Module):
    """Pre-norm attention and perceptron, scaled, shifted and gated by the condition.

    The modulations, three for each branch, come from one linear layer that starts at zero, so a
    new block is the identity (AdaLN-Zero).
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        width = config.width
        self.norm_attention = RMSNorm(width, eps=1e-6, elementwise_affine=False)
        self.attention = Attention(width, config.n_heads, config.dropout)
        self.norm_mlp = RMSNorm(width, eps=1e-6, elementwise_affine=False)
        self.mlp = MLP(width, int(config.mlp_ratio * width), config.dropout)
        self.modulation = nn.Sequential(nn.SiLU(), zero_linear(width, 6 * width))

    def forward(self, x_BKW: Tensor, condition_BW: Tensor) -> Tensor:
        modulations = self.modulation(condition_BW)[:, None].chunk(6, dim=-1)  # each (B, 1, W)
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = modulations
        h_BKW = torch.addcmul(shift_a, self.norm_attention(x_BKW), 1 + scale_a)
        x_BKW = torch.addcmul(x_BKW, gate_a, self.attention(h_BKW))
        h_BKW = torch.addcmul(shift_m, self.norm_mlp(x_BKW), 1 + scale_m)
        return torch.addcmul(x_BKW, gate_m, self.mlp(h_BKW))

    def attention_weights(self, x_BKW: Tensor, condition_BW: Tensor) -> Tensor:
        """How much each token reads from each in this block, mean over heads, shape (B, K, K)."""
        shift, scale, *_ = self.modulation(condition_BW)[:, None].chunk(6, dim=-1)
        return self.attention.weights(torch.addcmul(shift, self.norm_attention(x_BKW), 1 + scale))


class DiT(nn.Module):
    """Velocity ``v(x_t, t, condition)`` over K latent tokens of D dimensions.

    Some features of the condition belong to one token (its part of the effect, and so on), others
    to the condition as a whole. The output projection starts at zero: an untrained DiT returns zero
    velocity everywhere, and the flow leaves its source where it is.
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
        self.norm_out = RMSNorm(width, eps=1e-6, elementwise_affine=False)
        self.project_out = PerTokenLinear(n_tokens, width, token_dim, zero=True)

    def forward(
        self, x_BKD: Tensor, t_B: Tensor, token_features_BKF: Tensor, features_BC: Tensor
    ) -> Tensor:
        hidden_BKW = self.hidden(x_BKD, t_B, token_features_BKF, features_BC)
        return self.project_out(hidden_BKW)  # (B, K, D)

    def hidden(self, *inputs: Tensor) -> Tensor:
        """The tokens before their read-out, from the inputs of :meth:`forward`, (B, K, W)."""
        x_BKW, condition_BW = self._start(*inputs)
        for block in self.blocks:
            x_BKW = block(x_BKW, condition_BW)
        shift, scale = self.modulation(condition_BW)[:, None].chunk(2, dim=-1)  # each (B, 1, W)
        return torch.addcmul(shift, self.norm_out(x_BKW), 1 + scale)

    def attention(self, *inputs: Tensor) -> Tensor:
        """How much each token reads from each, mean over blocks and heads, shape (B, K, K)."""
        x_BKW, condition_BW = self._start(*inputs)
        total_BKK = torch.zeros(())
        for block in self.blocks:
            total_BKK = total_BKK + cast(DiTBlock, block).attention_weights(x_BKW, condition_BW)
            x_BKW = block(x_BKW, condition_BW)
        return total_BKK / len(self.blocks)

    def _start(
        self, x_BKD: Tensor, t_B: Tensor, token_features_BKF: Tensor, features_BC: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Tokens and condition as the first block takes them."""
        x_BKW = self.project_in(torch.cat([x_BKD, token_features_BKF], dim=-1))
        return x_BKW, self.time(t_B) + self.condition(features_BC)
