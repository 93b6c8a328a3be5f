"""What attention adds to the linear encoder, told from the counting noise that it could repeat.

An encoder that sees the very counts that it is judged by gains by repeating their noise, in cells
held out from training as well: on Norman's screen 6% of the likelihood, after which effects added
less well in the latent (``docs/latent_measured.md``). So the encoder learns from one part of a
cell's molecules what the other part is. The parts are drawn at random and independent given the
cell's rates: a binomial share of Poisson counts, a beta-binomial share of negative binomial ones
(count splitting: Batson, Royer & Webber 2019, "Molecular cross-validation"; Neufeld et al. 2024,
"Data thinning for convolution-closed distributions", JMLR 25),

    x ~ NB(μ, θ),  x₁ | x ~ BetaBinomial(x, pθ, (1-p)θ)   =>   x₁ ~ NB(pμ, pθ),
                                                              x - x₁ ~ NB((1-p)μ, (1-p)θ).

A decoder that learns to expect such parts gains by itself, whatever the encoder. So what attention
is worth is the likelihood of held-out molecules of held-out cells beyond that which a decoder of
the same linear latent reaches (measured in ``docs/results/attention_worth.csv``). It has to earn
what noise alone might (:data:`WORTH`); where it does not,
the latent stays linear.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from celldit.latent.autoencoder import Autoencoder
from celldit.latent.sparse_rows import SparseRows
from celldit.training.latent_batches import CountBatch, CountBatches
from celldit.training.likelihood import LatentStage, maximize
from celldit.training.parallel import rank_and_world

if TYPE_CHECKING:
    from celldit.data.cells import Cells
    from celldit.data.store import CellStore
    from celldit.training.checkpoints import Part
    from celldit.training.config import TrainingConfig

# Share of the molecules that are encoded. In use all are: the nearer to that, the less what is
# learned has to be carried from one depth to another.
ENCODED = 0.9
# Shape of a beta distribution below which a draw is no number.
LEAST_SHAPE = 1e-3
# What attention must lower the likelihood to before it is let in: less is luck.
WORTH = 0.98


class Learned(NamedTuple):
    """What came of learning what attention adds.

    Attributes
    ----------
    attends
        Whether it was let into the latent.
    attention
        Weights of the set encoder by their names in the autoencoder: what it learned to read,
        whether the latent uses it or not.
    """

    attends: bool
    attention: dict[str, Tensor]


def can_split(model: Autoencoder) -> bool:
    """Whether there is an encoder to learn."""
    return model.set_encoder is not None


def split_counts(
    counts: sparse.csr_matrix, theta_G: np.ndarray | None, rng: np.random.Generator
) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Draw which molecules are encoded; those, and the others.

    Parameters
    ----------
    counts
        Of B cells, shape (B, G).
    theta_G
        Inverse dispersion of each gene; None for Poisson counts.
    rng
        Of the draw.
    """
    share = np.full(counts.nnz, ENCODED)
    if theta_G is not None:
        shape = theta_G[counts.indices].astype(np.float64)
        shapes = [np.maximum(part * shape, LEAST_SHAPE) for part in (ENCODED, 1 - ENCODED)]
        share = rng.beta(*shapes)
    drawn = rng.binomial(np.rint(counts.data).astype(np.int64), share).astype(counts.dtype)
    encoded, others = counts.copy(), counts.copy()
    encoded.data, others.data = drawn, counts.data - drawn
    for part in (encoded, others):
        part.eliminate_zeros()
    return encoded, others


