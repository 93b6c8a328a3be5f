"""Learn how cells get from one time of a course to the next.

First the pace of the course and the share of the way that cells go themselves are chosen
(:mod:`celldit.calibration.fit_time`). Then control cells of consecutive times of each context are
paired by optimal transport, balanced or, where cells grow and die, unbalanced, and one network
learns the velocity of their deviations from the mean course (:mod:`celldit.flow.time`). As much of
it is used as brings cells of one time that were held out nearest to those of the next, in units of
log expression; none, where it does not help.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from celldit.calibration.fit_time import MIN_CELLS, choose_course
from celldit.calibration.time_course import TimeCourse
from celldit.conditions import ConditionTable
from celldit.conditions.latents import Latents, rows_of
from celldit.conditions.population import Population
from celldit.conditions.time_scale import TimeScale
from celldit.flow.coupling import Coupling, OptimalTransportCoupling, UnbalancedCoupling
from celldit.flow.losses import energy_distance_loss
from celldit.flow.time import TimeFlow
from celldit.latent.autoencoder import Autoencoder
from celldit.progress import counted, quietly, speaks
from celldit.training.design import Run

log = logging.getLogger("celldit")

MAX_CELLS = 2_000
# Cells that are paired at a time; the cost of an assignment grows with their cube.
GROUP, ROUNDS = 512, 4
BATCH, RATE, DECAY = 256, 2e-3, 1e-2
STEPS_PER_EPOCH, EPOCHS = 50, 12
HELD_OUT = 0.2
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
GAIN = 0.02


@dataclass(frozen=True, eq=False)
class _Step:
    """Deviations of the cells of two consecutive times from the mean course, and of those apart."""

    context: int
    start: float
    end: float
    early: Tensor
    late: Tensor
    early_apart: Tensor
    late_apart: Tensor


def fit_time_course(
    z: Latents,
    table: ConditionTable,
    population: Population,
    autoencoder: Autoencoder,
    run: Run,
) -> TimeCourse:
    """Learn the course of the control cells; where the data have fewer than two times, nothing.

    The autoencoder gives latent tokens their size in log expression. Of the run are taken the seed,
    the bound on the epochs (0 for no network), whether to show a bar, and ``growth``, which says
    how cells are paired.
    """
    times = sorted({c.time for c in table.conditions if c.time is not None})
    if len(times) < 2:
        return TimeCourse(TimeScale())
    rng = np.random.default_rng([run.seed, 11])
    size_K = autoencoder.scale.detach().cpu().double()
    scale_F = size_K.repeat_interleave(autoencoder.token_dim).numpy()
    cells = _snapshots(z, table, rng)
    sized = {c: {t: rows * scale_F for t, rows in own.items()} for c, own in cells.items()}
    course = choose_course(sized, (times[0], times[-1]))
    log.info("Times between those of training: %s.", course.verdict)
    steps = list(_steps(cells, population, course, rng))
    n_epochs = EPOCHS if run.max_epochs is None else min(EPOCHS, run.max_epochs)
    if not steps or not n_epochs:
        return course
    coupling: Coupling = UnbalancedCoupling() if run.config.growth else OptimalTransportCoupling()
    flow = _train(steps, population, scale_F, coupling, n_epochs * STEPS_PER_EPOCH, run)
    _choose_weight(flow, steps, torch.from_numpy(scale_F).float())
    return replace(course, flow=flow) if flow.weight > 0 else course


def _snapshots(
    z: Latents, table: ConditionTable, rng: np.random.Generator
) -> Mapping[str, dict[float, np.ndarray]]:
    """Latents of some controls of each context and time that has enough of them."""
    found: dict[str, dict[float, np.ndarray]] = {}
    for row, condition in enumerate(table.conditions):
        own = table.cells_of(row)
        if condition.is_control and condition.time is not None and len(own) >= MIN_CELLS:
            some = np.sort(rng.permutation(own)[:MAX_CELLS])
            found.setdefault(condition.context, {})[condition.time] = rows_of(z, some)
    return found


def _steps(
    cells: Mapping[str, dict[float, np.ndarray]],
    population: Population,
    course: TimeCourse,
    rng: np.random.Generator,
) -> Iterator[_Step]:
    number = {context: i for i, context in enumerate(population.contexts, start=1)}
    for context, own in sorted(cells.items()):
        groups = {}
        for time, rows in sorted(own.items()):
            away = torch.from_numpy(rows - population.references[context, time]).float()
            order = torch.from_numpy(rng.permutation(len(away)))
            n_apart = max(round(HELD_OUT * len(away)), 2)
            groups[time] = away[order[n_apart:]], away[order[:n_apart]]
        for low, high in pairwise(groups):
            ends = course.scale.progress(low), course.scale.progress(high)
            (early, early_apart), (late, late_apart) = groups[low], groups[high]
            yield _Step(number[context], *ends, early, late, early_apart, late_apart)


def _train(
    steps: list[_Step],
    population: Population,
    scale_F: np.ndarray,
    coupling: Coupling,
    n_steps: int,
    run: Run,
) -> TimeFlow:
    """Train on straight lines between paired cells of all steps."""
    generator = torch.Generator().manual_seed(run.seed)
    shown = bool(run.trainer_arguments.get("enable_progress_bar", speaks()))
    size_F = torch.from_numpy(scale_F).float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        flow = TimeFlow(len(scale_F), len(population.contexts))
    flow.known[[step.context for step in steps]] = 1.0
    pairs = [list(_paired(step, coupling, size_F, generator)) for step in steps]
    sets = [(torch.cat([a for a, _ in own]), torch.cat([b for _, b in own])) for own in pairs]
    optimizer = torch.optim.AdamW(flow.parameters(), RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=n_steps)
    unit_F = size_F / size_F.square().mean().sqrt()
    with quietly(not shown):
        for _ in counted(range(n_steps), "training through time", "steps"):
            batch = [_drawn(step, *own, -(-BATCH // len(steps)), generator)
                     for step, own in zip(steps, sets, strict=True)]  # fmt: skip
            y_BF, u_B, context_B, velocity_BF = (torch.cat(x) for x in zip(*batch, strict=True))
            error_BF = (flow(y_BF, u_B, context_B) - velocity_BF) * unit_F
            optimizer.zero_grad()
            error_BF.square().mean().backward()
            torch.nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return flow.eval()


def _paired(
    step: _Step, coupling: Coupling, size_F: Tensor, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Deviations of cells of both times that belong together, group by group."""
    rounds = ROUNDS if max(len(step.early), len(step.late)) > GROUP else 1
    for _ in range(rounds):
        sides = [
            group[torch.randperm(len(group), generator=generator)[:GROUP]]
            for group in (step.early, step.late)
        ]
        if len(sides[0]) > len(sides[1]):
            # A coupling uses every target, so that the larger side loses no cell.
            pairs = coupling(sides[1] * size_F, sides[0] * size_F, generator)
            yield sides[0][pairs.target_M], sides[1][pairs.source_M]
        else:
            pairs = coupling(sides[0] * size_F, sides[1] * size_F, generator)
            yield sides[0][pairs.source_M], sides[1][pairs.target_M]


