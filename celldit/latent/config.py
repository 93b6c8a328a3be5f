"""Shape of the latent space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from celldit.arguments import refuses_former
from celldit.errors import InputError, UnknownNameError

ENCODERS = ("shared", "per_token")
FORMER = {
    "decoder": "What is added to the log-linear decoder is a small perceptron; leave it out.",
    "likelihood": "Counts are negative binomial; leave it out.",
}
"""Options that earlier versions had, and what to do instead."""


@refuses_former(FORMER)
@dataclass(frozen=True)
class LatentConfig:
    """Shape of the latent space and size of the networks around it.

    Attributes
    ----------
    kind
        ``"pca"``: the encoder is linear in log expression. ``"set"``: it is linear in the tokens,
        plus set attention that starts at zero.
    n_dims
        Dimensions in all; None chooses from the data (48, fewer for few cells or genes).
    token_dim
        Dimensions of one latent token.
    width, depth, n_heads
        Size of the set encoder.
    encoder
        How values of a token enter the set encoder: ``"shared"``, by one network for all tokens,
        which each scales; ``"per_token"``, with a matrix of each token's own beside it, for gene
        sets and modules, whose tokens are few and hold several values each.
    decoder_hidden
        Width of the decoder's non-linear residual; 0 for a purely log-linear decoder.
    dropout
        In encoder and decoder residuals.
    """

    kind: Literal["pca", "set"] = "pca"
    n_dims: int | None = None
    token_dim: int = 8
    width: int = 64
    depth: int = 2
    n_heads: int = 4
    encoder: Literal["shared", "per_token"] = "shared"
    decoder_hidden: int = 64
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.kind not in ("pca", "set"):
            raise InputError(f"latent={self.kind!r} is not known; use 'pca' or 'set'.")
        if self.n_dims is not None and self.n_dims < 1:
            raise InputError(f"n_dims={self.n_dims} must be at least 1.")
        if self.encoder not in ENCODERS:
            raise UnknownNameError.among("encoder", self.encoder, ENCODERS)
        if self.encoder != "shared" and self.kind != "set":
            raise InputError(f'encoder={self.encoder!r} needs kind="set"; "pca" reads no tokens.')
