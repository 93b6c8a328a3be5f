"""Pairs for the flow: cells drawn by condition, and tables of conditions in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from celldit.conditions import ConditionTable
from celldit.conditions.embedding import ConditionEmbedding
from celldit.conditions.population import Population
from celldit.conditions.states import States
from celldit.conditions.strata import Strata, StratumKey
from celldit.flow.anchored import FlowCondition, to_device
from celldit.flow.coupling import resolve_coupling
from celldit.training.config import TrainingConfig
from celldit.training.devices.parallel import rank_and_world
from celldit.training.latents import LatentFile


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
    """Cells of C conditions, and the prior's estimates of them, which are in memory."""

    z_NKD: Tensor | LatentFile  # latents of all cells
    order: np.ndarray  # positions of the training cells among them, sorted by condition
    first: np.ndarray  # where each condition's cells begin in that order, (C,)
    size: np.ndarray  # how many there are, (C,)
    controls: PairedControls  # where pairs of each condition start
    # Of all conditions with their own cells and, in C further rows, without.
    embedding: ConditionEmbedding
    factors: Tensor  # Cholesky factors of the scatter, (X, F, F)
    factor_row: np.ndarray  # the row of each condition in these, (C,)
    unit_K: Tensor  # size of each latent token in log expression, in which distances are measured
    weight_C: np.ndarray  # how often each condition is drawn, up to a constant
    # Where controls of other contexts stand in, from them to where its own would lie, shape (C,
    # K, D); None where they do nowhere.
    offsets: Tensor | None = None

    @property
    def is_paired_C(self) -> np.ndarray:
        """Which conditions have cells and controls to pair them with."""
        return (self.controls.stratum_C >= 0) & (self.size > 0)

    def conditioning(
        self,
        crossed_B: np.ndarray,
        condition_B: np.ndarray,
        withheld_B: np.ndarray,
        *,
        from_noise: bool = False,
    ) -> FlowCondition:
        """What the network is told of B cells of these conditions.

        Crossed cells (bool) have the estimate without the condition's own cells; of withheld ones
        (bool) nothing is told, for guidance; those from noise start about the estimated position.
        """
        row_B = condition_B + len(self.size) * crossed_B
        condition = self.embedding.conditioning(row_B, from_noise=from_noise)
        return replace(condition, withheld_B=torch.from_numpy(withheld_B))

    def by_state(self, table: ConditionTable, states: States, state_N: np.ndarray) -> FlowTables:
        """The same with a row for each condition and state of N cells, for the flow from noise."""
        order = self.order[np.lexsort((state_N[self.order], table.index[self.order]))]
        pairs = np.stack([table.index[order], state_N[order]], axis=1)
        begins = np.flatnonzero(np.r_[True, (np.diff(pairs, axis=0) != 0).any(1)])
        size = np.diff(np.r_[begins, len(order)])
        of_R, state_R = pairs[begins].T
        centres_CF = np.stack([states.centre(condition) for condition in table.conditions])
        away_RF = states.offsets_SF[state_R] - centres_CF[of_R]
        away_RKD = torch.from_numpy(away_RF.astype(np.float32)).view(-1, *self.z_NKD.shape[1:])
        row = torch.from_numpy(np.r_[of_R, of_R + len(self.size)])
        estimates = self.embedding
        return FlowTables(
            self.z_NKD,
            order,
            begins,
            size,
            PairedControls((), np.full(len(size), -1)),
            ConditionEmbedding(
                estimates.effects_QKD[row],
                estimates.positions_QKD[row] + away_RKD.repeat(2, 1, 1),
                estimates.sds_Q[row],
            ),
            torch.from_numpy(states.factors_SFF.astype(np.float32)),
            state_R,
            self.unit_K,
            np.sqrt(self.size[of_R]) * size / self.size[of_R],
        )


