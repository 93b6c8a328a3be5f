"""The latent space: cells to latent tokens and back to count distributions."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from torch import Tensor, nn
from torch.nn.functional import pad

from celldit.data.store import CellStore
from celldit.latent.anchor import anchor_rows, choose_n_dims, fit_anchor
from celldit.latent.calibration import thin
from celldit.latent.config import LatentConfig
from celldit.latent.decoder import Decoder, RidgeMoments
from celldit.latent.likelihoods import CountModel
from celldit.memory import give_back
from celldit.tokenizers import Tokenizer

TILE = 256
"""Rows of every product; the last are filled up, since bytes depend on how many there are."""
WIDE = 16
"""Least number of columns of the product that encodes."""
LARGE = ("loadings", "decoder.loadings")
"""Tensors of genes x dimensions: most of a model of many genes."""


def short(array: np.ndarray) -> np.ndarray:
    """The same numbers in 16 bits where they lose nothing by it, as rounded ones do."""
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    return half if np.array_equal(half.astype(array.dtype), array) else array


class Autoencoder(nn.Module):
    """Encoder to K latent tokens of D dimensions of about unit scale, and decoder to counts.

    The encoder is linear in log expression: its principal components. What the tokens of the fitted
    tokenizer see of the latent are the tokens of the velocity network. A `residual` is the width of
    a perceptron in the decoder, of a model of an earlier version; 0 for none.
    """

    batch_size = 1024
    """Cells that are read at a time."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        genes: tuple[str, ...],
        n_tokens: int,
        token_dim: int,
        config: LatentConfig,
        residual: int = 0,
    ) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.genes = genes
        self.n_tokens, self.token_dim, self.config = n_tokens, token_dim, config
        n_dims = n_tokens * token_dim
        self.loadings: Tensor
        self.offset: Tensor
        self.scale: Tensor
        self.register_buffer("loadings", torch.zeros(len(genes), n_dims))
        self.feature_mean: Tensor
        self.register_buffer("feature_mean", torch.zeros(len(genes)))
        self.register_buffer("offset", torch.zeros(n_dims))
        self.token_scale: Tensor
        self.register_buffer("scale", torch.ones(n_tokens))
        self.register_buffer("token_scale", torch.ones(n_tokens))
        self.decoder = Decoder(n_dims, len(genes), residual)
        self.explained = 0.0

    @classmethod
    def fit(
        cls, cells: CellStore, tokenizer: Tokenizer, config: LatentConfig, seed: int
    ) -> Autoencoder:
        """Fit an autoencoder: principal components, and the regression of counts on them.

        The components and the count regression are found on a bounded sample, a ridge regression
        from which the latter starts on all cells, a block at a time. The tokenizer was fitted on
        them; the seed is of samples and randomised decompositions.
        """
        n_dims = config.n_dims or choose_n_dims(cells.n_cells, cells.n_genes)
        token_dim = min(config.token_dim, n_dims)
        n_tokens = -(-n_dims // token_dim)
        model = cls(tokenizer, cells.genes, n_tokens, token_dim, config)
        model._fit(cells, seed)
        return model.eval()

    @torch.no_grad()
    def _fit(self, cells: CellStore, seed: int) -> None:
        rows = anchor_rows(cells.n_cells, seed)
        sample = cells.take(slice(None) if rows is None else rows)
        anchor = fit_anchor(sample.log_normalized(), self.n_tokens, self.token_dim, seed)
        del sample
        self.loadings.copy_(torch.from_numpy(anchor.loadings))
        self.feature_mean.copy_(torch.from_numpy(anchor.mean))
        self.offset.copy_(torch.from_numpy(anchor.offset))
        self.scale.copy_(torch.from_numpy(anchor.scale))
        self.explained = anchor.explained
        some = thin(cells.n_cells, cells.n_genes, seed)
        z_kept, kept = [], []
        moments = RidgeMoments(self.n_tokens * self.token_dim, cells.n_genes)
        start = 0
        for batch in cells.blocks(self.batch_size):
            z_BF = self.encode(batch).flatten(1)
            moments.add(
                z_BF,
                torch.from_numpy(batch.log_normalized().toarray()),
                torch.from_numpy(batch.counts.toarray()),
                torch.from_numpy(batch.size_factors),
            )
            first, last = np.searchsorted(some, [start, start + batch.n_cells])
            own = some[first:last] - start
            z_kept.append(z_BF[torch.from_numpy(own)])
            kept.append(batch.counts[own])
            start += batch.n_cells
        give_back()
        self.decoder.start_at_ridge(moments)
        self.decoder.fit(
            torch.cat(z_kept),
            torch.from_numpy(sparse.vstack(kept, format="csr").toarray()),
            torch.from_numpy(cells.size_factors[some]),
        )
        squares_KD = moments.zz.diagonal().view(self.n_tokens, self.token_dim) / cells.n_cells
        self._to_unit_scale(squares_KD.mean(1).sqrt())

    @torch.no_grad()
    def round_weights(self) -> None:
        """Round what is genes x dimensions to 16 bits, in which it is stored."""
        for name, tensor in self.state_dict().items():
            if name in LARGE:
                tensor.copy_(tensor.half().float())

    def adapt_decoder(self, cells: CellStore, seed: int) -> None:
        """Fit the decoder to cells of other data with the same genes; latents stay what they are.

        Of the cells a bounded sample is used, drawn with `seed`.
        """
        some = cells.take(thin(cells.n_cells, cells.n_genes, seed))
        self.decoder.adapt(
            self.encode(some).flatten(1).to(self.device),
            torch.from_numpy(some.counts.toarray()).to(self.device),
            torch.from_numpy(some.size_factors).to(self.device),
        )

    @torch.no_grad()
    def normalize(self, cells: CellStore) -> None:
        """Give every latent token unit root mean square over some cells, and change nothing else.

        The flow needs them at unit scale, which the encoder gives the cells that it was fitted on:
        a sample, or those of another model. The size moves into the decoder's weights.
        The size that each token had is in the buffer ``token_scale``, divided out of ``scale``.
        """
        squares_K = torch.zeros(self.n_tokens, dtype=torch.float64)
        for batch in cells.blocks(self.batch_size):
            squares_K += self.encode(batch).double().square().sum(dim=(0, 2))
        self._to_unit_scale((squares_K / (cells.n_cells * self.token_dim)).sqrt())

    def _to_unit_scale(self, size_K: Tensor) -> None:
        size_K = size_K.float()
        # A token without content has no size to speak of.
        size_K = torch.where(size_K > 1e-3, size_K, torch.ones_like(size_K)).to(self.device)
        self.token_scale.copy_(size_K)
        size_F = size_K.repeat_interleave(self.token_dim)
        self.loadings.div_(size_F)
        self.offset.div_(size_F)
        self.scale.mul_(size_K)
        self.decoder.rescale(size_K)

    def at_own_size(self, z_BKD: Tensor) -> np.ndarray:
        """Undo the unit scale of latent tokens, for what leaves the model; float32, shape (B, K·D).

        At unit scale, as the flow needs them, distances count weak tokens as much as strong ones,
        and neighbours and clusters suffer (``docs/results/structure.csv``). At their own size
        tokens are in units of log expression, like principal components.
        """
        return (z_BKD * self.scale.to(z_BKD)[:, None]).flatten(1).float().cpu().numpy()

    def gene_loadings(self) -> pd.DataFrame:
        """Loadings of the log-linear decoder, for ``varm``.

        G genes x K·D latent dimensions named ``token.dimension``; the change of a gene's log
        expectation when the dimension, its token at its own size, rises by one.
        """
        names = [f"{k}.{d}" for k in range(self.n_tokens) for d in range(self.token_dim)]
        size_F = self.scale.repeat_interleave(self.token_dim)
        loadings_GF = (self.decoder.loadings.detach() / size_F[:, None]).cpu().T.numpy()
        return pd.DataFrame(loadings_GF.copy(), index=list(self.genes), columns=names)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.loadings.device

    def forward(self, log_BG: Tensor) -> Tensor:
        """Encode the log expression of a mini-batch into latent tokens, shape (B, K, D)."""
        # Some narrow products add in an order that depends on the place of a row; wide ones do not.
        n_dims = self.loadings.shape[1]
        wide_GF = pad(self.loadings, (0, max(0, WIDE - n_dims)))
        z_BF = (log_BG @ wide_GF)[:, :n_dims] - self.offset
        return z_BF.view(-1, self.n_tokens, self.token_dim)

    @torch.no_grad()
    def encode(self, cells: CellStore) -> Tensor:
        """Encode any number of cells in mini-batches, float32, shape (N, K, D), on the CPU."""
        self.eval()
        parts = []
        for batch in cells.blocks(self.batch_size):
            log_BG = batch.log_normalized()
            for start in range(0, batch.n_cells, TILE):
                tile_BG = torch.from_numpy(log_BG[start : start + TILE].toarray())
                n_cells = len(tile_BG)
                filled_BG = pad(tile_BG, (0, 0, 0, TILE - n_cells))
                parts.append(self(filled_BG.to(self.device))[:n_cells].cpu())
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