class SplitBatches(CountBatches):
    """Mini-batches whose tokens are of one part of the molecules and whose counts are the others.

    Parts of training cells are drawn anew in every epoch, those of held-out cells once. Size
    factors are shared out likewise, so that cells look as deep as they are.
    """

    def __init__(
        self, cells: CellStore, model: Autoencoder, size: int, *, seed: int | None
    ) -> None:
        head = model.decoder.head
        self.theta_G: np.ndarray | None = head.theta_G.detach().cpu().numpy().copy()
        super().__init__(cells, model, size, seed=seed)

    def made(self, cells: Cells, i: int) -> CountBatch:
        """Split the molecules of the cells of the mini-batch at position `i`."""
        rank, _ = rank_and_world()
        place = (0, 0) if self.seed is None else (1 + self.seed, self.epoch)
        rng = np.random.default_rng([*place, i, rank])
        encoded, others = split_counts(cells.counts, self.theta_G, rng)
        size_B = cells.size_factors
        part = replace(cells, counts=encoded, size_factors=size_B * np.float32(ENCODED))
        return CountBatch(
            self.model.tokenize(part),
            SparseRows.of(others),
            torch.from_numpy(size_B * np.float32(1 - ENCODED)),
        )


class SplitStage(LatentStage):
    """Negative log-likelihood of the molecules that were not encoded."""

    def nll(self, batch: CountBatch) -> Tensor:
        """Mean negative log-likelihood of a cell, in nats per gene."""
        others = self.model.decode(self.model(batch.tokens), batch.size_B)
        others = replace(others, theta_G=(1 - ENCODED) * others.theta_G)
        return -others.log_prob(batch.counts.dense()).mean()


def learn_encoder(
    model: Autoencoder,
    cells: CellStore,
    held_out: CellStore,
    config: TrainingConfig,
    *,
    n_epochs: int,
    n_steps: int,
    seed: int,
    trainer_arguments: dict[str, Any],
    part: Part | None,
) -> Learned:
    """Learn what attention adds, and leave the model with it where it is worth it.

    Where it is not, the model is left as it was, but for what attention reads.

    Parameters
    ----------
    model
        At its linear start, or trained before.
    cells, held_out
        To learn from, and to judge by.
    config
        Settings.
    n_epochs, n_steps
        Most epochs, and steps in them.
    seed
        Of the order of cells and of the draws.
    trainer_arguments
        For :class:`lightning.pytorch.Trainer`.
    part
        Where checkpoints of stage one are; None for none.
    """
    start, attended = copy.deepcopy(model.state_dict()), model.attends

    def best_of(name: str, learning: bool) -> tuple[float, float, dict[str, Tensor]]:
        """Likelihood at the start and at its best; the best state, or the last of no better."""
        own = None if part is None else part.beside(name)
        finished = None if own is None else own.finished()
        if finished is not None:
            return finished["at_start"], finished["best"], finished["state"]
        model.load_state_dict(start)
        frozen = [p for n, p in model.named_parameters() if not n.startswith("decoder.")]
        for parameter in frozen:
            parameter.requires_grad_(learning)
        batches = SplitBatches(cells, model, config.latent_batch, seed=seed)
        stage = SplitStage(model, batches, config, n_steps)
        maximize(
            stage,
            SplitBatches(held_out, model, model.batch_size, seed=None),
            n_epochs=n_epochs,
            seed=seed,
            trainer_arguments=trainer_arguments,
            part=own,
        )
        for parameter in frozen:
            parameter.requires_grad_(True)
        # What attention reads is told even where nothing came of it.
        state = stage.best_state if stage.best < stage.at_start else model.state_dict()
        found = stage.at_start, stage.best, copy.deepcopy(state)
        if own is not None:
            own.finish(dict(zip(("at_start", "best", "state"), found, strict=True)))
        return found

    at_start, best, state = best_of("encoder", learning=True)
    attends = best < WORTH * at_start
    if attends:
        # Expecting parts instead of whole cells is a gain that a decoder has by itself.
        attends = best < WORTH * best_of("linear", learning=False)[1]
    if not attends and attended:
        # Trained elsewhere: its latent needs the attention that it has.
        state = start
    attention = {n: tensor for n, tensor in state.items() if n.startswith("set_encoder.")}
    model.load_state_dict(state if attends else start | attention)
    return Learned(attends, attention)
