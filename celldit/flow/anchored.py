"""The anchored rectified flow: one velocity network, two sources.

From a control cell the flow starts at ``x0 = z_control + effect``: the best simple prediction of
what the perturbation does to this cell. From noise it starts at ``x0 = position + spread · ε``: a
Gaussian about the best simple estimate of where the condition's cells lie. Either way the network,
which is silent until trained, only has to add what the simple estimate lacks.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from celldit.errors import InputError, UnknownNameError
from celldit.nn.comparators import MLPConfig, TokenUNet, UNetConfig, VelocityMLP
from celldit.nn.dit import FORMER, DiT, DiTConfig
from celldit.nn.views import TokenViews, ViewedDiT

N_FEATURES = 4
NetworkConfig: TypeAlias = DiTConfig | MLPConfig | UNetConfig
"""What selects the velocity network, and its size."""


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device.

    From ordinary memory a copy to a GPU waits until the work before it is done, so that nothing is
    under way while the next step is prepared; from pinned memory it takes its turn.
    """
    if device.type == "cuda" and x.device.type == "cpu":
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device)


_CONFIGS: dict[str, type[NetworkConfig]] = {"dit": DiTConfig, "mlp": MLPConfig, "unet": UNetConfig}


def make_network(
    n_tokens: int,
    token_dim: int,
    config: NetworkConfig,
    views: TokenViews | None = None,
) -> nn.Module:
    """Make the velocity network that a configuration stands for; all return zero until trained."""
    sizes = n_tokens, token_dim, 2 * token_dim, N_FEATURES
    if isinstance(config, MLPConfig):
        return VelocityMLP(*sizes, config)
    if isinstance(config, UNetConfig):
        return TokenUNet(*sizes, config)
    if views is not None and config.tokens != "latent":
        return ViewedDiT(views, N_FEATURES, config)
    return DiT(*sizes, config)


def network_to_dict(config: NetworkConfig) -> dict[str, Any]:
    """Write a configuration of a velocity network with its name, for JSON."""
    name = next(name for name, kind in _CONFIGS.items() if isinstance(config, kind))
    return {"network": name, **asdict(config)}


def network_from_dict(entries: Mapping[str, Any]) -> NetworkConfig:
    """Read what :func:`network_to_dict` wrote; without a name it is a DiT.

    A DiT from before tokens were views has slices of the latent as tokens. UnknownNameError if no
    network has the name.
    """
    settings = dict(entries)
    name = settings.pop("network", "dit")
    if name not in _CONFIGS:
        raise UnknownNameError.among("network", name, _CONFIGS)
    if name == "dit":
        settings = {"tokens": "latent", **{n: x for n, x in settings.items() if n not in FORMER}}
    return _CONFIGS[name](**settings)


@dataclass(frozen=True)
class FlowCondition:
    """What the velocity network is told of each of B cells."""

    effect_BKD: Tensor  # estimated shift of the latent
    # Estimated mean of the condition's cells, for the noise source; zero for the control source,
    # whose cell is its own context.
    position_BKD: Tensor
    sd_B: Tensor  # of the estimate, in units of the spread between cells
    from_noise_B: Tensor  # which source, bool
    withheld_B: Tensor  # whether effect and position are withheld (for guidance), bool

    def withheld(self) -> FlowCondition:
        """The same cells with nothing told of their condition."""
        return replace(self, withheld_B=torch.ones_like(self.withheld_B))

    def to(self, device: torch.device) -> FlowCondition:
        """Move to a device."""
        return self._each(lambda tensor: to_device(tensor, device))

    def __getitem__(self, rows: slice | Tensor) -> FlowCondition:
        return self._each(lambda tensor: tensor[rows])

    def _each(self, change: Callable[[Tensor], Tensor]) -> FlowCondition:
        return FlowCondition(*(change(getattr(self, f.name)) for f in fields(self)))


