"""Decoding by cross-attention: each gene asks the latent tokens for what concerns it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from celldit.nn.per_token import PerTokenLinear


class GeneQueries(nn.Module):
    """One number per gene from K latent tokens, zero until trained.

    Each latent token becomes a key and a value through projections of its own, each gene has a
    learned query per head (as the output queries of Jaegle et al. 2022, "Perceiver IO"), and reads
    what it found with weights of its own, which start at zero. The genes do not see each other, so
    the cost is B·G·K.

    Parameters
    ----------
    n_tokens, token_dim
        K and D.
    n_genes
        G.
    width
        Width of queries, keys and values over all heads.
    n_heads
        Number of heads; divides `width`.
    dropout
        On the values.
    """

    def __init__(
        self,
        n_tokens: int,
        token_dim: int,
        n_genes: int,
        *,
        width: int,
        n_heads: int,
        dropout: float,
    ) -> None:
        super().__init__()
        if width % n_heads:
            raise ValueError(f"width {width} is not a multiple of n_heads {n_heads}")
        self.n_heads = n_heads
        self.project = PerTokenLinear(n_tokens, token_dim, 2 * width)
        self.to_kv = nn.Linear(2 * width, 2 * width, bias=False)
        self.norm = nn.RMSNorm(width // n_heads, eps=1e-6)
        self.queries = nn.Parameter(torch.randn(n_heads, n_genes, width // n_heads))
        self.dropout = nn.Dropout(dropout)
        self.read = nn.Parameter(torch.zeros(n_heads, n_genes, width // n_heads))

    def forward(self, z_BKD: Tensor) -> Tensor:
        """Decode latent tokens, shape (B, G)."""
        batch, n_tokens, _ = z_BKD.shape
        hidden_BKW = torch.nn.functional.gelu(self.project(z_BKD), approximate="tanh")
        k_BKW, v_BKW = self.dropout(self.to_kv(hidden_BKW)).chunk(2, dim=-1)
        k_BHKC, v_BHKC = (
            x.view(batch, n_tokens, self.n_heads, -1).transpose(1, 2) for x in (k_BKW, v_BKW)
        )
        q_BHGC = self.norm(self.queries).expand(batch, -1, -1, -1)
        found_BHGC = scaled_dot_product_attention(q_BHGC, self.norm(k_BHKC), v_BHKC)
        return torch.einsum("bhgc,hgc->bg", found_BHGC, self.read)

    @torch.no_grad()
    def rescale(self, scale_K: Tensor) -> None:
        """Give the same for latent tokens that were divided by `scale_K`."""
        self.project.weight.mul_(scale_K[:, None, None])
