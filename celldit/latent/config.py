"""Shape of the latent space."""

from __future__ import annotations

from dataclasses import dataclass

from celldit.arguments import check_kind, check_whole, refuses_former
from celldit.errors import InputError

SET_LEFT = "Set attention is now in the flow network, by default; leave {} out."
IDLE = ("decoder_hidden", "dropout")
FORMER = {
    "decoder": "The decoder is log-linear; leave it out.",
    **dict.fromkeys(IDLE, "The decoder is log-linear; leave it out."),
    "likelihood": "Counts are negative binomial; leave it out.",
    "kind": f"The encoder is linear in log expression. {SET_LEFT.format('it')}",
    **dict.fromkeys(("encoder", "width", "depth", "n_heads"), SET_LEFT.format("it")),
}
"""Options that earlier versions had, and what to do instead."""


@refuses_former(FORMER, IDLE)
@dataclass(frozen=True)
class LatentConfig:
    """Shape of the latent space.

    Attributes
    ----------
    n_dims
        Dimensions in all; None chooses from the data (48, fewer for few cells or genes).
    token_dim
        Dimensions of one latent token.
    """

    n_dims: int | None = None
    token_dim: int = 8

    def __post_init__(self) -> None:
        if self.n_dims is not None:
            check_whole(self.n_dims, "n_dims")
        check_whole(self.token_dim, "token_dim")


def latent_config(latent: str | LatentConfig) -> LatentConfig:
    """Settings of a latent, which may be called by the name ``"pca"``.

    InputError if it is something else; of what earlier versions had it says what to do instead.
    """
    if isinstance(latent, str):
        if latent == "pca":
            return LatentConfig()
        if latent == "set":
            raise InputError(SET_LEFT.format("latent="))
        raise InputError(f"latent={latent!r} is not known; use 'pca' or a LatentConfig.")
    check_kind(latent, LatentConfig, "latent", "'pca' or a LatentConfig")
    return latent