def make_tables(
    z_NKD: Tensor | LatentFile,
    rows: np.ndarray,
    table: ConditionTable,
    population: Population,
    unit_K: Tensor,
) -> FlowTables:
    """Lay out the training rows among N cells by condition and look up every estimate once.

    `unit_K` is the size of each latent token in units of log expression.
    """
    order = rows[np.argsort(table.index[rows], kind="stable")]
    size = np.bincount(table.index[rows], minlength=len(table))
    first = np.concatenate([[0], np.cumsum(size)[:-1]])
    shape = z_NKD.shape[1:]
    estimate = population.estimate(table.conditions)
    # Estimates without the condition's own cells.
    prior, others = population.prior, estimate
    if prior.few is not None:
        others = population.without(prior.few.conditions).estimate(table.conditions)
    crossed, crossed_sd = others.effect.copy(), others.sd.copy()
    left_out, row = prior.leave_one_out(), table.row_of
    for i, condition in enumerate(prior.conditions):
        if condition not in row:  # known from other cells
            continue
        crossed[row[condition]] = left_out.mean[i]
        crossed_sd[row[condition]] = left_out.sd[i]
    effects = torch.from_numpy(np.concatenate([estimate.effect, crossed])).view(-1, *shape)
    base = torch.from_numpy(estimate.position - estimate.effect).view(-1, *shape)
    sds = torch.from_numpy(np.concatenate([estimate.sd, crossed_sd]))
    offset_CF = population.offset(table)
    strata = sorted({c.stratum for c in table.conditions}, key=str)
    place = {key: i for i, key in enumerate(strata)}
    factors = np.stack([population.factor(key) for key in strata]).astype(np.float32)
    return FlowTables(
        z_NKD,
        order,
        first,
        size,
        PairedControls.of_table(table, rows),
        ConditionEmbedding(effects, base.repeat(2, 1, 1) + effects, sds),
        torch.from_numpy(factors),
        np.array([place[c.stratum] for c in table.conditions]),
        unit_K,
        np.sqrt(size),
        None if offset_CF is None else torch.from_numpy(offset_CF).view(-1, *shape),
    )


@dataclass(frozen=True, eq=False)
class PairedControls:
    """The training cells that start pairs of each condition, by the strata of all cells."""

    # For each stratum, positions of the control cells and the cumulative weight of each.
    of: tuple[tuple[np.ndarray, np.ndarray], ...]
    stratum_C: np.ndarray  # stratum of each condition; -1 for a control, and where there are none

    @classmethod
    def of_table(cls, table: ConditionTable, rows: np.ndarray) -> PairedControls:
        """Look up the controls of every condition among some rows of a table."""
        strata = Strata.of_table(table)
        is_row = np.zeros(len(table.index), dtype=bool)
        is_row[rows] = True
        found: dict[StratumKey, tuple[np.ndarray, np.ndarray]] = {}
        for key in strata.of:
            cells, weight = strata.cells(key)
            kept = is_row[cells]
            if kept.any():
                found[key] = cells[kept], np.cumsum(weight[kept]) / weight[kept].sum()
        place = {key: i for i, key in enumerate(found)}
        of_C = [-1 if c.is_control else place.get(c.stratum, -1) for c in table.conditions]
        return cls(tuple(found.values()), np.array(of_C))

    def draw(self, rng: np.random.Generator, condition_B: np.ndarray) -> np.ndarray:
        """Positions of a control of each condition, int64, shape (B,)."""
        uniform_B = rng.random(len(condition_B))
        drawn_B = np.empty(len(condition_B), dtype=np.int64)
        stratum_B = self.stratum_C[condition_B]
        for s in np.unique(stratum_B):
            own = stratum_B == s
            cells, cumulative = self.of[s]
            at = np.searchsorted(cumulative, uniform_B[own], side="right")
            drawn_B[own] = cells[at.clip(max=len(cells) - 1)]
        return drawn_B


