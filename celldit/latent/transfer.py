"""An autoencoder trained on one data set: for the genes of another, as the start of a new model."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from celldit.arguments import check_number
from celldit.data.genes import check_unique_genes, explain_mismatch
from celldit.data.store import CellStore
from celldit.errors import InputError, outside
from celldit.latent.autoencoder import Autoencoder
from celldit.latent.calibration import LogLinear, calibrate, thin
from celldit.latent.config import LatentConfig
from celldit.tokenizers import Tokenizer, tokenizer_from_config

# Tensors of the state that have an axis of genes, and what a new gene gets there.
_BY_GENE = {
    "loadings": (0, "zero"),
    "feature_mean": (0, "zero"),
    "decoder.loadings": (1, "zero"),
    "decoder.bias": (0, "median"),
    "decoder.log_ceiling": (0, "max"),
    "decoder.head.log_theta": (0, "median"),
    "decoder.residual.3.weight": (0, "zero"),
}


@dataclass(frozen=True, eq=False)
class GeneMatch:
    """How the genes of a data set and of an autoencoder correspond."""

    genes: tuple[str, ...]  # the data set's, in its order
    position: np.ndarray  # where each is among the autoencoder's, int64 (G,); -1 for a new one
    missing: tuple[str, ...]  # genes of the autoencoder that the data set lacks

    @property
    def new(self) -> tuple[str, ...]:
        """Genes of the data set that the autoencoder does not know."""
        return tuple(gene for gene, at in zip(self.genes, self.position, strict=True) if at < 0)

    @property
    def n_shared(self) -> int:
        """Number of genes that both have."""
        return int((self.position >= 0).sum())

    @property
    def overlap(self) -> float:
        """Share of the autoencoder's genes that the data set has."""
        return self.n_shared / max(1, self.n_shared + len(self.missing))

    def __str__(self) -> str:
        n_known = self.n_shared + len(self.missing)
        return (
            f"{self.n_shared} of the model's {n_known} genes are in the data ({self.overlap:.0%}); "
            f"{len(self.new)} genes of the data are new to the model"
        )


def match_genes_of(known: Sequence[str], genes: Sequence[str]) -> GeneMatch:
    """Look up the genes of a data set among the genes of an autoencoder, by name.

    InputError if a gene of the data occurs twice.
    """
    genes = tuple(str(gene) for gene in genes)
    check_unique_genes(genes)
    at = {gene: i for i, gene in enumerate(known)}
    position = np.array([at.get(gene, -1) for gene in genes], dtype=np.int64)
    present = set(genes)
    return GeneMatch(genes, position, tuple(gene for gene in known if gene not in present))


def match_autoencoder(
    autoencoder: Autoencoder,
    genes: Sequence[str],
    *,
    cells: CellStore | None = None,
    min_overlap: float = 0.5,
) -> tuple[Autoencoder, GeneMatch]:
    """Carry a trained autoencoder over to a data set with other genes; it is not changed.

    Genes are matched by name, in whatever order. A gene that the data lack counts as lying at its
    mean over the old training cells. A new gene is not read by the encoder (its loadings are zero
    until trained); the decoder gives it no dependence on the latent and the level of the median
    gene, or, given `cells`, what a regression of its counts on their latents finds.

    What comes back is for the new genes, in their order; ``str(match)`` says what was found in a
    sentence. InputError if fewer than a share `min_overlap` of the autoencoder's genes are among
    them, that is no share, or a gene occurs twice. Cells have these genes, in their order.
    """
    check_number(min_overlap, "min_overlap", 1)
    match = match_genes_of(autoencoder.genes, genes)
    if match.n_shared == 0 or match.overlap < min_overlap:
        why, _ = explain_mismatch(autoencoder.genes, match.genes)
        raise InputError(
            f"Only {match.n_shared} of the model's {len(autoencoder.genes)} genes are in the data "
            f"({match.overlap:.0%}, at least {min_overlap:.0%} are needed); the model knows {why}. "
            "Rename the genes, or pass a smaller min_overlap."
        )
    old = autoencoder
    tokenizer = match_tokenizer(old.tokenizer, match)
    shape = old.n_tokens, old.token_dim, old.config, old.decoder.hidden
    new = Autoencoder(tokenizer, match.genes, *shape)
    new.explained = old.explained
    state = {
        name: _matched(tensor, _BY_GENE[name], match) if name in _BY_GENE else tensor.clone()
        for name, tensor in old.state_dict().items()
    }
    shared = match.position[match.position >= 0]
    state["offset"] = old.offset - _means_left_out(old, shared)
    new.load_state_dict(state)
    new.to(old.device).eval()
    if cells is not None and match.new:
        _fit_new_genes(new, cells, np.flatnonzero(match.position < 0))
    return new, match


