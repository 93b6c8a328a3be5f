"""Stage two: the flow learns what the effect prior lacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, IterableDataset

from celldit.conditions import Condition, ConditionTable
from celldit.conditions.briefing import Briefing
from celldit.conditions.extrapolation import Extrapolation, classify
from celldit.conditions.population import Population
from celldit.flow import LinearPath, Stratified, velocity_loss
from celldit.flow.anchored import AnchoredFlow, FlowCondition
from celldit.training.config import TrainingConfig
from celldit.training.latent_stage import warm_cosine
from celldit.training.trust import (
    MAX_CELLS,
    MAX_CONDITIONS,
    Comparison,
    Trial,
    Verdict,
    average_courses,
    compare,
    hold_out,
)


class FlowBatch(NamedTuple):
    """Pairs of start and end points with what the network is told of them."""

    x0_BKD: Tensor
    x1_BKD: Tensor
    condition: FlowCondition


@dataclass(frozen=True, eq=False)
class FlowTables:
    """All that stage two needs, in memory: latents by condition, and the prior's estimates.

    Attributes
    ----------
    z_NKD
        Latents of the training cells, sorted by condition.
    first, size
        Where each condition's cells begin among them, and how many there are, shape (C,).
    controls
        The condition that holds the controls of each condition, shape (C,).
    effects, positions
        Estimates with the condition's own cells and, second, without: shape (2, C, K, D).
    doubts
        Shape (2, C).
    factors
        Cholesky factors of the scatter, shape (X, F, F), and for each condition its row.
    """

    z_NKD: Tensor
    first: np.ndarray
    size: np.ndarray
    controls: np.ndarray
    effects: Tensor
    positions: Tensor
    doubts: Tensor
    factors: Tensor
    factor_row: np.ndarray


def make_tables(
    z_NKD: Tensor, rows: np.ndarray, table: ConditionTable, population: Population
) -> FlowTables:
    """Lay out the training rows by condition and look up every estimate once."""
    order = rows[np.argsort(table.index[rows], kind="stable")]
    size = np.bincount(table.index[rows], minlength=len(table))
    first = np.concatenate([[0], np.cumsum(size)[:-1]])
    shape = z_NKD.shape[1:]
    estimate = population.estimate(table.conditions)
    prior = population.prior
    crossed = dict(zip(prior.conditions, prior.leave_one_out(), strict=True))
    without = np.array(
        [crossed.get(c, own) for c, own in zip(table.conditions, estimate.effect, strict=True)],
        dtype=np.float32,
    )
    effects = torch.from_numpy(np.stack([estimate.effect, without])).view(2, -1, *shape)
    base = torch.from_numpy(estimate.position - estimate.effect).view(-1, *shape)
    surroundings = sorted({c.surroundings for c in table.conditions}, key=str)
    factors = np.stack([population.factor(key) for key in surroundings]).astype(np.float32)
    return FlowTables(
        z_NKD[torch.from_numpy(order)],
        first,
        size,
        _controls(table, size),
        effects,
        base + effects,
        torch.from_numpy(np.stack([estimate.doubt, np.maximum(estimate.doubt, 0.1)])),
        torch.from_numpy(factors),
        np.array([surroundings.index(c.surroundings) for c in table.conditions]),
    )


def _controls(table: ConditionTable, size: np.ndarray) -> np.ndarray:
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
    """

    def __init__(self, tables: FlowTables, config: TrainingConfig, seed: int) -> None:
        self.tables, self.config, self.seed = tables, config, seed
        self.epoch = 0

    def __iter__(self) -> Iterator[FlowBatch]:
        rng = np.random.default_rng([self.seed, self.epoch])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        self.epoch += 1
        for _ in range(self.config.flow_steps_per_epoch):
            yield self.draw(rng, generator)

    def draw(self, rng: np.random.Generator, generator: torch.Generator) -> FlowBatch:
        """Draw one batch."""
        tables, config = self.tables, self.config
        perturbed = (tables.controls >= 0) & (tables.controls != np.arange(len(tables.size)))
        n_noise = round(config.noise_share * config.flow_batch) if perturbed.any() else None
        n_noise = config.flow_batch if n_noise is None else n_noise
        weight = np.sqrt(tables.size)
        from_control = _pick(rng, weight * perturbed, config.flow_batch - n_noise)
        from_noise = _pick(rng, weight, n_noise)
        condition = np.concatenate([from_control, from_noise])
        crossed = (rng.random(len(condition)) < config.cross_fit).astype(int)
        x1_BKD = tables.z_NKD[self._cells(rng, condition)]
        at = torch.from_numpy(crossed), torch.from_numpy(condition)
        effect_BKD, position_BKD = tables.effects[at], tables.positions[at]
        x0_BKD = torch.empty_like(x1_BKD)
        n = len(from_control)
        if n:
            controls = tables.z_NKD[self._cells(rng, tables.controls[from_control])]
            x0_BKD[:n] = controls + effect_BKD[:n]
        noise_BF = torch.randn(n_noise, tables.factors.shape[-1], generator=generator)
        factors_BFF = tables.factors[torch.from_numpy(tables.factor_row[from_noise])]
        scatter_BF = torch.bmm(factors_BFF, noise_BF[:, :, None])[:, :, 0]
        x0_BKD[n:] = position_BKD[n:] + scatter_BF.view_as(x0_BKD[n:])
        is_noise = torch.arange(len(condition)) >= n
        position_BKD = position_BKD * is_noise[:, None, None]
        withheld = torch.from_numpy(rng.random(len(condition)) < config.drop_condition)
        return FlowBatch(
            x0_BKD,
            x1_BKD,
            FlowCondition(effect_BKD, position_BKD, tables.doubts[at], is_noise, withheld),
        )

    def _cells(self, rng: np.random.Generator, condition: np.ndarray) -> np.ndarray:
        within = (rng.random(len(condition)) * self.tables.size[condition]).astype(np.int64)
        return self.tables.first[condition] + within


