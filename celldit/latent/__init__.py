"""Between cells and latent tokens: anchored at linear models, trained on counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celldit.lazy import members_of

if TYPE_CHECKING:
    from celldit.latent.autoencoder import Autoencoder
    from celldit.latent.config import LatentConfig
    from celldit.latent.likelihoods import CountModel

__all__ = ["Autoencoder", "CountModel", "LatentConfig"]

__getattr__, __dir__ = members_of(
    __name__, {"Autoencoder": "autoencoder", "CountModel": "likelihoods", "LatentConfig": "config"}
)
