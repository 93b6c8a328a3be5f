"""The autoencoder of a training: fitted, another model's, or from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from celldit.latent.autoencoder import Autoencoder, LatentConfig
from celldit.tokenizers import tokenizer_from_config

if TYPE_CHECKING:
    from celldit.data.store import CellStore
    from celldit.latent.pretrained import BorrowedAutoencoder
    from celldit.tokenizers import Tokenizer
    from celldit.training.saving.checkpoints import Part


def write_autoencoder(autoencoder: Autoencoder) -> dict[str, Any]:
    """A fitted autoencoder as a result for checkpoints."""
    return {
        "config": autoencoder.to_config(),
        "tokenizer": autoencoder.tokenizer.arrays(),
        "weights": autoencoder.state_dict(),
        "residual": autoencoder.decoder.hidden,
    }


def read_autoencoder(result: Mapping[str, Any], genes: tuple[str, ...]) -> Autoencoder:
    """Read what :func:`write_autoencoder` wrote."""
    config = result["config"]
    autoencoder = Autoencoder(
        tokenizer_from_config(config["tokenizer"], result["tokenizer"]),
        genes,
        config["n_tokens"],
        config["token_dim"],
        LatentConfig(**config["config"]),
        result["residual"],
    )
    autoencoder.explained = config["explained"]
    autoencoder.load_state_dict(result["weights"])
    return autoencoder.eval()


def fit_autoencoder(
    cells: CellStore,
    tokenizer: Tokenizer,
    latent: LatentConfig,
    *,
    borrowed: BorrowedAutoencoder | None,
    seed: int,
    part: Part | None,
) -> Autoencoder:
    """Make the autoencoder.

    Parameters
    ----------
    cells
        Training cells.
    tokenizer, latent
        Unfitted tokenizer and shape of a new autoencoder; not looked at where one is borrowed.
    borrowed
        Another model's autoencoder to take over; None for a new one.
    seed
        Of samples of cells.
    part
        Where checkpoints are; None for none.

    Returns
    -------
    Autoencoder
        On the CPU.
    """
    finished = None if part is None else part.finished()
    if finished is not None:
        return read_autoencoder(finished, cells.genes)
    if borrowed is None:
        autoencoder = Autoencoder.fit(cells, tokenizer.fit(cells), latent, seed)
        autoencoder.round_weights()
    else:
        autoencoder = borrowed.fit(cells, seed)
    if part is not None:
        part.finish(write_autoencoder(autoencoder))
    return autoencoder.cpu()