def _pick(rng: np.random.Generator, weight: np.ndarray, n: int) -> np.ndarray:
    if n == 0:
        return np.zeros(0, dtype=np.int64)
    return rng.choice(len(weight), size=n, p=weight / weight.sum())


class FlowStage(pl.LightningModule):
    """Regression of the velocity along straight paths, with a moving average of the weights."""

    def __init__(
        self, flow: AnchoredFlow, trials: list[Trial], config: TrainingConfig, n_steps: int
    ) -> None:
        super().__init__()
        self.flow, self.trials, self.config, self.n_steps = flow, trials, config, n_steps
        average = get_ema_multi_avg_fn(config.ema_decay)
        self.ema = AveragedModel(flow, multi_avg_fn=average)
        self.path, self.times = LinearPath(), Stratified()
        self.course: list[Comparison] = []

    def training_step(self, batch: FlowBatch) -> Tensor:
        t_B = self.times(len(batch.x0_BKD), None, batch.x0_BKD.device)
        sample = self.path.sample(batch.x0_BKD, batch.x1_BKD, t_B)
        velocity = self.flow(sample.x_t, sample.t, batch.condition)
        loss = velocity_loss(velocity, sample.velocity)
        self.log("velocity_error", loss, prog_bar=True, batch_size=len(t_B))
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        self.ema.update_parameters(self.flow)

    def on_train_epoch_end(self) -> None:
        if not self.trials:
            return
        self.course.append(compare(self.ema.module, self.trials))
        overall = [average_courses([[c]])[0].overall for c in self.course]
        self.log("error_over_prior", overall[-1], prog_bar=True)
        if len(overall) - 1 - int(np.argmin(overall)) >= self.config.flow_patience:
            self.trainer.should_stop = True

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = torch.optim.AdamW(
            self.flow.parameters(), lr=self.config.flow_rate, weight_decay=self.config.weight_decay
        )
        return {"optimizer": optimizer, "lr_scheduler": warm_cosine(optimizer, self.n_steps)}


def make_trials(
    z_NKD: Tensor,
    table: ConditionTable,
    population: Population,
    held_out: list[Condition],
    held_out_rows: np.ndarray,
    rng: np.random.Generator,
) -> list[Trial]:
    """Set up the held-out conditions, and held-out cells of trained ones, as trials."""
    counts = table.counts
    controls = _controls(table, counts)
    trained = [c for c in population.prior.conditions if c not in set(held_out)]
    reduced = population.without(held_out)
    is_held_out = np.array([c in set(held_out) for c in table.conditions])
    of_row = table.index[held_out_rows]
    briefing = Briefing.of(reduced, table.conditions, z_NKD.shape[1:])
    trials = []
    candidates = rng.permutation(len(table))
    n_seen = 0
    for i in candidates:
        condition = table.conditions[i]
        if condition.is_control or controls[i] < 0:
            continue
        truth = held_out_rows[of_row == i]
        if is_held_out[i]:
            kind = classify(condition, trained)
        else:
            kind = Extrapolation.SEEN
            n_seen += len(truth) >= 10
        if len(truth) < 10 or (kind is Extrapolation.SEEN and n_seen > MAX_CONDITIONS):
            continue
        cells = table.cells_of(controls[i])
        cells = rng.choice(cells, min(len(cells), MAX_CELLS), replace=False)
        truth = rng.choice(truth, min(len(truth), 2 * MAX_CELLS), replace=False)
        told = briefing.tell(np.full(len(cells), i), from_noise=False)
        start_NKD = z_NKD[torch.from_numpy(cells)] + told.effect_BKD
        trials.append(Trial(kind, start_NKD, told, z_NKD[torch.from_numpy(truth)]))
    return trials


