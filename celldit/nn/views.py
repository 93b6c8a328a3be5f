"""A transformer over views of one vector: tokens that overlap, and a velocity that is their sum."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from celldit.nn.dit import DiT, DiTConfig
from celldit.nn.layers import PerTokenLinear


@dataclass(frozen=True, eq=False)
class TokenViews:
    """What each of T tokens sees of a vector."""

    views_TFV: Tensor  # a map from F dimensions to V values for each token, float32
    identity_T: Tensor  # what each is, a number for whoever made the views, int64

    @classmethod
    def random(cls, n_tokens: int, n_dims: int, n_values: int, seed: int) -> TokenViews:
        """Views that know nothing of genes, for comparison: Gaussian projections."""
        generator = torch.Generator().manual_seed(seed)
        views_TFV = torch.randn((n_tokens, n_dims, n_values), generator=generator)
        return cls(views_TFV / math.sqrt(n_dims), torch.full((n_tokens,), -1))


class ViewedDiT(nn.Module):
    """A :class:`~celldit.nn.dit.DiT` whose T tokens are linear views of the whole state, F = K·D.

    Token g carries ``x A_g``, what its view sees of the state, and the same of the condition's
    effect and position. Each token has a read-out of its own into the whole space, and the velocity
    is their sum, so that it says exactly how much each token carries. Views may overlap: a gene
    belongs to many gene sets.

    Every read-out starts at zero, so an untrained network returns zero velocity. (A pseudo-inverse
    of the views in place of learned read-outs learned too slowly.)
    """

    def __init__(self, views: TokenViews, n_features: int, config: DiTConfig) -> None:
        super().__init__()
        n_tokens, n_dims, n_values = views.views_TFV.shape
        self.n_tokens, self.n_values = n_tokens, n_values
        self.views_TFV: Tensor
        self.identity_T: Tensor
        self.register_buffer("views_TFV", views.views_TFV.detach().clone().float())
        self.register_buffer("identity_T", views.identity_T.detach().clone().long())
        self.trunk = DiT(n_tokens, n_values, 2 * n_values, n_features, config)
        self.trunk.project_out = PerTokenLinear(n_tokens, config.width, n_dims, zero=True)

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer's blocks."""
        return self.trunk.blocks

    @property
    def project_out(self) -> PerTokenLinear:
        """The read-outs, one of each token."""
        return self.trunk.project_out

    def see(self, y_BF: Tensor) -> Tensor:
        """What every token sees of B vectors, shape (B, T, V)."""
        n_dims = self.views_TFV.shape[1]
        views_FX = self.views_TFV.transpose(0, 1).reshape(n_dims, -1).to(y_BF.dtype)
        return (y_BF @ views_FX).view(-1, self.n_tokens, self.n_values)

    def forward(
        self, x_BKD: Tensor, t_B: Tensor, token_features_BKF: Tensor, features_BC: Tensor
    ) -> Tensor:
        """Velocity, shape (B, K, D)."""
        seen = self._seen(x_BKD, t_B, token_features_BKF, features_BC)
        h_BTW, read_out = self.trunk.hidden(*seen), self.project_out
        # The sum over tokens of their maps is one product.
        weight_XF = read_out.weight.flatten(0, 1).to(h_BTW.dtype)
        bias_F = read_out.bias.sum(0).to(h_BTW.dtype)
        velocity_BF = torch.addmm(bias_F, h_BTW.flatten(1), weight_XF)
        return (velocity_BF * self._unit).view(x_BKD.shape)

    def contributions(self, *inputs: Tensor) -> Tensor:
        """The velocity token by token, shape (B, T, F); their sum is :meth:`forward`."""
        parts_BTF: Tensor = self.project_out(self.trunk.hidden(*self._seen(*inputs)))
        return parts_BTF * self._unit

    def attention(self, *inputs: Tensor) -> Tensor:
        """How much each token reads from each, mean over blocks and heads, shape (B, T, T)."""
        return self.trunk.attention(*self._seen(*inputs))

    @property
    def _unit(self) -> float:
        # Steps of the sum do not grow with the number of tokens.
        return 1 / math.sqrt(self.n_tokens)

    def _seen(
        self, x_BKD: Tensor, t_B: Tensor, token_features_BKF: Tensor, features_BC: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What the trunk reads: state (B, T, V) and condition (B, T, 2V) through the views."""
        parts = token_features_BKF.split(x_BKD.shape[-1], dim=-1)
        read_BTX = torch.cat([self.see(part.flatten(1)) for part in parts], dim=-1)
        return self.see(x_BKD.flatten(1)), t_B, read_BTX, features_BC
