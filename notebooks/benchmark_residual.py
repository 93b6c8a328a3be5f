"""What helps the flow to find what the effect prior lacks on held-out conditions, and what not.

Three problems of the benchmark: cell types of Kang never seen stimulated, three combinations of
Norman, eight knock-outs of Papalexi in one replicate. Latents (48 principal components in 6 tokens)
and effect prior are those of training cells; only the training of the flow differs between rows:

- *prior*: no flow.
- *flow*: the default. Trial runs on held-out training conditions choose its epochs and its trust.
- *three flows*: the mean displacement and trust of networks from three seeds.
- *weight decay 0.1*, *dropout 0.3*: of the network. (There is no learned embedding of perturbations
  to decay or drop: a perturbation enters as its estimated effect.)
- *parts as tokens*: cross-attention to the effects of a combination's parts, beside AdaLN.
- *own effects*: no cross-fitting, so a training pair starts at the effect its own cells gave.
- *four times as long*: 1,600 instead of 400 steps at most.
- *energy of sets*: plus the energy distance, within each condition of a batch of eight conditions,
  between where cells arrive by the velocity at their time and where measured ones are.
- *pre-trained*: weights from the flow of another screen instead of random ones.

Errors are of latents, for the held-out conditions: squared error of the mean shift and energy
distance, each over that of the prior (below 1 is better), means over conditions. "trust" is the
share of the displacement chosen in training, without sight of the held-out conditions; "in_full"
are the errors with the whole displacement, which nobody could have known to take or to leave.

    python notebooks/benchmark_residual.py docs/results/residual.csv --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from celldit.compute import threads
from celldit.conditions import ConditionTable
from celldit.effects import EffectPrior
from celldit.conditions.population import Population
from celldit.conditions.trust import Trust
from celldit.data import Cells, Fields
from celldit.evaluation.benchmark.problems import Problem, pose, problems
from celldit.flow import energy_distance_loss, resolve_solver, uniform_grid
from celldit.flow.anchored import AnchoredFlow
from celldit.latent.anchor import fit_anchor
from celldit.nn.dit import DiTConfig
from celldit.training import flow_data, flow_stage
from celldit.training.config import TrainingConfig
from celldit.training.fit import complete_trust
from celldit.training.flow_data import FlowBatch
from celldit.training.flow_stage import FlowStage, train_flow
from celldit.training.trainer import quiet_lightning, trainer_defaults
from celldit.training.trials import make_trials
from celldit.training.trust import N_STEPS, Trial, Verdict

N_TOKENS, TOKEN_DIM = 6, 8
CHOSEN = ("CD14 Mono alone", "3 combinations", "8 knock-outs in rep_3")
QUIET = {"enable_progress_bar": False, "logger": False}
ENERGY_WEIGHT, N_CONDITIONS = 0.1, 8


@dataclass(frozen=True)
class Posed:
    """A problem in the latent: training cells, the prior's estimates, and what to predict."""

    z_NKD: Tensor
    table: ConditionTable
    population: Population
    trials: dict[bool, list[Trial]]
    """With and without tokens of the parts."""

    @classmethod
    def of(cls, problem: Problem, seed: int) -> Posed:
        posed = pose(problem)
        fields = Fields.from_anndata(posed.train)
        train, truth = (Cells.from_anndata(a, fields) for a in (posed.train, posed.truth))
        anchor = fit_anchor(train.log_normalized(), N_TOKENS, TOKEN_DIM, seed)
        z_NKD, truth_MKD = (
            torch.from_numpy(
                np.asarray(c.log_normalized() @ anchor.loadings - anchor.offset, np.float32)
            ).view(-1, N_TOKENS, TOKEN_DIM)
            for c in (train, truth)
        )
        sep = fields.perturbation_sep
        table, asked = (ConditionTable.from_cells(c, sep) for c in (train, truth))
        prior = EffectPrior.fit(z_NKD.flatten(1).double().numpy(), table, seed=seed)
        population = Population.fit(
            z_NKD.flatten(1).double().numpy(), train.size_factors, table, prior
        )
        both = ConditionTable(
            (*table.conditions, *asked.conditions),
            np.concatenate([table.index, len(table) + asked.index]),
        )
        rows = len(z_NKD) + np.arange(len(truth_MKD))
        trials = {
            with_parts: make_trials(
                torch.cat([z_NKD, truth_MKD]), both, population, list(asked.conditions), rows,
                np.random.default_rng(seed), with_parts=with_parts,
            )
            for with_parts in (False, True)
        }  # fmt: skip
        return cls(z_NKD, table, population, trials)


