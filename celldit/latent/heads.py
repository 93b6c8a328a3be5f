"""Parameters per gene that turn expected counts into a distribution, a head per likelihood."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from celldit.errors import UnknownNameError
from celldit.latent.likelihoods import CountDistribution, CountModel
from celldit.latent.other_likelihoods import GaussianModel, PoissonModel, ZeroInflatedModel

Likelihood = Literal["nb", "zinb", "poisson", "gaussian"]
LIKELIHOODS: tuple[Likelihood, ...] = ("nb", "zinb", "poisson", "gaussian")
MIN_LOG_THETA, MAX_LOG_THETA = -5.0, 8.0
# Share of zeros put in place of counts where a zero-inflated head starts.
START_ZEROS = 0.02


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

    def forward(self, mean_BG: Tensor, size_B: Tensor) -> CountDistribution:
        return CountModel(mean_BG, self.theta_G)


class ZeroInflatedHead(NegativeBinomialHead):
    """Gene-wise dispersion and share of zeros put in place of counts."""

    def __init__(self, n_genes: int) -> None:
        super().__init__(n_genes)
        odds = START_ZEROS / (1 - START_ZEROS)
        self.zero_logit = nn.Parameter(torch.full((n_genes,), odds).log())

    def forward(self, mean_BG: Tensor, size_B: Tensor) -> CountDistribution:
        # Bounded, because the part that is not replaced has the mean divided by its share.
        return ZeroInflatedModel(mean_BG, self.theta_G, 0.95 * torch.sigmoid(self.zero_logit))


class PoissonHead(nn.Module):
    """Nothing but the expectation."""

    def __init__(self, n_genes: int) -> None:
        super().__init__()

    def forward(self, mean_BG: Tensor, size_B: Tensor) -> CountDistribution:
        return PoissonModel(mean_BG)


class GaussianHead(nn.Module):
    """Gene-wise standard deviation of log expression."""

    def __init__(self, n_genes: int) -> None:
        super().__init__()
        self.log_sigma = nn.Parameter(torch.zeros(n_genes))

    @torch.no_grad()
    def start(self, sigma_G: Tensor) -> None:
        """Start at the observed scatter of log expression about its expectation."""
        self.log_sigma.copy_(sigma_G.log())

    def forward(self, mean_BG: Tensor, size_B: Tensor) -> CountDistribution:
        return GaussianModel(mean_BG, torch.exp(self.log_sigma.clamp(-4, 4)), size_B)


Head = NegativeBinomialHead | PoissonHead | GaussianHead

_HEADS: dict[str, type[NegativeBinomialHead] | type[PoissonHead] | type[GaussianHead]] = {
    "nb": NegativeBinomialHead,
    "zinb": ZeroInflatedHead,
    "poisson": PoissonHead,
    "gaussian": GaussianHead,
}


def make_head(likelihood: str, n_genes: int) -> Head:
    """Make the head of a likelihood.

    Raises
    ------
    UnknownNameError
        If there is no such likelihood.
    """
    if likelihood not in _HEADS:
        raise UnknownNameError.among("likelihood", likelihood, list(_HEADS))
    return _HEADS[likelihood](n_genes)
