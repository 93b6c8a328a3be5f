"""Which tokens the latent slots read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
import torch

from celldit.data.cells import Cells
from celldit.errors import InputError
from celldit.latent.autoencoder import Autoencoder
from celldit.nn.set_encoder import SetEncoder
from celldit.tl.cells import read_cells, trained_parts, writable

if TYPE_CHECKING:
    from celldit.model import CellDiT

__all__ = ["attention"]

BATCH = 512


def attention(
    adata: ad.AnnData,
    model: CellDiT,
    *,
    key_added: str = "celldit_attention",
    max_cells: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Average, for each condition, how much each latent slot reads from each token.

    Attention says where the set encoder looks, not what causes what. Training teaches it to tell
    some of a cell's molecules from the others, and lets it into the latent only where that is worth
    something beyond a linear encoder (:mod:`celldit.training.encoder_stage`); where it is not,
    predictions do not depend on what is shown here (``model.trained.autoencoder.attends``). A token
    that a cell lacks (with the tokenizers of single genes) counts as not attended.

    Parameters
    ----------
    adata
        Measured or predicted cells with the model's genes.
    model
        A trained model with ``latent="set"``.
    key_added
        Key in ``uns``.
    max_cells
        Most cells of a condition; more are thinned.
    seed
        Of the thinning.

    Returns
    -------
    pandas.DataFrame
        Also written to ``uns[key_added]``. Columns ``perturbation``, ``context``, ``slot``,
        ``token``, ``attention`` (mean over cells, blocks and heads; sums to 1 over the tokens) and
        ``difference`` (minus the controls of the same context; NaN where there are none).

    Raises
    ------
    InputError
        If the model's latent has no set encoder, or genes are missing.
    NotTrainedError
        If the model was not trained.

    Examples
    --------
    >>> table = cd.tl.attention(adata, set_model)  # a model with latent="set"
    >>> bool(table["attention"].between(0, 1).all())
    True
    """
    trained = trained_parts(model)
    encoder = trained.autoencoder.set_encoder
    if encoder is None:
        raise InputError(
            'This model has the latent "pca", which is linear and attends to nothing; train '
            'CellDiT(adata, latent="set"), or see cd.tl.token_activity.'
        )
    if max_cells < 1:
        raise InputError(f"max_cells={max_cells!r} must be at least 1.")
    target = writable(adata, copy=False)
    cells = read_cells(adata, trained)
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"perturbation": cells.perturbations, "context": cells.contexts})
    means: dict[tuple[str, str], np.ndarray] = {}
    for (perturbation, context), rows in frame.groupby(["perturbation", "context"]).indices.items():
        if len(rows) > max_cells:
            rows = np.sort(rng.choice(rows, max_cells, replace=False))
        key = (str(perturbation), str(context))
        means[key] = _mean_attention(trained.autoencoder, encoder, cells.take(rows))
    table = _table(means, cells.control, trained.autoencoder.tokenizer.token_names)
    target.uns[key_added] = table
    return table


@torch.no_grad()
def _mean_attention(autoencoder: Autoencoder, encoder: SetEncoder, cells: Cells) -> np.ndarray:
    """Mean attention of the cells, float64, shape (K, T)."""
    tokenizer = autoencoder.tokenizer
    total_KT = torch.zeros(autoencoder.n_tokens, tokenizer.n_identities, dtype=torch.float64)
    autoencoder.eval()
    for start in range(0, cells.n_cells, BATCH):
        tokens = tokenizer(cells.take(slice(start, start + BATCH))).to(autoencoder.device)
        read_BKT = encoder.attention(tokens.values, tokens.identities, tokens.mask).cpu().double()
        # A cell without any token attends to nothing rather than to everything.
        read_BKT = torch.nan_to_num(read_BKT).permute(1, 0, 2).flatten(1)
        total_KT.index_add_(1, tokens.identities.cpu().flatten(), read_BKT)
    return (total_KT / cells.n_cells).numpy()


def _table(
    means: dict[tuple[str, str], np.ndarray], control: str, names: tuple[str, ...]
) -> pd.DataFrame:
    frames = []
    for (perturbation, context), mean_KT in means.items():
        base_KT = means.get((control, context))
        n_slots, n_tokens = mean_KT.shape
        frames.append(
            pd.DataFrame(
                {
                    "perturbation": perturbation,
                    "context": context,
                    "slot": np.repeat(np.arange(n_slots), n_tokens),
                    "token": np.tile(np.array(names, dtype=object), n_slots),
                    "attention": mean_KT.ravel(),
                    "difference": np.nan if base_KT is None else (mean_KT - base_KT).ravel(),
                }
            )
        )
    table = pd.concat(frames, ignore_index=True)
    table.index = table.index.astype(str)
    return table