def train(
    posed: Posed,
    seed: int,
    config: TrainingConfig | None = None,
    network: DiTConfig | None = None,
    start: AnchoredFlow | None = None,
) -> tuple[AnchoredFlow, Verdict]:
    """Train a flow as the model does."""
    dit = DiTConfig() if network is None else network

    def make_flow() -> AnchoredFlow:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            flow = AnchoredFlow(N_TOKENS, TOKEN_DIM, dit, len(posed.population.contexts))
        if start is not None:
            flow.load_state_dict(start.state_dict())
        return flow

    with quiet_lightning():
        flow, verdict, _ = train_flow(
            make_flow, posed.z_NKD, posed.table, posed.population, config or TrainingConfig(),
            max_epochs=None, seed=seed,
            trainer_arguments=lambda name: trainer_defaults(QUIET, name),
        )  # fmt: skip
    return flow, verdict


@contextmanager
def energy_of_sets() -> Iterator[None]:
    """Train with few conditions a batch, and the energy distance of each beside the regression."""
    pick, step = flow_data._pick, FlowStage.training_step

    def pick_few(rng: np.random.Generator, weight: np.ndarray, n: int) -> np.ndarray:
        some = np.unique(pick(rng, weight, min(n, N_CONDITIONS)))
        return rng.choice(some, n) if n else some

    def training_step(self: FlowStage, batch: FlowBatch) -> Tensor:
        t_B = self.times(self.config.flow_batch, None, batch.x0_BKD.device)
        sample = self.path.sample(batch.x0_BKD, batch.x1_BKD, t_B)
        velocity = self.velocity(sample.x_t, sample.t, batch.condition)
        loss = flow_stage.velocity_loss(velocity, sample.velocity)
        arrived = sample.x_t + (1 - t_B)[:, None, None] * velocity
        # A pair's condition, and whether it starts at noise or at a control cell.
        told = batch.condition
        name = torch.stack([told.effect_BKD.flatten(1).sum(1), told.from_noise_B.float()], 1)
        group = torch.unique(name, dim=0, return_inverse=True)[1]
        distance = energy_distance_loss(arrived.flatten(1), batch.x1_BKD.flatten(1), group, group)
        self.log("velocity_error", loss, batch_size=len(t_B))
        return loss + ENERGY_WEIGHT * distance

    flow_data._pick, FlowStage.training_step = pick_few, training_step  # type: ignore[assignment]
    try:
        yield
    finally:
        flow_data._pick, FlowStage.training_step = pick, step  # type: ignore[method-assign]


@torch.no_grad()
def errors(
    trials: list[Trial], flows: list[AnchoredFlow], trust_of: Callable[[Trial], Trust]
) -> tuple[float, float, float]:
    """Squared error of the mean over squared effect, energy distance, and mean trust in the shift.

    The mean displacement of several flows is taken.
    """
    solver, grid = resolve_solver("euler"), uniform_grid(N_STEPS)
    found = []
    for trial in trials:
        start_NF, truth_MF = trial.start_NKD.flatten(1), trial.truth_MKD.flatten(1)
        step_NF = torch.zeros_like(start_NF)
        for flow in flows:
            end = solver.solve(partial(flow, condition=trial.condition), trial.start_NKD, grid)
            step_NF += (end.flatten(1) - start_NF) / len(flows)
        trust, common_F = trust_of(trial), step_NF.mean(0)
        moved = start_NF + trust.shift * common_F + trust.cells * (step_NF - common_F)
        before_F = (start_NF - trial.condition.effect_BKD.flatten(1)).mean(0)
        missed = float((moved.mean(0) - truth_MF.mean(0)).square().sum())
        size = float((truth_MF.mean(0) - before_F).square().sum())
        found.append((missed / size, float(energy_distance_loss(moved, truth_MF)), trust.shift))
    square, energy, shift = np.mean(found, axis=0)
    return float(square), float(energy), float(shift)


