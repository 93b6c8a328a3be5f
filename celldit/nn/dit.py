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

from celldit.arguments import check_whole
from celldit.errors import InputError, UnknownNameError
from celldit.nn.attention import MLP, Attention
from celldit.nn.embeddings import TimeEmbedding
from celldit.nn.norm import RMSNorm
from celldit.nn.per_token import PerTokenLinear

CONDITIONINGS = ("adaln", "tokens", "both")
TOKENS = ("views", "latent", "random")


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
    conditioning
        How the condition enters, besides each token's own part of the effect: ``"adaln"``
        modulates the blocks by one vector (default), ``"tokens"`` lets the latent attend to the
        parts of the condition (and modulates by the flow time alone), ``"both"`` does both.
    context_embedding
        Whether contexts have a learned embedding. Off by default: with control cells of a context
        in training, the network learns from it that a context never seen perturbed does not
        respond.
    context_dropout
        Share of the training cells from which that embedding is withheld.
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
    conditioning: Literal["adaln", "tokens", "both"] = "adaln"
    context_embedding: bool = False
    context_dropout: float = 0.5
    tokens: Literal["views", "latent", "random"] = "views"
    n_views: int = 20
    view_values: int = 3

    def __post_init__(self) -> None:
        if self.conditioning not in CONDITIONINGS:
            raise UnknownNameError.among("conditioning", str(self.conditioning), CONDITIONINGS)
        if self.tokens not in TOKENS:
            raise UnknownNameError.among("tokens", str(self.tokens), TOKENS)
        for name in ("n_views", "view_values"):
            check_whole(getattr(self, name), name)
        if not 0 <= self.context_dropout <= 1:
            raise InputError(f"context_dropout={self.context_dropout} is not between 0 and 1.")


