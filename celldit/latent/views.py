"""What the tokenizer's tokens see of the latent: the tokens of the velocity network.

The token of a gene set is its eigengenes, a linear map of log expression; the latent is one, too,
of fewer dimensions. The regression of one on the other says what of a token is in the latent:
``value_g = z A_g``. So a transformer that moves the latent can think in gene sets, modules or
genes. It is found from cells, which serves every tokenizer alike.
"""

from __future__ import annotations

import numpy as np
import torch

from celldit.data.store import CellStore
from celldit.latent.autoencoder import Autoencoder
from celldit.nn.views import TokenViews

MAX_CELLS = 5_000
MAX_VALUES = 20_000_000
"""Token values held at once while views are fitted; 80 MB."""
EMPTY = 1e-6
"""Spread below which a token sees nothing."""


@torch.no_grad()
def fit_views(
    autoencoder: Autoencoder, cells: CellStore, n_tokens: int, n_values: int, seed: int
) -> TokenViews:
    """Find what tokens see of the latent, and keep those that see most.

    The tokenizer of the autoencoder says what the tokens are; of the training cells a sample is
    looked at, drawn with the seed. There are up to `n_tokens` views of up to `n_values`, sorted by
    the names of their tokens, so that no order of gene sets or genes changes what is learned; each
    is scaled so that its first value has unit spread over the cells.
    """
    tokenizer = autoencoder.tokenizer
    n_kept = min(n_values, tokenizer.n_values)
    most = max(500, MAX_VALUES // (tokenizer.n_identities * tokenizer.n_values))
    n_sample = min(cells.n_cells, MAX_CELLS, most)
    rows = np.random.default_rng([seed, 5]).choice(cells.n_cells, n_sample, replace=False)
    sample = cells.take(np.sort(rows))
    z_NF = autoencoder.encode(sample).flatten(1).double()
    z_NF -= z_NF.mean(0)
    values_NTV = token_values(autoencoder, sample)[:, :, :n_kept]
    gram_FF = z_NF.T @ z_NF
    ridge = 1e-6 * gram_FF.diagonal().mean() + 1e-12
    cross_FX = z_NF.T.float() @ values_NTV.flatten(1)
    views_FX = torch.linalg.solve(gram_FF + ridge * torch.eye(len(gram_FF)), cross_FX.double())
    views_FTV = views_FX.view(len(gram_FF), tokenizer.n_identities, n_kept)
    first_FT = views_FTV[:, :, 0]
    spread_T = (first_FT * (gram_FF @ first_FT)).sum(0).div(n_sample).clamp(min=0).sqrt()
    chosen = torch.from_numpy(pick(spread_T.numpy(), tokenizer.token_names, n_tokens))
    unit_T = torch.where(spread_T > EMPTY, spread_T, torch.ones_like(spread_T))
    views_TFV = views_FTV.transpose(0, 1)[chosen] / unit_T[chosen, None, None]
    return TokenViews(views_TFV.float().contiguous(), chosen)


def token_values(autoencoder: Autoencoder, cells: CellStore) -> torch.Tensor:
    """Values of all tokens of cells, zero where a cell lacks one, float32, shape (N, I, V)."""
    tokenizer = autoencoder.tokenizer
    shape = cells.n_cells, tokenizer.n_identities, tokenizer.n_values
    values_NIV = torch.zeros(shape)
    start = 0
    for batch in cells.blocks(autoencoder.batch_size):
        tokens = tokenizer(batch)
        row, column = torch.nonzero(tokens.mask, as_tuple=True)
        values_NIV[start + row, tokens.identities[row, column]] = tokens.values[row, column]
        start += batch.n_cells
    return values_NIV


def pick(spread_T: np.ndarray, names: tuple[str, ...], n_tokens: int) -> np.ndarray:
    """The tokens of the largest spread, at least one, sorted by name, int64."""
    order = np.argsort(-spread_T, kind="stable")
    kept = order[spread_T[order] > EMPTY][:n_tokens]
    if not len(kept):  # cells that are all alike
        kept = order[:1]
    return np.array(sorted(kept.tolist(), key=lambda i: names[i]), dtype=np.int64)
