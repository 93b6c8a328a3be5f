"""Pairs for the flow: cells drawn by condition, and tables of conditions in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from celldit.flow.anchored import FlowCondition
from celldit.flow.transfer import to_device
from celldit.training.config import TrainingConfig
from celldit.training.latents import LatentFile
from celldit.training.parallel import rank_and_world

if TYPE_CHECKING:
    from celldit.conditions import ConditionTable
    from celldit.conditions.part_tokens import PartTokens
    from celldit.conditions.population import Population
    from celldit.conditions.states import States


class FlowBatch(NamedTuple):
    """Pairs of start and end points with what the network is told of them."""

    x0_BKD: Tensor
    x1_BKD: Tensor
    condition: FlowCondition

    def to(self, device: torch.device) -> FlowBatch:
        """Move to a device."""
        x0_BKD, x1_BKD = to_device(self.x0_BKD, device), to_device(self.x1_BKD, device)
        return FlowBatch(x0_BKD, x1_BKD, self.condition.to(device))

    def share(self, rank: int, world: int) -> FlowBatch:
        """What one of several processes takes of the batch, both kinds of start included."""
        own = slice(rank, None, world)
        return FlowBatch(self.x0_BKD[own], self.x1_BKD[own], self.condition[own])


@dataclass(frozen=True, eq=False)
class FlowTables:
    """All that stage two needs: cells by condition, and the prior's estimates, which are in memory.

    Attributes
    ----------
    z_NKD
        Latents of all cells, in memory or in a file.
    order
        Positions of the training cells among them, sorted by condition.
    first, size
        Where each condition's cells begin in that order, and how many there are, shape (C,).
    controls
        The condition that holds the controls of each condition, shape (C,).
    effects, positions
        Estimates with the condition's own cells and, second, without: shape (2, C, K, D).
    doubts
        Shape (2, C).
    factors
        Cholesky factors of the scatter, shape (X, F, F), and for each condition its row.
    contexts
        Number of each condition's context, shape (C,).
    parts
        Tokens of the parts, with the condition's own cells and without, where the network reads
        them.
    weight
        How often each condition is drawn, up to a constant, shape (C,); by default the square root
        of its cells.
    """

    z_NKD: Tensor | LatentFile
    order: np.ndarray
    first: np.ndarray
    size: np.ndarray
    controls: np.ndarray
    effects: Tensor
    positions: Tensor
    doubts: Tensor
    factors: Tensor
    factor_row: np.ndarray
    contexts: Tensor
    parts: tuple[PartTokens, PartTokens] | None = None
    weight: np.ndarray | None = None

    def parts_of(self, crossed_B: Tensor, condition_B: Tensor) -> tuple[Tensor | None, ...]:
        """Tokens of the parts of B pairs, and which are there; nothing where none are read."""
        if self.parts is None:
            return None, None
        own, without = (parts.tokens_QMP[condition_B] for parts in self.parts)
        tokens_BMP = torch.where(crossed_B[:, None, None] == 1, without, own)
        return tokens_BMP, self.parts[0].is_part_QM[condition_B]

    def by_state(self, table: ConditionTable, states: States, state_N: np.ndarray) -> FlowTables:
        """The same with a row for each condition and state, for the flow from noise.

        Parameters
        ----------
        table, states
            Conditions of all cells, and the states that cells may be in.
        state_N
            State of each cell.
        """
        at = np.argsort(table.index[self.order] * len(states) + state_N[self.order], kind="stable")
        order = self.order[at]
        pairs = np.stack([table.index[order], state_N[order]], axis=1)
        begins = np.flatnonzero(np.r_[True, (np.diff(pairs, axis=0) != 0).any(1)])
        size = np.diff(np.r_[begins, len(order)])
        of_R, state_R = pairs[begins].T
        centres_CF = np.stack([states.centre(condition) for condition in table.conditions])
        away_RF = states.offsets_SF[state_R] - centres_CF[of_R]
        away_RKD = torch.from_numpy(away_RF.astype(np.float32)).view(-1, *self.z_NKD.shape[1:])
        row = torch.from_numpy(of_R)
        parts = self.parts and (self.parts[0].rows(row), self.parts[1].rows(row))
        return FlowTables(
            self.z_NKD,
            order,
            begins,
            size,
            np.full(len(size), -1),
            self.effects[:, row],
            self.positions[:, row] + away_RKD,
            self.doubts[:, row],
            torch.from_numpy(states.factors_SFF.astype(np.float32)),
            state_R,
            self.contexts[row],
            parts,
            np.sqrt(self.size[of_R]) * size / self.size[of_R],
        )


def make_tables(
    z_NKD: Tensor | LatentFile,
    rows: np.ndarray,
    table: ConditionTable,
    population: Population,
    *,
    with_parts: bool = False,
) -> FlowTables:
    """Lay out the training rows by condition and look up every estimate once.

    Parameters
    ----------
    z_NKD
        Latents of N cells.
    rows
        Those to train on.
    table, population
        Conditions of the N cells, and the simple estimates.
    with_parts
        Whether the network reads tokens of the conditions' parts.
    """
    from celldit.conditions.briefing import context_numbers
    from celldit.conditions.part_tokens import PartTokens

    order = rows[np.argsort(table.index[rows], kind="stable")]
    size = np.bincount(table.index[rows], minlength=len(table))
    first = np.concatenate([[0], np.cumsum(size)[:-1]])
    shape = z_NKD.shape[1:]
    estimate = population.estimate(table.conditions)
    # Estimates without the condition's own cells; one too small for the prior has no others.
    prior, crossed = population.prior, estimate.effect.copy()
    crossed_doubt = estimate.doubt.copy()
    left_out, row = prior.leave_one_out(), {c: i for i, c in enumerate(table.conditions)}
    for i, condition in enumerate(prior.conditions):
        if condition not in row:  # known from other cells
            continue
        crossed[row[condition]] = left_out.mean[i]
        crossed_doubt[row[condition]] = left_out.doubt[i]
    effects = torch.from_numpy(np.stack([estimate.effect, crossed])).view(2, -1, *shape)
    base = torch.from_numpy(estimate.position - estimate.effect).view(-1, *shape)
    parts = None
    if with_parts:
        own, without = (
            PartTokens.of(prior, table.conditions, crossed=crossed) for crossed in (False, True)
        )
        parts = own, without
    surroundings = sorted({c.surroundings for c in table.conditions}, key=str)
    factors = np.stack([population.factor(key) for key in surroundings]).astype(np.float32)
    return FlowTables(
        z_NKD,
        order,
        first,
        size,
        control_of(table, size),
        effects,
        base + effects,
        torch.from_numpy(np.stack([estimate.doubt, crossed_doubt])),
        torch.from_numpy(factors),
        np.array([surroundings.index(c.surroundings) for c in table.conditions]),
        context_numbers(population, table.conditions),
        parts,
    )


def control_of(table: ConditionTable, size: np.ndarray) -> np.ndarray:
    """The control condition nearest in context and time to each condition, -1 where none is."""
    controls = [i for i, c in enumerate(table.conditions) if c.is_control and size[i] > 0]
    nearest = np.full(len(table), -1)
    for i, condition in enumerate(table.conditions):
        own = [j for j in controls if table.conditions[j].surroundings == condition.surroundings]
        context = [j for j in controls if table.conditions[j].context == condition.context]
        choice = own or context or controls
        nearest[i] = choice[0] if choice else -1
    return nearest


class FlowBatches(IterableDataset[FlowBatch]):
    """Endless pairs, a given number of batches an epoch.

    A perturbed condition is drawn with probability proportional to the square root of its cells, so
    that large conditions do not drown small ones; one of its cells is the end point. The start is a
    random control cell of the same context plus the estimated effect or, for `noise_share` of the
    pairs (controls among them), noise about the estimated position.

    Of several processes each draws the same batch and keeps its share, or all of it where it is
    not `shared_out`.
    """

    def __init__(
        self, tables: FlowTables, config: TrainingConfig, seed: int, *, shared_out: bool = True
    ) -> None:
        self.tables, self.config, self.seed = tables, config, seed
        self.shared_out = shared_out
        self.epoch, self.first = 0, 0

    def start_at(self, epoch: int, batch: int) -> None:
        """Begin the next pass at this batch of this epoch."""
        self.epoch, self.first = epoch, batch

    def __iter__(self) -> Iterator[FlowBatch]:
        rng = np.random.default_rng([self.seed, self.epoch])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        first, self.first = self.first, 0
        self.epoch += 1
        rank, world = rank_and_world() if self.shared_out else (0, 1)
        for i in range(self.config.flow_steps_per_epoch):
            batch = self.draw(rng, generator)
            if i >= first:
                yield batch if world == 1 else batch.share(rank, world)

    def draw(self, rng: np.random.Generator, generator: torch.Generator) -> FlowBatch:
        """Draw one batch."""
        tables, config = self.tables, self.config
        perturbed = (tables.controls >= 0) & (tables.controls != np.arange(len(tables.size)))
        n_noise = round(config.noise_share * config.flow_batch) if perturbed.any() else None
        n_noise = config.flow_batch if n_noise is None else n_noise
        weight = np.sqrt(tables.size) if tables.weight is None else tables.weight
        from_control = _pick(rng, weight * perturbed, config.flow_batch - n_noise)
        from_noise = _pick(rng, weight, n_noise)
        condition = np.concatenate([from_control, from_noise])
        crossed = (rng.random(len(condition)) < config.cross_fit).astype(int)
        x1_BKD = self._cells(rng, condition)
        at = torch.from_numpy(crossed), torch.from_numpy(condition)
        effect_BKD, position_BKD = tables.effects[at], tables.positions[at]
        x0_BKD = torch.empty_like(x1_BKD)
        n = len(from_control)
        if n:
            controls = self._cells(rng, tables.controls[from_control])
            x0_BKD[:n] = controls + effect_BKD[:n]
        noise_BF = torch.randn(n_noise, tables.factors.shape[-1], generator=generator)
        factors_BFF = tables.factors[torch.from_numpy(tables.factor_row[from_noise])]
        scatter_BF = torch.bmm(factors_BFF, noise_BF[:, :, None])[:, :, 0]
        x0_BKD[n:] = position_BKD[n:] + scatter_BF.view_as(x0_BKD[n:])
        is_noise = torch.arange(len(condition)) >= n
        position_BKD = position_BKD * is_noise[:, None, None]
        withheld = torch.from_numpy(rng.random(len(condition)) < config.drop_condition)
        told = FlowCondition(
            effect_BKD,
            position_BKD,
            tables.doubts[at],
            is_noise,
            withheld,
            tables.contexts[at[1]],
            *tables.parts_of(*at),
        )
        return FlowBatch(x0_BKD, x1_BKD, told)

    def _cells(self, rng: np.random.Generator, condition: np.ndarray) -> Tensor:
        """A cell of each condition, shape (B, K, D)."""
        within = (rng.random(len(condition)) * self.tables.size[condition]).astype(np.int64)
        rows = self.tables.order[self.tables.first[condition] + within]
        return self.tables.z_NKD[torch.from_numpy(rows)]


def _pick(rng: np.random.Generator, weight: np.ndarray, n: int) -> np.ndarray:
    if n == 0:
        return np.zeros(0, dtype=np.int64)
    return rng.choice(len(weight), size=n, p=weight / weight.sum())
