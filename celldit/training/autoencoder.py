"""The autoencoder of a training: fitted, another model's, or from a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from celldit.latent.autoencoder import Autoencoder, LatentConfig
from celldit.tokenizers import tokenizer_from_config

if TYPE_CHECKING:
    from celldit.data.store import CellStore
    from celldit.training.design import Design
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


def kept_autoencoder(
    part: Part | None, genes: tuple[str, ...], make: Callable[[], Autoencoder]
) -> Autoencoder:
    """The autoencoder that a checkpoint holds, or one that is made and kept there; on the CPU."""
    finished = None if part is None else part.finished()
    if finished is not None:
        return read_autoencoder(finished, genes)
    autoencoder = make()
    if part is not None:
        part.finish(write_autoencoder(autoencoder))
    return autoencoder.cpu()


def fit_autoencoder(cells: CellStore, design: Design, seed: int) -> Autoencoder:
    """Make the autoencoder of a new model, or take over the one that it borrows."""
    if design.borrowed is not None:
        return design.borrowed.fit(cells, seed)
    autoencoder = Autoencoder.fit(cells, design.tokenizer.fit(cells), design.latent, seed)
    autoencoder.round_weights()
    return autoencoder
