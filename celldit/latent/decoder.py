"""From latent tokens to expected counts."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from celldit.latent.calibration import LogLinear, calibrate
from celldit.latent.likelihoods import MAX_LOG_RATE, CountModel

# Regression slopes of sparse counts overshoot; Newton steps mend them faster from below.
SLOPE_SHARE = 0.3
MIN_LOG_THETA, MAX_LOG_THETA = -5.0, 8.0


class Decoder(nn.Module):
    """Log-linear in the latent: a regression of counts, so a shift of the latent is a fold change.

    ``log μ = log(size factor / 10,000) + bias + z · loadings (+ residual(z))``

    `hidden` is the width of a perceptron that models of earlier versions add; 0 for none.
    """

    def __init__(self, n_dims: int, n_genes: int, hidden: int = 0) -> None:
        super().__init__()
        self.loadings = nn.Parameter(torch.zeros(n_dims, n_genes))
        self.bias = nn.Parameter(torch.zeros(n_genes))
        self.log_ceiling: Tensor
        self.register_buffer("log_ceiling", torch.full((n_genes,), MAX_LOG_RATE))
        self.head = NegativeBinomialHead(n_genes)
        self.residual: nn.Sequential | None = None
        if hidden:
            self.residual = nn.Sequential(
                nn.Linear(n_dims, hidden),
                nn.GELU(approximate="tanh"),
                nn.Identity(),  # its dropout; the names of stored weights count it
                nn.Linear(hidden, n_genes, bias=False),
            )

    @property
    def hidden(self) -> int:
        """Width of the perceptron of an earlier version; 0 for none."""
        return 0 if self.residual is None else cast(nn.Linear, self.residual[0]).out_features

    @torch.no_grad()
    def start_at_ridge(self, moments: RidgeMoments) -> None:
        """Set loadings and ceilings from a regression of log expression on the latent.

        The mean of log(1 + y) of a rarely seen gene is proportional to its rate, that of a highly
        expressed gene is its log rate; between the two, d log rate ≈ d E[log(1+y)] / (1 - exp(-m))
        with m = E[log(1+y)].
        """
        # exp() of a far extrapolation explodes; no gene has more than twice its highest rate seen.
        self.log_ceiling.copy_(torch.log(2 * moments.peak.clamp_min(1)))
        m = (moments.y / moments.n).float().clamp_min(1e-3)
        self.loadings.copy_((moments.slopes() / (1 - torch.exp(-m))).clamp(-3, 3))

    @torch.no_grad()
    def fit(self, z_NF: Tensor, counts_NG: Tensor, size_N: Tensor) -> None:
        """Regress the counts of some cells on their latents, given size factors (`calibration`)."""
        rate_G = 1e4 * counts_NG.sum(0) / size_N.sum()
        start = LogLinear(
            torch.log(rate_G.clamp_min(1e-3)),
            SLOPE_SHARE * self.loadings,
            torch.ones_like(rate_G),
        )
        self._take(calibrate(z_NF, counts_NG, size_N, start))

    @torch.no_grad()
    def adapt(self, z_NF: Tensor, counts_NG: Tensor, size_N: Tensor) -> None:
        """Fit what was fitted to other cells to these: slopes move only as far as these ask for."""
        held = LogLinear(self.bias.clone(), self.loadings.clone(), self.head.log_theta.exp())
        beside_NG = None if self.residual is None else self.residual(z_NF)
        prior_FG = held.slopes_FG
        self._take(calibrate(z_NF, counts_NG, size_N, held, around=prior_FG, offset_NG=beside_NG))
        peak_G = (counts_NG * (1e4 / size_N[:, None])).amax(0)
        self.log_ceiling.copy_(torch.maximum(self.log_ceiling, torch.log(2 * peak_G.clamp_min(1))))

    def _take(self, fitted: LogLinear) -> None:
        self.loadings.copy_(fitted.slopes_FG)
        self.bias.copy_(fitted.bias_G)
        self.head.log_theta.copy_(fitted.theta_G.log())

    def log_rate(self, z_BF: Tensor) -> Tensor:
        """Log expected counts per 10,000, shape (B, G)."""
        log_rate_BG = torch.addmm(self.bias, z_BF, self.loadings)
        if self.residual is not None:
            log_rate_BG = log_rate_BG + self.residual(z_BF)
        return torch.minimum(log_rate_BG, self.log_ceiling)

    def forward(self, z_BF: Tensor, size_B: Tensor) -> CountModel:
        """Expected counts at the given size factors (in counts)."""
        mean_BG = torch.exp(self.log_rate(z_BF)) * (size_B[:, None] / 1e4)
        return CountModel(mean_BG, self.head.theta_G)

    @torch.no_grad()
    def rescale(self, scale_K: Tensor) -> None:
        """Decode the same from latent tokens that were divided by `scale_K`, shape (K,)."""
        scale_F = scale_K.repeat_interleave(len(self.loadings) // len(scale_K))
        self.loadings.mul_(scale_F[:, None])
        if self.residual is not None:
            cast(nn.Linear, self.residual[0]).weight.mul_(scale_F)


class NegativeBinomialHead(nn.Module):
    """Gene-wise dispersion of counts about their expectation."""

    def __init__(self, n_genes: int) -> None:
        super().__init__()
        self.log_theta = nn.Parameter(torch.zeros(n_genes))

    @property
    def theta_G(self) -> Tensor:
        """Inverse dispersion."""
        return torch.exp(self.log_theta.clamp(MIN_LOG_THETA, MAX_LOG_THETA))


class RidgeMoments:
    """Sums over cells from which the ridge regression follows; one pass, any number of cells."""

    def __init__(self, n_dims: int, n_genes: int) -> None:
        self.n = 0
        self.peak = torch.zeros(n_genes)  # highest rate of each gene, counts per 10,000
        self.zz = torch.zeros(n_dims, n_dims, dtype=torch.float64)
        self.zy = torch.zeros(n_dims, n_genes, dtype=torch.float64)
        self.z = torch.zeros(n_dims, dtype=torch.float64)
        self.y = torch.zeros(n_genes, dtype=torch.float64)

    def add(self, z_BF: Tensor, log_BG: Tensor, counts_BG: Tensor, size_B: Tensor) -> None:
        """Add a batch of latents, log expression, counts and size factors."""
        z, y = z_BF.double(), log_BG.double()
        self.n += len(z)
        self.zz += z.T @ z
        self.zy += z.T @ y
        self.z += z.sum(0)
        self.y += y.sum(0)
        rate_BG = counts_BG * (1e4 / size_B[:, None])
        self.peak = torch.maximum(self.peak, rate_BG.amax(0))

    def slopes(self) -> Tensor:
        """Ridge slopes of log expression on the centred latent, strength 1, shape (F, G)."""
        mean_z, mean_y = self.z / self.n, self.y / self.n
        cross = self.zy - self.n * mean_z[:, None] * mean_y[None]
        scatter = self.zz - self.n * mean_z[:, None] * mean_z[None]
        scatter = scatter + torch.eye(len(scatter), dtype=torch.float64)
        return torch.linalg.solve(scatter, cross).float()
