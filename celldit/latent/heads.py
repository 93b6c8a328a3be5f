"""Parameters per gene that turn expected counts into a distribution."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from celldit.latent.likelihoods import CountModel

MIN_LOG_THETA, MAX_LOG_THETA = -5.0, 8.0


class NegativeBinomialHead(nn.Module):
    """Gene-wise dispersion."""

    def __init__(self, n_genes: int) -> None:
        super().__init__()
        self.log_theta = nn.Parameter(torch.zeros(n_genes))

    @property
    def theta_G(self) -> Tensor:
        """Inverse dispersion."""
        return torch.exp(self.log_theta.clamp(MIN_LOG_THETA, MAX_LOG_THETA))

    @torch.no_grad()
    def start(self, theta_G: Tensor) -> None:
        """Start at the inverse dispersion that a regression found."""
        self.log_theta.copy_(theta_G.log())

    def forward(self, mean_BG: Tensor) -> CountModel:
        return CountModel(mean_BG, self.theta_G)