def _drawn(
    step: _Step, early: Tensor, late: Tensor, n: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Points on the lines between n pairs: deviations, progress, contexts and velocities."""
    at = torch.randint(len(early), (n,), generator=generator)
    s_B1 = torch.rand(n, 1, generator=generator)
    length = step.end - step.start
    velocity_BF = (late[at] - early[at]) / length
    u_B = step.start + length * s_B1[:, 0]
    context_B = torch.full((n,), step.context)
    return torch.lerp(early[at], late[at], s_B1), u_B, context_B, velocity_BF


def _choose_weight(flow: TimeFlow, steps: list[_Step], size_F: Tensor) -> None:
    """Use as much of the network as helps the cells that were held out, to and fro."""
    errors = []
    for weight in WEIGHTS:
        flow.weight.fill_(weight)
        both = [_distance(flow, step, size_F, back) for step in steps for back in (False, True)]
        errors.append(np.mean(both))
    least = int(np.argmin(errors))
    worth_it = errors[least] < (1 - GAIN) * errors[0]
    flow.weight.fill_(WEIGHTS[least] if worth_it else 0.0)


def _distance(flow: TimeFlow, step: _Step, size_F: Tensor, back: bool) -> float:
    """Energy distance of held-out cells, sent from one time of a step to the other, to those."""
    ends = (step.start, step.early_apart), (step.end, step.late_apart)
    (start, cells), (end, truth) = ends[::-1] if back else ends
    n = len(cells)
    moved = flow.move(
        cells, torch.full((n,), start), torch.full((n,), end), torch.full((n,), step.context)
    )
    return float(energy_distance_loss(moved * size_F, truth * size_F))
