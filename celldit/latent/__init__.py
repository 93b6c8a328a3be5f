"""Between cells and latent tokens: anchored at linear models, trained on counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celldit.lazy import members_of

if TYPE_CHECKING:
    from celldit.latent.autoencoder import Autoencoder
    from celldit.latent.config import LatentConfig
    from celldit.latent.likelihoods import CountDistribution, CountModel
    from celldit.latent.transfer import GeneMatch, match_autoencoder

__all__ = [
    "Autoencoder",
    "CountDistribution",
    "CountModel",
    "GeneMatch",
    "LatentConfig",
    "match_autoencoder",
]

__getattr__, __dir__ = members_of(
    __name__,
    {
        "Autoencoder": "autoencoder",
        "CountDistribution": "likelihoods",
        "CountModel": "likelihoods",
        "GeneMatch": "transfer",
        "LatentConfig": "config",
        "match_autoencoder": "transfer",
    },
)