class FlowBatches(IterableDataset[FlowBatch]):
    """Endless pairs, a given number of batches an epoch.

    A perturbed condition is drawn with probability proportional to the square root of its cells, so
    that large conditions do not drown small ones. Of the few conditions of a batch many cells are
    drawn, and as many of its controls, each moved by the estimated effect; optimal transport then
    says which ends where. Paired at random, cells of any kind would go to cells of any other, and
    the network would learn to send all to their average.

    Pairs `at_noise` start at noise about the estimated position, with ends of every condition,
    controls among them; others start at controls, with ends of the conditions that have them. Where
    batches are `shared_out`, each of several processes keeps its share of what all draw alike.
    """

    def __init__(
        self,
        tables: FlowTables,
        config: TrainingConfig,
        seed: int,
        *,
        at_noise: bool = False,
        shared_out: bool = True,
    ) -> None:
        self.tables, self.config, self.seed = tables, config, seed
        self.at_noise, self.shared_out = at_noise, shared_out
        self.epoch, self.first = 0, 0
        self.coupling = resolve_coupling(config.coupling)

    def start_at(self, epoch: int, batch: int) -> None:
        """Begin the next pass at this batch of this epoch."""
        self.epoch, self.first = epoch, batch

    def __iter__(self) -> Iterator[FlowBatch]:
        rng = np.random.default_rng([self.seed, self.epoch])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        first, self.first = self.first, 0
        self.epoch += 1
        rank, world = rank_and_world() if self.shared_out else (0, 1)
        draw = self._from_noise if self.at_noise else self._paired
        for i in range(self.config.flow_steps_per_epoch):
            batch = draw(rng, generator)
            if i >= first:
                yield batch if world == 1 else batch.share(rank, world)

    def _paired(self, rng: np.random.Generator, generator: torch.Generator) -> FlowBatch:
        """Controls moved by the estimated effect, and cells of the condition."""
        tables, config = self.tables, self.config
        condition, size_G = self._groups(rng, tables.weight_C * tables.is_paired_C)
        # Cells that are paired with each other start at one estimate.
        crossed = np.repeat(rng.random(len(size_G)) < config.cross_fit, size_G)
        conditioning = tables.conditioning(crossed, condition, self._withheld(rng, len(condition)))
        start = torch.from_numpy(tables.controls.draw(rng, condition))
        x0_BKD = tables.z_NKD[start] + conditioning.effect_BKD
        if tables.offsets is not None:
            x0_BKD = x0_BKD + tables.offsets[torch.from_numpy(condition)]
        x1_BKD = self._cells(rng, condition)
        unit_K1, stop = tables.unit_K[:, None], 0
        for size in size_G.tolist():
            own = slice(stop, stop + size)
            stop += size
            # In units of log expression what tells cell types apart counts most.
            pairs = self.coupling(x0_BKD[own] * unit_K1, x1_BKD[own] * unit_K1, generator)
            x0_BKD[own] = x0_BKD[own][pairs.source_M]
            x1_BKD[own] = x1_BKD[own][pairs.target_M]
        return FlowBatch(x0_BKD, x1_BKD, conditioning)

    def _from_noise(self, rng: np.random.Generator, generator: torch.Generator) -> FlowBatch:
        """Noise about the estimated position, and cells of the condition, controls among them."""
        tables, n = self.tables, self.config.flow_batch
        weight_C = tables.weight_C
        condition = rng.choice(len(weight_C), size=n, p=weight_C / weight_C.sum())
        crossed = rng.random(n) < self.config.cross_fit
        conditioning = tables.conditioning(
            crossed, condition, self._withheld(rng, n), from_noise=True
        )
        noise_BF = torch.randn(n, tables.factors.shape[-1], generator=generator)
        factors_BFF = tables.factors[torch.from_numpy(tables.factor_row[condition])]
        scatter_BF = torch.bmm(factors_BFF, noise_BF[:, :, None])[:, :, 0]
        x1_BKD = self._cells(rng, condition)
        x0_BKD = conditioning.position_BKD + scatter_BF.view_as(x1_BKD)
        return FlowBatch(x0_BKD, x1_BKD, conditioning)

    def _withheld(self, rng: np.random.Generator, n: int) -> np.ndarray:
        return rng.random(n) < self.config.drop_condition

    def _groups(
        self, rng: np.random.Generator, weight_C: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Conditions of the pairs, shape (B,), in groups of one condition; and their sizes."""
        n = self.config.flow_batch
        n_groups = max(1, n // self.config.flow_group)
        drawn = rng.choice(len(weight_C), size=n_groups, p=weight_C / weight_C.sum())
        # Groups of one condition are one larger group.
        chosen_G, times_G = np.unique(drawn, return_counts=True)
        end_G = np.round(np.cumsum(times_G) * n / n_groups).astype(np.int64)
        size_G = np.diff(end_G, prepend=0)
        return np.repeat(chosen_G, size_G), size_G

    def _cells(self, rng: np.random.Generator, condition: np.ndarray) -> Tensor:
        """A cell of each condition, shape (B, K, D)."""
        within = (rng.random(len(condition)) * self.tables.size[condition]).astype(np.int64)
        rows = self.tables.order[self.tables.first[condition] + within]
        return self.tables.z_NKD[torch.from_numpy(rows)]