def chosen_by(verdicts: list[Verdict]) -> Callable[[Trial], Trust]:
    """The trust that training chose for a trial's kind, the mean over several runs."""
    trusts = [complete_trust(verdict) for verdict in verdicts]

    def trust_of(trial: Trial) -> Trust:
        own = [trust[trial.kind] for trust in trusts]
        return Trust(float(np.mean([t.shift for t in own])), float(np.mean([t.cells for t in own])))

    return trust_of


def measure(
    problem: Problem, seed: int, elsewhere: dict[str, AnchoredFlow]
) -> Iterator[dict[str, Any]]:
    """Rows of one problem and seed; leaves its flow in `elsewhere`, by data set."""
    posed = Posed.of(problem, seed)
    ran: dict[str, tuple[list[AnchoredFlow], list[Verdict]]] = {}

    def row(name: str, flows: list[AnchoredFlow], verdicts: list[Verdict]) -> dict[str, Any]:
        trials = posed.trials[bool(flows) and flows[0].reads_parts]
        square, energy, trust = errors(trials, flows, chosen_by(verdicts))
        in_full = errors(trials, flows, lambda _: Trust(1.0, 1.0))
        return {"data": problem.dataset, "held_out": problem.name, "seed": seed, "what": name,
                "trust": trust, "nmse": square, "energy": energy,
                "nmse_in_full": in_full[0], "energy_in_full": in_full[1]}  # fmt: skip

    def one(name: str, **options: Any) -> dict[str, Any]:
        flow, verdict = train(posed, seed, **options)
        ran[name] = [flow], [verdict]
        return row(name, *ran[name])

    default = TrainingConfig()
    yield row("prior", [], [Verdict({}, {})])
    yield one("flow")
    more = [train(posed, seed + 100 * i) for i in (1, 2)]
    flows, verdicts = (
        [*ran["flow"][0], *(f for f, _ in more)],
        ran["flow"][1] + [v for _, v in more],
    )
    yield row("three flows", flows, verdicts)
    yield one("weight decay 0.1", config=replace(default, weight_decay=0.1))
    yield one("dropout 0.3", network=DiTConfig(dropout=0.3))
    yield one("parts as tokens", network=DiTConfig(conditioning="both"))
    yield one("own effects", config=replace(default, cross_fit=0.0))
    yield one("four times as long", config=replace(default, flow_epochs=32, flow_patience=32))
    with energy_of_sets():
        yield one("energy of sets")
    others = {name: flow for name, flow in elsewhere.items() if name != problem.dataset}
    for name, flow in list(others.items())[:1]:
        yield one("pre-trained", start=flow) | {"from": name}
    elsewhere[problem.dataset] = ran["flow"][0][0]


def main(out: Path, seeds: list[int]) -> None:
    """Append rows, problem by problem."""
    full = [p for p in problems(full=True) if p.name in CHOSEN]
    done = pd.read_csv(out) if out.exists() else pd.DataFrame(columns=["held_out", "seed"])
    rows = done.to_dict("records")
    # Something to pre-train on: the flow of Papalexi's pairs serves Kang and Norman, and
    # Norman's serves Papalexi.
    order = sorted(full, key=lambda p: (p.dataset != "norman", p.dataset != "papalexi"))
    for seed in seeds:
        elsewhere: dict[str, AnchoredFlow] = {}
        last = next(p for p in order if p.dataset == "papalexi")
        posed = Posed.of(last, seed)
        elsewhere["papalexi"] = train(posed, seed)[0]
        for problem in order:
            if ((done["held_out"] == problem.name) & (done["seed"] == seed)).any():
                continue
            found = list(measure(problem, seed, elsewhere))
            prior = found[0]
            for entry in found:
                for name in ("nmse", "energy", "nmse_in_full", "energy_in_full"):
                    of_prior = prior[name.removesuffix("_in_full")]
                    entry[f"{name}_over_prior"] = entry[name] / of_prior
                entry["date"] = datetime.date.today().isoformat()
            rows += found
            frame = pd.DataFrame(rows)
            temporary = out.with_suffix(".part")
            frame.round(4).to_csv(temporary, index=False)
            temporary.replace(out)
            print(frame.tail(len(found)).round(3).to_string(), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    with threads():
        main(arguments.out, arguments.seeds)
