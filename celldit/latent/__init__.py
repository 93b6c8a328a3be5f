"""Between cells and latent tokens: anchored at linear models, trained on counts."""

from celldit.latent.autoencoder import Autoencoder
from celldit.latent.config import LatentConfig
from celldit.latent.likelihoods import CountDistribution, CountModel
from celldit.latent.other_likelihoods import GaussianModel, PoissonModel, ZeroInflatedModel
from celldit.latent.transfer import GeneMatch, match_autoencoder

__all__ = [
    "Autoencoder",
    "CountDistribution",
    "CountModel",
    "GaussianModel",
    "GeneMatch",
    "LatentConfig",
    "PoissonModel",
    "ZeroInflatedModel",
    "match_autoencoder",
]
