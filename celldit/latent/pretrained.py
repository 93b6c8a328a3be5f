"""An autoencoder of another model as the start of a new one."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from celldit.errors import InputError, outside
from celldit.latent.config import LatentConfig
from celldit.latent.transfer import GeneMatch, match_autoencoder

if TYPE_CHECKING:
    from celldit.data.store import CellStore
    from celldit.latent.autoencoder import Autoencoder


@dataclass(frozen=True, eq=False)
class BorrowedAutoencoder:
    """A trained autoencoder, and how it is taken over.

    Attributes
    ----------
    autoencoder
        As it was trained, with the genes of its own data. It is never changed.
    origin
        Identifier of the model that it is from.
    min_overlap, train
        As in :class:`celldit.Pretrained`.
    """

    autoencoder: Autoencoder
    origin: str
    min_overlap: float = 0.5
    train: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.min_overlap <= 1:
            raise InputError(f"min_overlap={self.min_overlap} is not between 0 and 1.")

    @property
    def name(self) -> str:
        """What tells one start of training from another."""
        how = "its decoder fitted anew" if self.train else "kept"
        return f"autoencoder of {self.origin}, {how}, overlap of at least {self.min_overlap:g}"

    def matched(self, genes: Sequence[str]) -> tuple[Autoencoder, GeneMatch]:
        """Match it to other genes by name, and warn of what does not match.

        InputError if too few of its genes are among them.
        """
        matched, match = match_autoencoder(self.autoencoder, genes, min_overlap=self.min_overlap)
        if match.new or match.missing:
            warnings.warn(
                f"Of the autoencoder that was given, {match}. Missing genes count as lying at "
                "their mean; new ones are decoded from the latent.",
                stacklevel=outside(),
            )
        return matched, match

    def fit(self, cells: CellStore, seed: int) -> Autoencoder:
        """The autoencoder for these cells, at unit scale, its new genes fitted on them."""
        matched, _ = match_autoencoder(
            self.autoencoder, cells.genes, cells=cells, min_overlap=self.min_overlap
        )
        if self.train:
            matched.adapt_decoder(cells, seed)
        # Its tokens have unit scale over the cells that it was fitted on, not over these.
        matched.normalize(cells)
        return matched

    def check_arguments(self, tokenizer: object, latent: LatentConfig) -> None:
        """Refuse a tokenizer or latent beside it, of which it has its own.

        Raises
        ------
        InputError
            Naming the argument.
        """
        if tokenizer is not None:
            raise InputError(
                "tokenizer= and autoencoder= exclude each other: the autoencoder has a tokenizer "
                f"of its own ({self.autoencoder.tokenizer.name!r}); leave tokenizer= out."
            )
        # The default is what was not given.
        if latent not in (LatentConfig(), self.autoencoder.config):
            raise InputError(
                "latent= and autoencoder= contradict each other: the autoencoder has a latent of "
                "its own; leave latent= out."
            )

    def to_dict(self, genes: Sequence[str]) -> dict[str, Any]:
        """Where the autoencoder is from, for a model's record of its training."""
        _, match = match_autoencoder(self.autoencoder, genes, min_overlap=self.min_overlap)
        return {"from": self.origin, "genes": str(match), "trained_further": self.train}
