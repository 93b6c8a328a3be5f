"""The latent space: cells to latent tokens and back to count distributions."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from celldit.data.cells import Cells
from celldit.errors import InputError
from celldit.latent.anchor import choose_n_dims, fit_anchor
from celldit.latent.decoder import Decoder, RidgeMoments
from celldit.latent.likelihoods import CountModel
from celldit.nn.per_token import PerTokenLinear
from celldit.nn.set_encoder import SetEncoder
from celldit.tokenizers import Tokenizer, TokenSet

ENCODE_BATCH = 1024


@dataclass(frozen=True)
class LatentConfig:
    """Shape of the latent space and size of the networks around it.

    Attributes
    ----------
    kind
        ``"pca"``: the encoder is linear in log expression. ``"set"``: it is linear in the tokens,
        plus set attention that starts at zero.
    n_dims
        Dimensions in all; None chooses from the data (48, fewer for few cells or genes).
    token_dim
        Dimensions of one latent token.
    width, depth, n_heads
        Size of the set encoder.
    decoder_hidden
        Width of the decoder's non-linear residual; 0 for a purely log-linear decoder.
    dropout
        In encoder and decoder residuals.
    """

    kind: Literal["pca", "set"] = "pca"
    n_dims: int | None = None
    token_dim: int = 8
    width: int = 64
    depth: int = 2
    n_heads: int = 4
    decoder_hidden: int = 64
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.kind not in ("pca", "set"):
            raise InputError(f"latent={self.kind!r} is not known; use 'pca' or 'set'.")
        if self.n_dims is not None and self.n_dims < 1:
            raise InputError(f"n_dims={self.n_dims} must be at least 1.")


class Autoencoder(nn.Module):
    """Encoder to K latent tokens of D dimensions of about unit scale, and decoder to counts.

    Parameters
    ----------
    tokenizer
        Fitted. Of the ``"pca"`` kind it only names the tokens for interpretation.
    genes
        Names of the G genes.
    n_tokens, token_dim
        K and D.
    config
        The rest.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        genes: tuple[str, ...],
        n_tokens: int,
        token_dim: int,
        config: LatentConfig,
    ) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.genes = genes
        self.n_tokens, self.token_dim, self.config = n_tokens, token_dim, config
        n_dims = n_tokens * token_dim
        n_features = len(genes)
        if config.kind == "set":
            n_features = tokenizer.n_identities * tokenizer.n_values
        self.loadings: Tensor
        self.offset: Tensor
        self.scale: Tensor
        self.register_buffer("loadings", torch.zeros(n_features, n_dims))
        self.register_buffer("offset", torch.zeros(n_dims))
        self.register_buffer("scale", torch.ones(n_tokens))
        self.set_encoder: SetEncoder | None = None
        if config.kind == "set":
            self.set_encoder = SetEncoder(
                tokenizer.n_identities,
                tokenizer.n_values,
                n_slots=n_tokens,
                width=config.width,
                depth=config.depth,
                n_heads=config.n_heads,
                dropout=config.dropout,
            )
            self.project = PerTokenLinear(n_tokens, config.width, token_dim, zero=True)
        self.decoder = Decoder(n_dims, len(genes), config.decoder_hidden, config.dropout)
        self.explained = 0.0

    @classmethod
    def start(
        cls, cells: Cells, tokenizer: Tokenizer, config: LatentConfig, seed: int
    ) -> Autoencoder:
        """Build the autoencoder at its linear start: principal components and ridge regression.

        Parameters
        ----------
        cells
            Training cells.
        tokenizer
            Fitted on them.
        config
            The configuration.
        seed
            Of initial weights and randomised decompositions.
        """
        n_dims = config.n_dims or choose_n_dims(cells.n_cells, cells.n_genes)
        token_dim = min(config.token_dim, n_dims)
        n_tokens = -(-n_dims // token_dim)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = cls(tokenizer, cells.genes, n_tokens, token_dim, config)
        anchor = fit_anchor(model.features(cells), n_tokens, token_dim, seed)
        model.loadings.copy_(torch.from_numpy(anchor.loadings))
        model.offset.copy_(torch.from_numpy(anchor.offset))
        model.scale.copy_(torch.from_numpy(anchor.scale))
        model.explained = anchor.explained
        moments = RidgeMoments(n_tokens * token_dim, cells.n_genes)
        for start in range(0, cells.n_cells, ENCODE_BATCH):
            batch = cells.take(slice(start, start + ENCODE_BATCH))
            moments.add(
                model.encode(batch).flatten(1),
                torch.from_numpy(batch.log_normalized().toarray()),
                torch.from_numpy(batch.counts.toarray()),
                torch.from_numpy(batch.size_factors),
            )
        model.decoder.start_at_ridge(moments)
        return model

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.loadings.device

    def features(self, cells: Cells) -> sparse.csr_matrix | np.ndarray:
        """What the linear part of the encoder sees, shape (N, F)."""
        if self.config.kind == "pca":
            return cells.log_normalized()
        if self.tokenizer.same_for_every_cell:
            return self.tokenizer(cells).values.flatten(1).numpy()
        blocks = []
        for start in range(0, cells.n_cells, ENCODE_BATCH):
            tokens = self.tokenizer(cells.take(slice(start, start + ENCODE_BATCH)))
            row, column = torch.nonzero(tokens.mask, as_tuple=True)
            n_values = tokens.values.shape[-1]
            at = tokens.identities[row, column][:, None] * n_values + torch.arange(n_values)
            rows = row[:, None].expand_as(at)
            blocks.append(
                sparse.csr_matrix(
                    (tokens.values[row, column].flatten(), (rows.flatten(), at.flatten())),
                    shape=(len(tokens.mask), self.loadings.shape[0]),
                )
            )
        return sparse.vstack(blocks, format="csr")

    def tokenize(self, cells: Cells) -> TokenSet | Tensor:
        """What the encoder needs of a mini-batch: its token set, or dense log expression."""
        if self.config.kind == "set":
            return self.tokenizer(cells)
        return torch.from_numpy(cells.log_normalized().toarray())

    def forward(self, tokens: TokenSet | Tensor) -> Tensor:
        """Encode a tokenized mini-batch into latent tokens, shape (B, K, D)."""
        if isinstance(tokens, Tensor):
            return self._shape(tokens @ self.loadings - self.offset)
        values_BTV = tokens.values * tokens.mask[..., None]
        n_values = values_BTV.shape[-1]
        if self.tokenizer.same_for_every_cell:
            linear_BF = values_BTV.flatten(1) @ self.loadings
        else:
            by_identity = self.loadings.view(-1, n_values, self.loadings.shape[1])
            linear_BF = torch.einsum("btv,btvf->bf", values_BTV, by_identity[tokens.identities])
        assert self.set_encoder is not None
        slots_BKW = self.set_encoder(tokens.values, tokens.identities, tokens.mask)
        return self._shape(linear_BF - self.offset) + self.project(slots_BKW)

    def _shape(self, z_BF: Tensor) -> Tensor:
        return z_BF.view(-1, self.n_tokens, self.token_dim)

    @torch.no_grad()
    def encode(self, cells: Cells) -> Tensor:
        """Encode any number of cells in mini-batches, float32, shape (N, K, D), on the CPU."""
        self.eval()
        parts = []
        for start in range(0, cells.n_cells, ENCODE_BATCH):
            tokens = self.tokenize(cells.take(slice(start, start + ENCODE_BATCH)))
            parts.append(self(tokens.to(self.device)).cpu())
        if not parts:
            return torch.zeros(0, self.n_tokens, self.token_dim)
        return torch.cat(parts)

    def decode(self, z_BKD: Tensor, size_B: Tensor) -> CountModel:
        """Distribution of the counts at the given size factors."""
        return self.decoder(z_BKD.flatten(1), size_B)

    def to_config(self) -> dict[str, Any]:
        """Everything but the weights, for JSON."""
        return {
            "config": asdict(self.config),
            "n_tokens": self.n_tokens,
            "token_dim": self.token_dim,
            "explained": self.explained,
            "tokenizer": self.tokenizer.to_config(),
        }
