"""Stage two: the flow learns what the effect prior lacks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from celldit.calibration.stacking import (
    Trial,
    TrialError,
    Verdict,
    best_gain,
    compare,
    stack_courses,
)
from celldit.conditions import Condition, ConditionTable
from celldit.conditions.population import Population
from celldit.errors import outside
from celldit.flow import on_path, stratified_times, velocity_loss
from celldit.flow.anchored import AnchoredFlow, to_device
from celldit.training.config import TrainingConfig
from celldit.training.design import Run
from celldit.training.devices.cuda import compile_network, is_large
from celldit.training.devices.parallel import rank_and_world
from celldit.training.devices.sharding import ShardedStrategy, shard, whole
from celldit.training.flow_data import FlowBatch, FlowBatches, make_tables
from celldit.training.latents import LatentFile
from celldit.training.loop.moving_average import MovingAverage
from celldit.training.loop.steps import clip_norm_, warm_cosine
from celldit.training.saving.checkpoints import Checkpoints
from celldit.training.saving.resume import run_stage
from celldit.training.trials import hold_out, make_trials

LEAST_CELLS = 8
"""Cells of a typical condition below which transport would match all controls to the same few."""
LOOK_EVERY = 2
"""Epochs between two looks at what a trial run holds out."""


class FlowStage(pl.LightningModule):
    """Regression of the velocity along straight paths, with a moving average of the weights."""

    def __init__(
        self,
        flow: AnchoredFlow,
        trials: list[Trial],
        config: TrainingConfig,
        n_epochs: int,
        n_steps: int,
        *,
        may_stop: bool = False,
    ) -> None:
        super().__init__()
        self.flow, self.trials, self.config = flow, trials, config
        self.n_epochs, self.n_steps, self.may_stop = n_epochs, n_steps, may_stop
        self.ema = MovingAverage(flow, config.ema_decay)
        self.velocity: Callable[..., Tensor] = flow.forward
        self.in_shards = False
        self.course: list[list[TrialError]] = []

    def configure_model(self) -> None:
        strategy = self.trainer.strategy
        if self.in_shards or not isinstance(strategy, ShardedStrategy):
            return
        self.in_shards = True
        for network in (self.flow, cast(AnchoredFlow, self.ema.module)):
            shard(network, strategy.shards)
        # Weights are gathered when the module is called, not when its method is.
        self.velocity = self.flow.__call__

    def on_fit_start(self) -> None:
        on_cuda = self.device.type == "cuda"
        if self.in_shards:
            if self.config.compile == "on":
                warnings.warn('With strategy="fsdp" nothing is compiled.', stacklevel=outside())
            return
        pays = on_cuda and is_large(self.flow, self.config.flow_batch)
        if self.config.compile == "on" or (self.config.compile == "auto" and pays):
            compile_network(self.flow)

    def training_step(self, batch: FlowBatch) -> Tensor:
        rank, world = rank_and_world()
        # Every process draws the times of the whole batch, so that together they cover [0, 1].
        times_B = stratified_times(self.config.flow_batch)
        t_B = to_device(times_B, batch.x0_BKD.device)[rank::world]
        x_BKD, target_BKD = on_path(batch.x0_BKD, batch.x1_BKD, t_B)
        loss = velocity_loss(self.velocity(x_BKD, t_B, batch.condition), target_BKD)
        self.log("velocity_error", loss, prog_bar=True, batch_size=len(t_B))
        if world == 1:
            return loss
        # Processes average their gradients; shares that are not equal must not weigh the same.
        return loss * (world * len(t_B) / self.config.flow_batch)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        if not optimizer.defaults.get("fused"):
            super().configure_gradient_clipping(
                optimizer, gradient_clip_val, gradient_clip_algorithm
            )
        # Under autocast Lightning clips nothing for a fused optimiser, as float16 would need scaled
        # gradients; here there are none.
        elif gradient_clip_val:
            clip = nn.utils.clip_grad_value_ if gradient_clip_algorithm == "value" else clip_norm_
            # The optimiser has them in a list; to search the flow takes as long as to clip them.
            weights = [weight for group in optimizer.param_groups for weight in group["params"]]
            clip(weights, gradient_clip_val)

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        super().optimizer_step(*arguments, **options)
        # Once for each step of the weights, however many batches it took.
        self.average_weights()

    def average_weights(self) -> None:
        """Let the moving average follow the weights by one step."""
        self.ema.update(self.flow)

    def averaged_weights(self) -> dict[str, Tensor]:
        """The moving average, whole; where it is in shards all processes must ask."""
        weights: dict[str, Tensor] = whole(self.ema.module.state_dict())
        return weights

    def on_train_epoch_end(self) -> None:
        epoch = self.current_epoch + 1
        # A look costs as much as an epoch, and the last alone decides.
        if self.trials and (epoch % LOOK_EVERY == 0 or epoch == self.n_epochs):
            self.look()
            gain = best_gain(self.course[-1])
            self.log("error_over_prior", 1 - gain, prog_bar=True)
            # What helps shows early: the other half of the steps does not turn the verdict.
            half_way = 2 * epoch >= self.n_epochs
            if self.may_stop and half_way and gain < self.config.least_gain:
                self.trainer.should_stop = True

    def on_train_end(self) -> None:
        # Arguments of the Trainer, such as max_steps, may end training before the first look.
        if self.trials and not self.course:
            self.look()

    def look(self) -> None:
        """Compare the averaged weights with what was held out."""
        errors = None
        # Shards are of use together only, so then all processes compare.
        if self.trainer.is_global_zero or self.in_shards:
            errors = compare(cast(AnchoredFlow, self.ema.module), self.trials)
        # One process decides for all: last bits that differ must not part them.
        decided = self.trainer.strategy.broadcast(errors)
        assert decided is not None
        self.course.append(decided)

    # Goes with the weights: into checkpoints, and back from processes that Lightning starts.
    def get_extra_state(self) -> list[list[dict[str, Any]]]:
        return _written(self.course)

    def set_extra_state(self, state: list[list[dict[str, Any]]]) -> None:
        self.course = _read(state)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        # Gradients scaled for float16, and those in shards, are left to the plain optimiser.
        plain = self._trainer is None or self.trainer.precision in ("32-true", "bf16-mixed")
        fused = plain and not self.in_shards and self.device.type in ("cpu", "cuda")
        optimizer = torch.optim.AdamW(
            self.flow.parameters(),
            lr=self.config.flow_rate,
            weight_decay=self.config.weight_decay,
            fused=True if fused else None,
        )
        return {"optimizer": optimizer, "lr_scheduler": warm_cosine(optimizer, self.n_steps)}


def _written(course: list[list[TrialError]]) -> list[list[dict[str, Any]]]:
    return [[error.to_dict() for error in errors] for errors in course]


def _read(course: list[list[dict[str, Any]]]) -> list[list[TrialError]]:
    return [[TrialError.from_dict(error) for error in errors] for errors in course]


def train_flow(
    make_flow: Callable[[], AnchoredFlow],
    z_NKD: Tensor | LatentFile,
    table: ConditionTable,
    population: Population,
    unit_K: Tensor,
    run: Run,
    trainer_arguments: Callable[[str], dict[str, Any]],
    *,
    checkpoints: Checkpoints | None = None,
    never_hold_out: Sequence[Condition] = (),
) -> tuple[AnchoredFlow, Verdict, list[dict[str, float]]]:
    """Train the flow: trial runs say how far to use it, a final run uses all cells.

    In each trial run some conditions, and some cells of the others, are held out, and the network's
    weight is stacked over all of them. As soon as they show that it saves less than
    ``config.least_gain`` of the effect model's error, its weight is 0 and training is over. Runs
    that go on all take the same steps: of many looks at few held-out conditions the best is mostly
    luck.

    An untrained flow of `make_flow` equals the prior. `unit_K` is the size of each latent token in
    log expression, in which distances are measured; `trainer_arguments` are those of a run, by its
    name; conditions of `never_hold_out` are known from before, whether these cells have them or
    not.

    Returns
    -------
    flow, verdict, history
        The flow, how far to use it, and its course on the held-out conditions. Where it is not
        used at all it is that of the last trial run.
    """
    config, seed = run.config, run.seed
    n_epochs = config.flow_epochs
    if run.max_epochs is not None:
        n_epochs = min(run.max_epochs, n_epochs)
    if n_epochs == 0 or all(c.is_control for c in table.conditions):
        return make_flow().eval(), Verdict({}, {}), []
    config = _with_enough_cells(config, table)
    is_control = np.array([c.is_control for c in table.conditions])[table.index]
    known = set(never_hold_out)
    candidates = [c for c in population.prior.conditions if c not in known]

    def run_once(
        part: str, title: str, rows: np.ndarray, basis: Population, trials: list[Trial], first: bool
    ) -> dict[str, Any]:
        """Train on some rows; the first run may stop half way where it promises nothing."""
        arguments = trainer_arguments(title)
        steps = -(-config.flow_steps_per_epoch // arguments.get("accumulate_grad_batches", 1))
        stage = FlowStage(make_flow(), trials, config, n_epochs, n_epochs * steps, may_stop=first)
        kept = None if checkpoints is None else checkpoints.part(part)
        run_stage(
            stage,
            FlowBatches(make_tables(z_NKD, rows, table, basis, unit_K), config, seed),
            n_epochs=n_epochs,
            seed=seed,
            trainer_arguments=arguments,
            part=kept,
        )
        result = {"course": _written(stage.course), "flow": stage.averaged_weights()}
        if kept is not None:
            kept.finish(result)
        return result

    def finished_before(part: str) -> dict[str, Any] | None:
        return None if checkpoints is None else checkpoints.part(part).finished()

    courses: list[list[list[TrialError]]] = []
    tried: list[Condition] = []
    last: dict[str, Any] = {}
    hopeless = False
    for trial in range(config.n_trials):
        rng = np.random.default_rng([seed, trial])
        held_out = hold_out(candidates, config.held_out_conditions, rng, never_hold_out, tried)
        tried += held_out
        name = f"flow-trial-{trial + 1}"
        finished = finished_before(name)
        if finished is None:
            of_held_out = np.array([c in set(held_out) for c in table.conditions])[table.index]
            apart = (rng.random(len(z_NKD)) < config.held_out_cells) & ~is_control
            apart |= of_held_out
            rows = np.flatnonzero(apart)
            trials = make_trials(z_NKD, table, population, held_out, rows, rng, unit_K)
            if not trials or (apart | is_control).all():
                break
            basis, rows = population.without(held_out), np.flatnonzero(~apart)
            finished = run_once(name, f"flow, trial {trial + 1}", rows, basis, trials, not trial)
        if not finished["course"]:  # the Trainer was told to take no step
            break
        last = finished
        courses.append(_read(finished["course"]))
        hopeless = best_gain([e for run in courses for e in run[-1]]) < config.least_gain
        if hopeless:
            break
    verdicts = stack_courses(courses)
    verdict = verdicts[-1] if verdicts else Verdict({}, {})
    if hopeless:
        verdict = verdict.without_network()
    if not courses or not config.least_gain or any(verdict.weight.values()):
        last = finished_before("flow") or run_once(
            "flow", "flow", np.arange(len(z_NKD)), population, [], False
        )
    flow = make_flow()  # what was trained may be in shards
    flow.load_state_dict(last["flow"])
    looks = [e for e in range(1, n_epochs + 1) if e % LOOK_EVERY == 0 or e == n_epochs]
    history = [
        {"epoch": float(epoch), **{str(kind): ratio for kind, ratio in verdict.in_full.items()}}
        for epoch, verdict in zip(looks, verdicts, strict=False)
    ]
    return flow.eval(), verdict, history


def _with_enough_cells(config: TrainingConfig, table: ConditionTable) -> TrainingConfig:
    """The same settings, but pairs at random where conditions have too few cells to be matched."""
    sizes = [n for c, n in zip(table.conditions, table.counts, strict=True) if not c.is_control]
    typical = float(np.median(sizes))
    if config.coupling == "independent" or typical >= LEAST_CELLS:
        return config
    warnings.warn(
        f"Conditions have {typical:g} cells (median), too few for optimal transport between cells; "
        "they are paired with controls at random.",
        UserWarning,
        stacklevel=outside(),
    )
    return replace(config, coupling="independent")
