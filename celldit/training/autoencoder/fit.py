"""Stage one as a whole: an autoencoder, from its linear start or another model's, and trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from celldit.latent.anchor import MAX_CELLS
from celldit.latent.autoencoder import Autoencoder, LatentConfig
from celldit.tokenizers import tokenizer_from_config
from celldit.training.autoencoder.stage import held_out_and_kept, train_latent

if TYPE_CHECKING:
    from celldit.data.store import CellStore
    from celldit.latent.pretrained import BorrowedAutoencoder
    from celldit.tokenizers import Tokenizer
    from celldit.training.config import TrainingConfig
    from celldit.training.saving.checkpoints import Part

History = list[dict[str, float]]


def write_autoencoder(autoencoder: Autoencoder, history: History) -> dict[str, Any]:
    """A trained autoencoder as a result for checkpoints."""
    return {
        "config": autoencoder.to_config(),
        "tokenizer": autoencoder.tokenizer.arrays(),
        "weights": autoencoder.state_dict(),
        "history": history,
    }


def read_autoencoder(
    result: Mapping[str, Any], genes: tuple[str, ...]
) -> tuple[Autoencoder, History]:
    """Read what :func:`write_autoencoder` wrote."""
    config = result["config"]
    autoencoder = Autoencoder(
        tokenizer_from_config(config["tokenizer"], result["tokenizer"]),
        genes,
        config["n_tokens"],
        config["token_dim"],
        LatentConfig(**config["config"]),
    )
    autoencoder.explained = config["explained"]
    autoencoder.load_state_dict(result["weights"])
    return autoencoder.eval(), result["history"]


def fit_autoencoder(
    cells: CellStore,
    tokenizer: Tokenizer,
    latent: LatentConfig,
    config: TrainingConfig,
    *,
    borrowed: BorrowedAutoencoder | None,
    max_epochs: int | None,
    seed: int,
    trainer_arguments: dict[str, Any],
    part: Part | None,
) -> tuple[Autoencoder, History]:
    """Make the autoencoder and train it.

    Parameters
    ----------
    cells
        Training cells.
    tokenizer, latent
        Unfitted tokenizer and shape of a new autoencoder; not looked at where one is borrowed.
    config, max_epochs, seed, trainer_arguments, part
        As in :func:`celldit.training.autoencoder.stage.train_latent`.
    borrowed
        Another model's autoencoder to start from; None for the linear start.

    Returns
    -------
    autoencoder, history
        On the CPU; its course of training, empty if it was not trained.
    """
    finished = None if part is None else part.finished()
    if finished is not None:
        return read_autoencoder(finished, cells.genes)
    keep_start = borrowed is not None
    if borrowed is None:
        _, kept = held_out_and_kept(cells.n_cells, config, seed)
        # Components are found on a sample of very many cells, which does not miss those held out;
        # a second start without them would be the same again.
        keep_start = len(kept) > MAX_CELLS
        own = cells.select(kept) if keep_start else cells
        autoencoder = Autoencoder.start(own, tokenizer.fit(cells), latent, seed)
    else:
        autoencoder = borrowed.start(cells)
    history: History = []
    if borrowed is None or borrowed.train:
        history = train_latent(
            autoencoder,
            cells,
            config,
            max_epochs=max_epochs,
            seed=seed,
            trainer_arguments=trainer_arguments,
            part=part,
            keep_start=keep_start,
        )
    if borrowed is not None and not history:
        # Its tokens have unit scale over the cells that it was trained on, not over these.
        autoencoder.normalize(cells)
    if borrowed is None or borrowed.train:
        autoencoder.round_weights()
    if part is not None:
        part.finish(write_autoencoder(autoencoder, history))
    return autoencoder.cpu(), history