@dataclass(frozen=True, eq=False)
class BorrowedAutoencoder:
    """A trained autoencoder, and how it is taken over."""

    autoencoder: Autoencoder  # with the genes of its own data; never changed
    origin: str  # identifier of the model that it is from
    min_overlap: float = 0.5  # as in celldit.Pretrained, as is `train`
    train: bool = True

    def __post_init__(self) -> None:
        check_number(self.min_overlap, "min_overlap", 1)

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
        """Refuse a tokenizer or latent beside it, of which it has its own, with an InputError."""
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
        match = match_genes_of(self.autoencoder.genes, genes)
        return {"from": self.origin, "genes": str(match), "trained_further": self.train}


def match_tokenizer(tokenizer: Tokenizer, match: GeneMatch) -> Tokenizer:
    """The same tokens from other genes: loadings of genes that the data lack are left out.

    A new gene belongs to no set; as a token of its own its typical level is the median.
    """
    arrays = dict(tokenizer.arrays())
    at, known = match.position, match.position >= 0
    if "members" in arrays:
        new_index = np.full(len(tokenizer.genes), -1, dtype=np.int64)
        new_index[at[known]] = np.flatnonzero(known)
        members = new_index[arrays["members"]]
        kept = members >= 0
        ends = np.concatenate([[0], np.cumsum(kept)])
        arrays["members"] = members[kept]
        arrays["offsets"] = ends[arrays["offsets"]].astype(np.int64)
        arrays["loadings"] = arrays["loadings"][kept]
        arrays["center"] = np.where(known, arrays["center"][at], 0).astype(np.float32)
        arrays["scale"] = np.where(known, arrays["scale"][at], 1).astype(np.float32)
    else:
        typical = arrays["typical"]
        arrays["typical"] = np.where(known, typical[at], np.median(typical))
    config = {**tokenizer.to_config(), "genes": list(match.genes)}
    return tokenizer_from_config(config, arrays)


def _matched(tensor: Tensor, axis_and_fill: tuple[int, str], match: GeneMatch) -> Tensor:
    """Reorder along the axis of genes; new ones get zero, or a typical value of the known."""
    axis, fill = axis_and_fill
    position = torch.from_numpy(match.position).to(tensor.device)
    result = tensor.index_select(axis, position.clamp_min(0))
    new = torch.nonzero(position < 0).flatten()
    if not len(new):
        return result
    if fill == "zero":
        return result.index_fill(axis, new, 0)
    if fill == "median":
        typical = tensor.median(axis, keepdim=True).values
    else:
        typical = tensor.amax(axis, keepdim=True)
    shape = list(tensor.shape)
    shape[axis] = len(new)
    return result.index_copy(axis, new, typical.expand(shape).contiguous())


def _means_left_out(model: Autoencoder, shared: np.ndarray) -> Tensor:
    """What the genes that the data lack would add to a cell that has them at their mean."""
    left_out = torch.ones(len(model.feature_mean), dtype=torch.bool)
    left_out[torch.from_numpy(shared)] = False
    left_out = left_out.to(model.device)
    return model.feature_mean[left_out] @ model.loadings[left_out]


@torch.no_grad()
def _fit_new_genes(model: Autoencoder, cells: CellStore, new: np.ndarray) -> None:
    """Regress the counts of new genes on the latents of cells."""
    some = cells.take(thin(cells.n_cells, len(new), 0))
    z_NF = model.encode(some).flatten(1)
    counts_NG = torch.from_numpy(some.counts[:, new].toarray())
    size_N = torch.from_numpy(some.size_factors)
    rate_G = (1e4 * counts_NG.sum(0) / size_N.sum()).clamp_min(1e-3)
    slopes_FG = torch.full((z_NF.shape[1], len(new)), 0.1)
    start = LogLinear(rate_G.log(), slopes_FG, torch.ones(len(new)))
    fitted = calibrate(z_NF, counts_NG, size_N, start)
    at = torch.from_numpy(new).to(model.device)
    model.decoder.loadings[:, at] = fitted.slopes_FG.to(model.device)
    model.decoder.bias[at] = fitted.bias_G.to(model.device)
    peak_G = (counts_NG * (1e4 / size_N[:, None])).amax(0)
    model.decoder.log_ceiling[at] = torch.log(2 * peak_G.clamp_min(1)).to(model.device)
    model.decoder.head.log_theta[at] = fitted.theta_G.log().to(model.device)