def train_flow(
    make_flow: Callable[[], AnchoredFlow],
    z_NKD: Tensor,
    table: ConditionTable,
    population: Population,
    config: TrainingConfig,
    *,
    max_epochs: int | None,
    seed: int,
    trainer_arguments: Callable[[str], dict[str, Any]],
) -> tuple[AnchoredFlow, Verdict, list[dict[str, float]]]:
    """Train the flow: trial runs say how long and how far to trust, a final run uses all cells.

    In each trial run some conditions, and some cells of the others, are held out; the runs' verdicts
    are averaged. The final run sees every cell and takes as many epochs as were best in the trials.
    (Training only on what the trials leave was measured to cost more than it saves: Kang's CD14
    monocytes, normalised squared error .11 instead of .02.)

    Parameters
    ----------
    make_flow
        Makes an untrained flow, which equals the prior.
    z_NKD
        Latents of the N training cells.
    table, population
        Their conditions, and the simple estimates.
    config
        Settings.
    max_epochs
        Bound on the epochs of each run.
    seed
        Of what is held out and of the pairs.
    trainer_arguments
        For :class:`lightning.pytorch.Trainer`, given the name of the run.

    Returns
    -------
    flow, verdict, history
        The flow, how far it can be trusted, and its course on the held-out conditions.
    """
    n_epochs = config.flow_epochs if max_epochs is None else min(max_epochs, config.flow_epochs)
    if n_epochs == 0:
        return make_flow().eval(), Verdict({}, {}), []
    is_control = np.array([c.is_control for c in table.conditions])[table.index]
    every_cell = np.arange(len(z_NKD))
    courses: list[list[Comparison]] = []
    for trial in range(config.n_trials):
        rng = np.random.default_rng([seed, trial])
        held_out = hold_out(population.prior.conditions, config.held_out_conditions, rng)
        of_held_out = np.array([c in set(held_out) for c in table.conditions])[table.index]
        apart = (rng.random(len(z_NKD)) < config.held_out_cells) & ~is_control
        apart |= of_held_out
        trials = make_trials(z_NKD, table, population, held_out, np.flatnonzero(apart), rng)
        if not trials:
            break
        tables = make_tables(z_NKD, every_cell[~apart], table, population.without(held_out))
        stage = FlowStage(make_flow(), trials, config, n_epochs * config.flow_steps_per_epoch)
        _run(stage, tables, config, n_epochs, seed, trainer_arguments(f"flow, trial {trial + 1}"))
        courses.append(stage.course)
    verdicts = average_courses(courses)
    best = min(range(len(verdicts)), key=lambda i: verdicts[i].overall, default=n_epochs - 1)
    verdict = verdicts[best] if verdicts else Verdict({}, {})
    flow = make_flow()
    stage = FlowStage(flow, [], config, n_epochs * config.flow_steps_per_epoch)
    tables = make_tables(z_NKD, every_cell, table, population)
    _run(stage, tables, config, best + 1, seed, trainer_arguments("flow"))
    flow.load_state_dict(stage.ema.module.state_dict())
    history = [
        {"epoch": float(i + 1), **{str(kind): gain for kind, gain in v.gain.items()}}
        for i, v in enumerate(verdicts)
    ]
    return flow.eval(), verdict, history


def _run(
    stage: FlowStage,
    tables: FlowTables,
    config: TrainingConfig,
    n_epochs: int,
    seed: int,
    trainer_arguments: dict[str, Any],
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trainer = pl.Trainer(max_epochs=n_epochs, **trainer_arguments)
        trainer.fit(stage, DataLoader(FlowBatches(tables, config, seed), batch_size=None))