def zero_linear(n_in: int, n_out: int) -> nn.Linear:
    """A linear layer that returns zero until trained."""
    layer = nn.Linear(n_in, n_out)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class DiTBlock(nn.Module):
    """Pre-norm attention and perceptron, scaled, shifted and gated by the condition.

    The modulations, three for each branch, come from one linear layer that starts at zero, so a
    new block is the identity (AdaLN-Zero). Unless the conditioning is ``"adaln"``, a third branch
    attends to the members of the condition.
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        width = config.width
        self.norm_attention = RMSNorm(width, eps=1e-6, elementwise_affine=False)
        self.attention = Attention(width, config.n_heads, config.dropout)
        self.norm_mlp = RMSNorm(width, eps=1e-6, elementwise_affine=False)
        self.mlp = MLP(width, int(config.mlp_ratio * width), config.dropout)
        self.cross: Attention | None = None
        if config.conditioning != "adaln":
            self.norm_cross = RMSNorm(width, eps=1e-6, elementwise_affine=False)
            self.cross = Attention(width, config.n_heads, config.dropout)
        self.n_modulations = 6 if self.cross is None else 9
        self.modulation = nn.Sequential(nn.SiLU(), zero_linear(width, self.n_modulations * width))

    def forward(
        self,
        x_BKW: Tensor,
        condition_BW: Tensor,
        members_BMW: Tensor | None = None,
        is_member_BM: Tensor | None = None,
    ) -> Tensor:
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m, *cross = self.modulation(condition_BW)[
            :, None
        ].chunk(self.n_modulations, dim=-1)  # each (B, 1, W)
        h_BKW = torch.addcmul(shift_a, self.norm_attention(x_BKW), 1 + scale_a)
        x_BKW = torch.addcmul(x_BKW, gate_a, self.attention(h_BKW, h_BKW))
        if self.cross is not None and members_BMW is not None:
            shift_c, scale_c, gate_c = cross
            h_BKW = torch.addcmul(shift_c, self.norm_cross(x_BKW), 1 + scale_c)
            x_BKW = torch.addcmul(x_BKW, gate_c, self.cross(h_BKW, members_BMW, is_member_BM))
        h_BKW = torch.addcmul(shift_m, self.norm_mlp(x_BKW), 1 + scale_m)
        return torch.addcmul(x_BKW, gate_m, self.mlp(h_BKW))

    def attention_weights(self, x_BKW: Tensor, condition_BW: Tensor) -> Tensor:
        """How much each token reads from each in this block, mean over heads, shape (B, K, K)."""
        shift, scale, *_ = self.modulation(condition_BW)[:, None].chunk(self.n_modulations, dim=-1)
        h_BKW = torch.addcmul(shift, self.norm_attention(x_BKW), 1 + scale)
        return self.attention.weights(h_BKW, h_BKW)


class ConditionTokens(nn.Module):
    """The condition as a set: a token for the whole, and one for each part, in no order.

    Parameters
    ----------
    n_features, n_part_features
        Numbers that describe the whole, and one part.
    width
        Width of a token.
    """

    def __init__(self, n_features: int, n_part_features: int, width: int) -> None:
        super().__init__()
        self.whole = nn.Linear(n_features, width)
        self.part = nn.Sequential(
            nn.Linear(n_part_features, width), nn.SiLU(), nn.Linear(width, width)
        )

    def forward(
        self, features_BC: Tensor, parts_BMP: Tensor, is_part_BM: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Tokens, shape (B, 1 + M, W), and which are there; the whole always is."""
        members = torch.cat([self.whole(features_BC)[:, None], self.part(parts_BMP)], dim=1)
        return members, torch.cat([torch.ones_like(is_part_BM[:, :1]), is_part_BM], dim=1)


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
        The size, and how the condition enters.
    n_part_features
        Numbers that describe one part of the condition; needed unless the conditioning is
        ``"adaln"``.
    n_contexts
        Contexts of training, for an embedding of them.

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
        n_part_features: int = 0,
        n_contexts: int = 0,
    ) -> None:
        super().__init__()
        width = config.width
        self.conditioning, self.context_dropout = config.conditioning, config.context_dropout
        self.project_in = PerTokenLinear(n_tokens, token_dim + n_token_features, width)
        self.time = TimeEmbedding(width)
        if config.conditioning != "tokens":
            self.condition = nn.Sequential(
                nn.Linear(n_features, width), nn.SiLU(), nn.Linear(width, width)
            )
        self.tokens: ConditionTokens | None = None
        if config.conditioning != "adaln":
            self.tokens = ConditionTokens(n_features, n_part_features, width)
        self.context: nn.Embedding | None = None
        if config.context_embedding:
            # Row 0 stands for no known context; all start there, at zero.
            self.context = nn.Embedding(n_contexts + 1, width, padding_idx=0)
            nn.init.zeros_(self.context.weight)
        self.blocks = nn.ModuleList(DiTBlock(config) for _ in range(config.depth))
        self.modulation = nn.Sequential(nn.SiLU(), zero_linear(width, 2 * width))
        self.norm_out = RMSNorm(width, eps=1e-6, elementwise_affine=False)
        self.project_out = PerTokenLinear(n_tokens, width, token_dim, zero=True)

    def forward(
        self,
        x_BKD: Tensor,
        t_B: Tensor,
        token_features_BKF: Tensor,
        features_BC: Tensor,
        parts_BMP: Tensor | None = None,
        is_part_BM: Tensor | None = None,
        context_B: Tensor | None = None,
    ) -> Tensor:
        inputs = token_features_BKF, features_BC, parts_BMP, is_part_BM, context_B
        return self.project_out(self.hidden(x_BKD, t_B, *inputs))  # (B, K, D)

    def hidden(
        self,
        x_BKD: Tensor,
        t_B: Tensor,
        token_features_BKF: Tensor,
        features_BC: Tensor,
        parts_BMP: Tensor | None = None,
        is_part_BM: Tensor | None = None,
        context_B: Tensor | None = None,
    ) -> Tensor:
        """The tokens before their read-out, shape (B, K, W)."""
        inputs = token_features_BKF, features_BC, parts_BMP, is_part_BM, context_B
        x_BKW, condition_BW, members, is_member = self._start(x_BKD, t_B, *inputs)
        for block in self.blocks:
            x_BKW = block(x_BKW, condition_BW, members, is_member)
        shift, scale = self.modulation(condition_BW)[:, None].chunk(2, dim=-1)  # each (B, 1, W)
        return torch.addcmul(shift, self.norm_out(x_BKW), 1 + scale)

    def attention(
        self,
        x_BKD: Tensor,
        t_B: Tensor,
        token_features_BKF: Tensor,
        features_BC: Tensor,
        parts_BMP: Tensor | None = None,
        is_part_BM: Tensor | None = None,
        context_B: Tensor | None = None,
    ) -> Tensor:
        """How much each token reads from each, mean over blocks and heads, shape (B, K, K)."""
        inputs = token_features_BKF, features_BC, parts_BMP, is_part_BM, context_B
        x_BKW, condition_BW, members, is_member = self._start(x_BKD, t_B, *inputs)
        total_BKK = torch.zeros(())
        for block in self.blocks:
            total_BKK = total_BKK + cast(DiTBlock, block).attention_weights(x_BKW, condition_BW)
            x_BKW = block(x_BKW, condition_BW, members, is_member)
        return total_BKK / len(self.blocks)

    def _start(
        self,
        x_BKD: Tensor,
        t_B: Tensor,
        token_features_BKF: Tensor,
        features_BC: Tensor,
        parts_BMP: Tensor | None,
        is_part_BM: Tensor | None,
        context_B: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Tokens and condition as the first block takes them, and the condition's members."""
        x_BKW = self.project_in(torch.cat([x_BKD, token_features_BKF], dim=-1))
        condition_BW = self.time(t_B)
        if self.conditioning != "tokens":
            condition_BW = condition_BW + self.condition(features_BC)
        if self.context is not None and context_B is not None:
            condition_BW = condition_BW + self.context(self._dropped(context_B))
        members = is_member = None
        if self.tokens is not None:
            if parts_BMP is None or is_part_BM is None:
                raise ValueError(f"conditioning={self.conditioning!r} needs the condition's parts")
            members, is_member = self.tokens(features_BC, parts_BMP, is_part_BM)
        return x_BKW, condition_BW, members, is_member

    def _dropped(self, context_B: Tensor) -> Tensor:
        """Contexts of which some are withheld while training."""
        if not self.training:
            return context_B
        kept_B = torch.rand(context_B.shape, device=context_B.device) >= self.context_dropout
        return context_B * kept_B