class AnchoredFlow(nn.Module):
    """Velocity of the anchored rectified flow over K tokens of D dimensions.

    The configuration is a :class:`~celldit.nn.dit.DiTConfig`, or one of the
    :mod:`~celldit.nn.comparators`. Views say what each of T tokens sees of the latent, for a DiT
    whose tokens are views; without them, slices of the latent are its tokens.
    """

    def __init__(
        self,
        n_tokens: int,
        token_dim: int,
        config: NetworkConfig,
        views: TokenViews | None = None,
    ) -> None:
        super().__init__()
        self.n_tokens, self.token_dim, self.config = n_tokens, token_dim, config
        self.dit = make_network(n_tokens, token_dim, config, views)
        self.from_noise: nn.Module | None = None
        self.noise_trust: Tensor
        # How much of what the flow from noise learned beyond its anchor is trusted.
        self.register_buffer("noise_trust", torch.ones(1))

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.noise_trust.device

    def part_ways(self) -> None:
        """Give the flow from noise a network of its own, silent at first beside its anchor.

        It starts as a copy of the shared one, but for the last layer.
        """
        self.from_noise = copy.deepcopy(self.dit)
        for parameter in self.from_noise.project_out.parameters():  # type: ignore[union-attr]
            nn.init.zeros_(parameter)

    def inputs(
        self, x_BKD: Tensor, t_B: Tensor, condition: FlowCondition
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What the network reads at `x_BKD` and time `t_B`."""
        mask_B = (~condition.withheld_B).to(x_BKD.dtype)
        token_features_BKF = (
            torch.cat([condition.effect_BKD, condition.position_BKD], dim=-1)
            * mask_B[:, None, None]
        )
        strength_B = condition.effect_BKD.flatten(1).norm(dim=1)
        features_BC = torch.stack(
            [
                condition.from_noise_B.to(x_BKD.dtype),
                torch.log1p(strength_B) * mask_B,
                condition.sd_B * mask_B,
                1 - mask_B,
            ],
            dim=1,
        )
        return x_BKD, t_B, token_features_BKF, features_BC

    @property
    def views(self) -> ViewedDiT:
        """The transformer over views.

        InputError if the network is another one, whose velocity is no sum over gene sets.
        """
        if not isinstance(self.dit, ViewedDiT):
            raise InputError(
                "This model's network does not attend to gene sets, so nothing can be said of "
                "them; train one with the default network, or DiTConfig(tokens='views')."
            )
        return self.dit

    def contributions(self, x_BKD: Tensor, t_B: Tensor, condition: FlowCondition) -> Tensor:
        """The velocity from controls token by token, (B, T, F); their sum is :meth:`forward`."""
        return self.views.contributions(*self.inputs(x_BKD, t_B, condition))

    def attention(self, x_BKD: Tensor, t_B: Tensor, condition: FlowCondition) -> Tensor:
        """How much each token reads from each, mean over blocks and heads, shape (B, T, T)."""
        return self.views.attention(*self.inputs(x_BKD, t_B, condition))

    def forward(self, x_BKD: Tensor, t_B: Tensor, condition: FlowCondition) -> Tensor:
        """Velocity at `x_BKD` and time `t_B` (0 at the source, 1 at the data), shape (B, K, D).

        All cells of a batch start at one source.
        """
        conditions = self.inputs(x_BKD, t_B, condition)
        if self.from_noise is None or not condition.from_noise_B.any():
            return self.dit(*conditions)
        anchor_BKD = matched_velocity(x_BKD, t_B, condition.position_BKD)
        return anchor_BKD + self.noise_trust * self.from_noise(*conditions)


def matched_velocity(x_BKD: Tensor, t_B: Tensor, position_BKD: Tensor) -> Tensor:
    """Velocity of the linear path from a Gaussian to cells that are that Gaussian, (B, K, D).

    For independent ends with one mean m and one covariance, whatever it is,
    ``E[x1 - x0 | x_t] = (2 t - 1) / (t² + (1 - t)²) (x_t - m)``: points draw together half way and
    come back to where they were. It is the anchor of the flow from noise, whose network learns only
    in what the cells differ from their Gaussian.
    """
    pull_B = (2 * t_B - 1) / spread(t_B) ** 2
    return pull_B[:, None, None] * (x_BKD - position_BKD)


def spread(t_B: Tensor) -> Tensor:
    """Scatter about the mean on the way, relative to that of the ends: sqrt(t² + (1 - t)²)."""
    return torch.sqrt(t_B**2 + (1 - t_B) ** 2)
