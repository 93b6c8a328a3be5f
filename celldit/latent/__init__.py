"""Between cells and latent tokens: anchored at linear models, trained on counts."""

from celldit.latent.autoencoder import Autoencoder
from celldit.latent.config import LatentConfig
from celldit.latent.likelihoods import CountModel

__all__ = ["Autoencoder", "CountModel", "LatentConfig"]
