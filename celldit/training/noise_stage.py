"""After stage two: the flow from noise learns on weights of its own.

What serves predictions stops by other measures than what draws new cells. So the flow from noise
takes over the weights of the one from control cells, with a silent read-out, and goes on by itself.

The flow from noise is anchored, too: it starts at the mixture of Gaussians that describes the cells
of each context (:mod:`celldit.conditions.states`), from each state to the cells of that state, and
its network learns in what these differ from their Gaussian. It is stopped by the velocity error on
cells that it does not see, and trusted by as much as makes that error least.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from celldit.conditions import ConditionTable
from celldit.conditions.population import Population
from celldit.conditions.states import States
from celldit.flow import on_path, stratified_times, velocity_loss
from celldit.flow.anchored import AnchoredFlow, FlowCondition, matched_velocity, to_device
from celldit.training.config import TrainingConfig
from celldit.training.design import Run
from celldit.training.devices.parallel import device_of
from celldit.training.flow_data import FlowBatches, FlowTables, make_tables
from celldit.training.latents import LatentFile
from celldit.training.loop.finite import FiniteLoss
from celldit.training.loop.moving_average import MovingAverage
from celldit.training.loop.steps import clip_norm_
from celldit.training.loop.trainer import halves_on_cuda

# A condition with fewer cells gives none away to be judged by.
MIN_CELLS = 10
N_JUDGED = 2_048
EMA_DECAY = 0.99


class _Judged(NamedTuple):
    """Points on the paths to held-out cells and their velocities, the same for every look."""

    x_BKD: Tensor
    t_B: Tensor
    condition: FlowCondition
    velocity_BKD: Tensor


def train_from_noise(
    flow: AnchoredFlow,
    z_NKD: Tensor | LatentFile,
    table: ConditionTable,
    population: Population,
    run: Run,
    watch: FiniteLoss,
    trainer_arguments: Mapping[str, Any],
) -> tuple[States, np.ndarray, list[dict[str, float]]]:
    """Find the states of the training cells, then train what starts at noise from them.

    The flow from control cells is not changed; the one from noise learns in place, on weights
    apart, and all comes back to the CPU. No epochs leave a network that was trained before as it
    is, and one that was not without a say. Of the Trainer's arguments device and precision are
    taken. TrainingError if a loss is not finite.

    Returns
    -------
    states, state_N, history
        States that cells may be in, and that of each cell; for each epoch, the velocity error on
        the held-out cells, and that of the anchor alone.
    """
    config, seed = run.config, run.seed
    states = States.fit(z_NKD, table, population, seed)
    state_N = states.assign(z_NKD, table, population, seed)
    n_epochs = config.noise_epochs if config.new_cells else 0
    if run.max_epochs is not None:
        n_epochs = min(run.max_epochs, n_epochs)
    if flow.from_noise is None:
        flow.part_ways()
        flow.noise_trust.fill_(0.0)
    rng = np.random.default_rng([seed, 3])
    large_N = (table.counts >= MIN_CELLS)[table.index]
    apart_N = large_N & (rng.random(len(z_NKD)) < config.held_out_cells)
    if n_epochs == 0 or not apart_N.any() or apart_N.all():
        flow.cpu()
        return states, state_N, []
    unit_K = torch.ones(z_NKD.shape[1])
    held_out, learned = (
        make_tables(z_NKD, np.flatnonzero(own_N), table, population, unit_K).by_state(
            table, states, state_N
        )
        for own_N in (apart_N, ~apart_N)
    )
    device, half = device_of(trainer_arguments), halves_on_cuda(trainer_arguments)
    judged = _judged(held_out, config, seed, device)
    # Too short to be shared out: of several processes each does all of it, to the same end.
    batches = FlowBatches(learned, config, seed, at_noise=True, shared_out=False)
    flow.to(device)
    network = flow.from_noise
    assert network is not None
    flow.noise_trust.fill_(1.0)
    average = MovingAverage(network, EMA_DECAY)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=config.flow_rate, weight_decay=config.weight_decay, fused=True
    )
    n_steps = n_epochs * config.flow_steps_per_epoch
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
    best_state = copy.deepcopy(network.state_dict())
    errors = [_error(flow, judged)]  # silent at first, so that of the anchor
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # dropout and times draw from torch's global stream
        for _ in range(n_epochs):
            _one_epoch(flow, average, batches, optimizer, schedule, watch, half)
            flow.from_noise = average.module
            errors.append(_error(flow, judged))
            if errors[-1] <= min(errors):
                best_state = copy.deepcopy(average.module.state_dict())
            flow.from_noise = network
            if len(errors) - 1 - int(np.argmin(errors)) >= config.noise_patience:
                break
    network.load_state_dict(best_state)
    flow.eval()
    flow.noise_trust.fill_(_best_share(flow, judged))
    flow.cpu()
    history = [
        {"epoch": float(i + 1), "held_out_error": error, "before": errors[0]}
        for i, error in enumerate(errors[1:])
    ]
    return states, state_N, history


def _one_epoch(
    flow: AnchoredFlow,
    average: MovingAverage,
    batches: FlowBatches,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    watch: FiniteLoss,
    half: bool,
) -> None:
    flow.train()
    device = flow.device
    network = flow.from_noise
    assert network is not None
    # Of these weights alone: the others may still hold gradients of the stage before.
    weights = list(network.parameters())
    for batch in (batch.to(device) for batch in batches):
        t_B = to_device(stratified_times(len(batch.x0_BKD)), device)
        x_BKD, target_BKD = on_path(batch.x0_BKD, batch.x1_BKD, t_B)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
            velocity = flow(x_BKD, t_B, batch.condition)
        loss = velocity_loss(velocity.float(), target_BKD)
        # One step of the schedule was made for each batch so far.
        watch.check(loss, schedule.last_epoch, batch, "noise")
        optimizer.zero_grad()
        loss.backward()
        clip_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        average.update(network)
    flow.eval()


def _judged(tables: FlowTables, config: TrainingConfig, seed: int, device: torch.device) -> _Judged:
    """Pairs of held-out cells with noise at times spread evenly over (0, 1)."""
    settings = replace(config, flow_batch=N_JUDGED, cross_fit=0.0, drop_condition=0.0)
    drawn = next(iter(FlowBatches(tables, settings, seed, at_noise=True, shared_out=False)))
    t_B = (torch.arange(N_JUDGED) + 0.5) / N_JUDGED
    # Times go round the conditions, which are not in random order within a batch.
    t_B = t_B[torch.randperm(N_JUDGED, generator=torch.Generator().manual_seed(0))].to(device)
    batch = drawn.to(device)
    x_BKD, velocity_BKD = on_path(batch.x0_BKD, batch.x1_BKD, t_B)
    return _Judged(x_BKD, t_B, batch.condition, velocity_BKD)


@torch.no_grad()
def _error(flow: AnchoredFlow, judged: _Judged) -> float:
    velocity_BKD = flow(judged.x_BKD, judged.t_B, judged.condition)
    return float(velocity_loss(velocity_BKD, judged.velocity_BKD))


@torch.no_grad()
def _best_share(flow: AnchoredFlow, judged: _Judged) -> float:
    """The share of what was learned beyond the anchor that suits held-out cells best."""
    x_BKD, t_B, condition, velocity_BKD = judged
    anchor_BKD = matched_velocity(x_BKD, t_B, condition.position_BKD)
    learned_BKD = flow(x_BKD, t_B, condition) - anchor_BKD
    lacking_BKD = velocity_BKD - anchor_BKD
    size = float((learned_BKD**2).sum())
    return min(max(float((learned_BKD * lacking_BKD).sum()) / size, 0.0), 1.0) if size else 0.0
