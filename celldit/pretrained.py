"""Whose autoencoder a new model starts from, as users say it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from celldit.errors import InputError
from celldit.io.model_folder import load_trained
from celldit.latent.transfer import BorrowedAutoencoder

if TYPE_CHECKING:
    from celldit.model import CellDiT


@dataclass(frozen=True, eq=False)
class Pretrained:
    """Another model whose autoencoder is to serve other data: ``CellDiT(adata, autoencoder=...)``.

    Genes are matched by name. A gene that the data lack counts as lying at its mean over the cells
    that the autoencoder was trained on; a new one is decoded from the latent, by a regression of
    its counts, but not read into it.

    Attributes
    ----------
    model
        A trained :class:`~celldit.CellDiT`, or the folder of a saved one.
    min_overlap
        Least share of the model's genes that must be among those of the data, from 0 (any) to 1.
    train
        Whether the decoder is fitted to the data, its old weights being the prior. If not, it stays
        what it was, as the encoder does either way, up to one factor per latent token, which the
        flow needs.

    Examples
    --------
    >>> start = cd.Pretrained(model, min_overlap=0.3, train=False)
    >>> cd.CellDiT(adata, autoencoder=start)
    CellDiT(299 genes, 3 perturbations, 12 conditions, not trained)
    """

    model: CellDiT | str | os.PathLike[str]
    min_overlap: float = 0.5
    train: bool = True

    def borrow(self) -> BorrowedAutoencoder:
        """Read the autoencoder.

        NotTrainedError if the model is not trained. FileError if there is no such folder, or it is
        damaged. InputError if this is not a model, or `min_overlap` is no share.
        """
        if isinstance(self.model, (str, os.PathLike)):
            trained = load_trained(self.model)
        elif hasattr(self.model, "is_trained"):
            trained = self.model.trained
        else:
            raise InputError(
                "autoencoder= must be a trained CellDiT, the folder of a saved one, or "
                f"celldit.Pretrained, not {type(self.model).__name__}."
            )
        return BorrowedAutoencoder(
            trained.autoencoder, trained.model_id, self.min_overlap, self.train
        )


ModelOrFolder: TypeAlias = "CellDiT | str | os.PathLike[str] | Pretrained"


def borrow(given: ModelOrFolder | None) -> BorrowedAutoencoder | None:
    """Read what the argument ``autoencoder=`` names; None for nothing."""
    if given is None:
        return None
    return (given if isinstance(given, Pretrained) else Pretrained(given)).borrow()
