"""Straighten the flow, so that a step or two of Euler's method do.

One round of rectification: the flow's own end points become its targets. Points on the straight
lines between a start and where the flow takes it determine a flow with the same ends but straighter
paths (Liu, Gong, Liu. Flow straight and fast. ICLR 2023, "reflow").
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from celldit.conditions import Condition
from celldit.errors import InputError
from celldit.flow import LinearPath, Stratified, cell_noise, velocity_loss
from celldit.flow.anchored import AnchoredFlow, FlowCondition, matched_velocity, spread
from celldit.flow.path import PathSample
from celldit.inference.noise import STATE_STREAM, uniforms
from celldit.inference.sampling import TILE
from celldit.inference.solver import SolverConfig, carry
from celldit.inference.trained import ConditionBatch, Trained

PAIR_STREAM = 1 << 22
PAIRS_BY = SolverConfig("heun", n_steps=16)


@dataclass(frozen=True)
class ReflowConfig:
    """Settings of :meth:`celldit.CellDiT.reflow`.

    Attributes
    ----------
    n_pairs
        Starts whose ends are computed once with many steps, rounded up to whole tiles.
    n_updates, batch, rate
        Steps of AdamW, pairs in each, and the learning rate, which falls to zero along a cosine.

    Raises
    ------
    InputError
        If a number cannot be used.
    """

    n_pairs: int = 8192
    n_updates: int = 600
    batch: int = 256
    rate: float = 5e-4

    def __post_init__(self) -> None:
        for name in ("n_pairs", "n_updates", "batch"):
            value = getattr(self, name)
            if isinstance(value, bool) or int(value) != value or value < 1:
                raise InputError(f"{name}={value!r} must be a whole number of at least 1.")
        if not (0 < self.rate < 1):
            raise InputError(f"rate={self.rate!r} must be between 0 and 1.")


@dataclass(frozen=True, eq=False)
class Pairs:
    """Starts of the flow, where it takes them, and what it is told of them."""

    x0_PKD: Tensor
    x1_PKD: Tensor
    told: FlowCondition


def rectify(trained: Trained, config: ReflowConfig, seed: int) -> AnchoredFlow:
    """Train a copy of the flow on the straight lines between its starts and its ends.

    Parameters
    ----------
    trained
        The model; it is not changed.
    config
        Settings.
    seed
        Of the starts and the order of training.

    Returns
    -------
    AnchoredFlow
        The straightened flow.
    """
    pairs = draw_pairs(trained, config.n_pairs, seed)
    flow = copy.deepcopy(trained.flow).train()
    device = flow.device
    optimizer = torch.optim.AdamW(flow.parameters(), lr=config.rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.n_updates)
    path, times = LinearPath(), Stratified()
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # dropout draws from torch's global stream
        for _ in range(config.n_updates):
            at = torch.randint(len(pairs.x0_PKD), (config.batch,), generator=generator)
            t_B = times(config.batch, generator, device)
            told = pairs.told[at].to(device)
            sample = path.sample(pairs.x0_PKD[at].to(device), pairs.x1_PKD[at].to(device), t_B)
            if flow.from_noise is not None:
                sample = _beside_the_anchor(sample, told)
            loss = velocity_loss(flow(sample.x_t, t_B, told), sample.velocity)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return flow.eval()


def _beside_the_anchor(sample: PathSample, told: FlowCondition) -> PathSample:
    """What starts at noise goes straight in the variables it is sampled in.

    See :class:`celldit.inference.solver.Beside`.
    """
    position_BKD = told.position_BKD
    spread_B11 = spread(sample.t)[:, None, None]
    x_BKD = position_BKD + spread_B11 * (sample.x_t - position_BKD)
    velocity_BKD = matched_velocity(x_BKD, sample.t, position_BKD) + spread_B11 * sample.velocity
    noisy_B11 = told.from_noise_B[:, None, None]
    return replace(
        sample,
        x_t=torch.where(noisy_B11, x_BKD, sample.x_t),
        velocity=torch.where(noisy_B11, velocity_BKD, sample.velocity),
    )


def draw_pairs(trained: Trained, n_pairs: int, seed: int) -> Pairs:
    """Follow the flow from many starts, in every trained condition and from both sources.

    Control cells are stood in for by draws about the mean of their context, so that a loaded model,
    which holds no cells, can be straightened, too.
    """
    conditions = list(trained.frequencies)
    share = np.sqrt(np.array(list(trained.frequencies.values()), dtype=np.float64))
    n_pairs = -(-n_pairs // TILE) * TILE
    rng = np.random.default_rng(seed)
    row = rng.choice(len(conditions), size=n_pairs, p=share / share.sum())
    asked = ConditionBatch.of_rows(trained, conditions, row)
    controls: list[Condition] = [c.control() for c in conditions]
    standing = ConditionBatch.of_rows(trained, controls, row)
    perturbed = np.array([not c.is_control for c in conditions])[row]
    anchored = perturbed & (rng.random(n_pairs) < 0.5)
    sources, bases = asked.sources(trained.states), standing.sources(trained.states)
    starts, ends, told = [], [], []
    for first in range(0, n_pairs, TILE):
        at = np.arange(first, first + TILE)
        noise = cell_noise(torch.from_numpy(at), trained.shape, seed, PAIR_STREAM)
        uniform_B = uniforms(at, seed, STATE_STREAM)
        for rows, from_noise in ((at[~anchored[at]], True), (at[anchored[at]], False)):
            if len(rows) == 0:
                continue
            own = rows - first
            origin = sources if from_noise else bases
            source = origin.rows(row[rows], origin.draw(row[rows], uniform_B[own]))
            start = source(noise[torch.from_numpy(own)])
            if from_noise:
                knows = source.tell(asked.embedding, row[rows])
            else:
                knows = asked.embedding.tell(row[rows], from_noise=False)
                start = start + knows.effect_BKD
            starts.append(start)
            ends.append(carry(trained.flow, start, knows, PAIRS_BY))
            told.append(knows)
    return Pairs(torch.cat(starts), torch.cat(ends), FlowCondition.join(told))
