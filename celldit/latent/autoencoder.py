"""The latent space: cells to latent tokens and back to count distributions."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn
from torch.nn.functional import embedding_bag

from celldit.errors import InputError
from celldit.latent.anchor import Anchor, anchor_rows, choose_n_dims, fit_anchor
from celldit.latent.calibration import thin
from celldit.latent.config import LatentConfig
from celldit.latent.decoder import Decoder, RidgeMoments
from celldit.latent.likelihoods import CountModel
from celldit.latent.regression_anchor import MAX_FEATURES, fit_regression_anchor
from celldit.latent.sparse_rows import SparseRows
from celldit.memory import give_back
from celldit.nn.per_token import PerTokenLinear
from celldit.nn.set_encoder import SetEncoder
from celldit.tokenizers.token_set import PackedTokens, TokenSet

if TYPE_CHECKING:
    import pandas as pd

    from celldit.data.cells import Cells
    from celldit.data.store import CellStore
    from celldit.tokenizers import Tokenizer

ENCODE_BATCH = 1024


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
        self.feature_mean: Tensor
        self.register_buffer("feature_mean", torch.zeros(n_features))
        self.register_buffer("offset", torch.zeros(n_dims))
        self.token_scale: Tensor
        self.register_buffer("scale", torch.ones(n_tokens))
        self.register_buffer("token_scale", torch.ones(n_tokens))
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
                per_token=config.encoder == "per_token",
            )
            self.project = PerTokenLinear(n_tokens, config.width, token_dim, zero=True)
        self.decoder = Decoder(n_dims, len(genes), config.decoder_hidden, config.dropout)
        self.explained = 0.0

    @classmethod
    def start(
        cls, cells: CellStore, tokenizer: Tokenizer, config: LatentConfig, seed: int
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
        if config.kind == "set" and n_tokens > tokenizer.n_identities:
            if config.n_dims is not None:
                raise InputError(
                    f"{n_tokens} latent tokens (n_dims={n_dims} in tokens of {token_dim}) are more "
                    f"than the {tokenizer.n_identities} tokens that they summarise; use n_dims of "
                    f"at most {tokenizer.n_identities * token_dim}, or a larger token_dim."
                )
            n_tokens = tokenizer.n_identities
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = cls(tokenizer, cells.genes, n_tokens, token_dim, config)
        model.restart(cells, seed)
        return model

    @torch.no_grad()
    def restart(self, cells: CellStore, seed: int) -> None:
        """Fit the linear start to other training cells; networks stay as they are.

        The components and the count regression are found on a bounded sample, the ridge regression
        on all cells, a block at a time.
        """
        rows = anchor_rows(cells.n_cells, seed)
        sample = cells.take(slice(None) if rows is None else rows)
        anchor = self._anchor(sample, seed)
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
        for batch in cells.blocks(ENCODE_BATCH):
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
        self.decoder.start_at_regression(
            torch.cat(z_kept),
            torch.from_numpy(sparse.vstack(kept, format="csr").toarray()),
            torch.from_numpy(cells.size_factors[some]),
        )

    def _anchor(self, cells: Cells, seed: int) -> Anchor:
        """The linear start: components of the genes, or what tokens say of them."""
        features = self.features(cells)
        # Of very many tokens only the leading values are regressed on.
        n_leading = MAX_FEATURES // self.tokenizer.n_identities
        if self.config.kind == "pca" or sparse.issparse(features) or n_leading == 0:
            return fit_anchor(features, self.n_tokens, self.token_dim, seed)
        columns = np.flatnonzero(np.arange(features.shape[1]) % self.tokenizer.n_values < n_leading)
        log_expression = cells.log_normalized()
        anchor = fit_regression_anchor(
            features[:, columns], log_expression, self.n_tokens, self.token_dim
        )
        return anchor.among(columns, features.shape[1])

    @torch.no_grad()
    def normalize(self, cells: CellStore) -> Tensor:
        """Give every latent token unit root mean square over some cells, and change nothing else.

        Set attention adds to the linear start, after which the tokens are larger. The flow needs
        them at unit scale, so the size moves into the decoder's weights.

        Returns
        -------
        Tensor
            The size that each token had, shape (K,); also in the buffer ``token_scale``, divided
            out of ``scale``.
        """
        squares_K = torch.zeros(self.n_tokens, dtype=torch.float64)
        for batch in cells.blocks(self.batch_size):
            squares_K += self.encode(batch).double().square().sum(dim=(0, 2))
        size_K = (squares_K / (cells.n_cells * self.token_dim)).sqrt().float()
        # A token without content has no size to speak of.
        size_K = torch.where(size_K > 1e-3, size_K, torch.ones_like(size_K)).to(self.device)
        self.token_scale.copy_(size_K)
        size_F = size_K.repeat_interleave(self.token_dim)
        self.loadings.div_(size_F)
        self.offset.div_(size_F)
        self.scale.mul_(size_K)
        if self.set_encoder is not None:
            self.project.weight.div_(size_K[:, None, None])
            self.project.bias.div_(size_K[:, None])
        self.decoder.rescale(size_K)
        return size_K

    def at_own_size(self, z_BKD: Tensor) -> np.ndarray:
        """Undo the unit scale of latent tokens, for what leaves the model.

        At unit scale, as the flow needs them, distances count weak tokens as much as strong ones,
        and neighbours and clusters suffer (``docs/results/structure.csv``). At their own size
        tokens are in units of log expression, like principal components.

        Parameters
        ----------
        z_BKD
            Latent tokens at unit scale, shape (B, K, D).

        Returns
        -------
        ndarray
            Float32, shape (B, K·D).
        """
        return (z_BKD * self.scale.to(z_BKD)[:, None]).flatten(1).float().cpu().numpy()

    def gene_loadings(self) -> pd.DataFrame:
        """Loadings of the log-linear decoder, for ``varm``.

        Returns
        -------
        DataFrame
            G genes x K·D latent dimensions named ``token.dimension``; the change of a gene's log
            expectation when the dimension, its token at its own size, rises by one.
        """
        import pandas as pd

        names = [f"{k}.{d}" for k in range(self.n_tokens) for d in range(self.token_dim)]
        size_F = self.scale.repeat_interleave(self.token_dim)
        loadings_GF = (self.decoder.loadings.detach() / size_F[:, None]).cpu().T.numpy()
        return pd.DataFrame(loadings_GF.copy(), index=list(self.genes), columns=names)

    @property
    def attends(self) -> bool:
        """Whether attention adds anything to what the latent reads from the tokens linearly."""
        if self.set_encoder is None:
            return False
        return bool(self.project.weight.any() or self.project.bias.any())

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.loadings.device

    @property
    def batch_size(self) -> int:
        """Cells to encode at a time; thousands of tokens per cell take memory."""
        few_tokens = self.config.kind == "pca" or self.tokenizer.same_for_every_cell
        return ENCODE_BATCH if few_tokens else ENCODE_BATCH // 4

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
            at = _features(tokens.identities[row, column], tokens.values.shape[-1])
            rows = row[:, None].expand_as(at)
            blocks.append(
                sparse.csr_matrix(
                    (tokens.values[row, column].flatten(), (rows.flatten(), at.flatten())),
                    shape=(len(tokens.mask), self.loadings.shape[0]),
                )
            )
        return sparse.vstack(blocks, format="csr")

    def tokenize(self, cells: Cells) -> TokenSet | SparseRows:
        """What the encoder needs of a mini-batch: its token set, or log expression."""
        if self.config.kind == "set":
            return self.tokenizer(cells)
        return SparseRows.of(cells.log_normalized())

    def forward(self, tokens: TokenSet | PackedTokens | SparseRows) -> Tensor:
        """Encode a tokenized mini-batch, padded or packed, into latent tokens, shape (B, K, D)."""
        if isinstance(tokens, SparseRows):
            return self._shape(tokens.dense() @ self.loadings - self.offset)
        if isinstance(tokens, PackedTokens):
            n_values = tokens.values.shape[-1]
            linear_BF = self._linear(
                tokens.values.flatten(),
                _features(tokens.identities, n_values).flatten(),
                tokens.cu_lengths[:-1].long() * n_values,
            )
        else:
            values_BTV = tokens.values * tokens.mask[..., None]
            if self._in_order(tokens.identities):
                linear_BF = values_BTV.flatten(1) @ self.loadings
            else:
                at_BTV = _features(tokens.identities, values_BTV.shape[-1])
                linear_BF = self._linear(values_BTV.flatten(1), at_BTV.flatten(1), None)
        z_BKD = self._shape(linear_BF - self.offset)
        learning = torch.is_grad_enabled() and self.project.weight.requires_grad
        # What would be multiplied by zero need not be computed.
        return z_BKD + self.project(self._slots(tokens)) if learning or self.attends else z_BKD

    def _in_order(self, identities_BT: Tensor) -> bool:
        """Whether every cell has every token in its place, so that one plain product does."""
        n = self.tokenizer.n_identities
        if not self.tokenizer.same_for_every_cell or identities_BT.shape[1] != n:
            return False
        places_T = torch.arange(n, device=identities_BT.device)
        return torch.equal(identities_BT, places_T.expand_as(identities_BT))

    def _slots(self, tokens: TokenSet | PackedTokens) -> Tensor:
        """What attention reads from the tokens, shape (B, K, W)."""
        assert self.set_encoder is not None
        if isinstance(tokens, PackedTokens):
            return self.set_encoder.packed(
                tokens.values, tokens.identities, tokens.cu_lengths, tokens.max_length
            )
        slots_BKW: Tensor = self.set_encoder(tokens.values, tokens.identities, tokens.mask)
        return slots_BKW

    def _linear(self, values: Tensor, features: Tensor, offsets: Tensor | None) -> Tensor:
        """Sum over a cell's features of value times loadings, shape (B, F)."""
        if features.numel() == 0:
            n_cells = len(features) if offsets is None else len(offsets)
            return self.loadings.new_zeros(n_cells, self.loadings.shape[1])
        return embedding_bag(
            features, self.loadings, offsets, mode="sum", per_sample_weights=values
        )

    def _shape(self, z_BF: Tensor) -> Tensor:
        return z_BF.view(-1, self.n_tokens, self.token_dim)

    @torch.no_grad()
    def encode(self, cells: CellStore) -> Tensor:
        """Encode any number of cells in mini-batches, float32, shape (N, K, D), on the CPU."""
        self.eval()
        parts = []
        for batch in cells.blocks(self.batch_size):
            parts.append(self(self.tokenize(batch).to(self.device)).cpu())
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


def _features(identities: Tensor, n_values: int) -> Tensor:
    """Feature of each value of each token, one more dimension of length V."""
    steps = torch.arange(n_values, device=identities.device)
    return identities[..., None] * n_values + steps
