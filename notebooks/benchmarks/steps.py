"""How many steps does sampling need? Networks, paths and samplers side by side.

    python notebooks/benchmarks/steps.py docs/results/steps.csv

Two questions, both on cells that training did not see:

counterfactual   Kang's CD14 monocytes under interferon, no monocyte of them in training, by the
                 default model (the flow starts at the effect prior's estimate), with a DiT and with
                 a perceptron.
noise            Papalexi cells without any label, in 48 principal components: each network trained
                 from a standard normal alone, without celldit's anchor, for the same number of
                 updates, so that the flow has the whole way to go. ``ddpm`` is the stochastic
                 sampler on the variance-preserving path. Half of the cells train, half judge.

Numbers of steps are evaluations of the network for Euler and the stochastic sampler and half of
them for Heun. Seconds are of sampling (2,000 cells from noise, or all monocytes), decoding not
included for noise.
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from held_out import pose, problems
from second_path import ddpm, on_arc
from sklearn.decomposition import PCA
from torch import Tensor

import celldit as cd
from celldit.evaluation import metrics as measure
from celldit.flow import (
    CellNoise,
    on_path,
    resolve_solver,
    stratified_times,
    uniform_grid,
    velocity_loss,
)
from celldit.flow.anchored import AnchoredFlow, FlowCondition, NetworkConfig
from celldit.nn.comparators import MLPConfig
from celldit.nn.dit import DiTConfig

NETWORKS: dict[str, NetworkConfig] = {"dit": DiTConfig(), "mlp": MLPConfig()}
ODE_STEPS, SDE_STEPS = (1, 2, 4, 8, 16, 32), (50, 100, 250, 500, 1000)
K, D = 6, 8
UPDATES, BATCH, RATE = 4000, 256, 1e-3
N_DRAWN, N_PAIRS = 2000, 8192


def counterfactual() -> list[dict[str, object]]:
    """Predictions of monocytes by models that never saw one stimulated."""
    (problem,) = (p for p in problems() if p.name == "CD14 Mono")
    posed = pose(problem)
    rows = []
    for network, config in NETWORKS.items():
        model = cd.CellDiT(posed.train, dit=config)
        model.train(enable_progress_bar=False)
        for solver, steps in [("euler", n) for n in ODE_STEPS] + [("heun", 8)]:
            start = time.perf_counter()
            predicted = model.predict(
                posed.controls, perturbations=posed.perturbations, solver=solver, n_steps=steps
            )
            seconds = time.perf_counter() - start
            found = cd.tl.evaluate(
                predicted, posed.truth, posed.controls, metrics=["pearson", "nmse", "energy"]
            )
            rows.append(
                {
                    "task": "counterfactual",
                    "network": network,
                    "path": "linear",
                    "straightened": False,
                    "sampler": solver,
                    "steps": steps,
                    **found.set_index("metric")["value"].to_dict(),
                    "seconds": round(seconds, 2),
                }
            )
            print(rows[-1], flush=True)
    return rows


def plain(n: int) -> FlowCondition:
    """Nothing is told of n cells."""
    zeros, flags = torch.zeros(n, K, D), torch.zeros(n, dtype=torch.bool)
    return FlowCondition(zeros, zeros, torch.zeros(n), flags, flags)


FlowPath = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""``path(x0, x1, t)``: points between the ends at times t, and their velocities."""


def fit(flow: AnchoredFlow, path: FlowPath, pairs: Callable[[Tensor], tuple[Tensor, Tensor]],
        n_rows: int, updates: int = UPDATES) -> AnchoredFlow:  # fmt: skip
    """Regress the velocity of a path between the ends that `pairs` gives for random rows."""
    optimizer = torch.optim.AdamW(flow.parameters(), lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=updates)
    draw = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    flow.train()
    for _ in range(updates):
        x0_BKD, x1_BKD = pairs(torch.randint(n_rows, (BATCH,), generator=draw))
        t_B = stratified_times(BATCH, generator=draw)
        x_BKD, velocity_BKD = path(x0_BKD, x1_BKD, t_B)
        loss = velocity_loss(flow(x_BKD, t_B, plain(BATCH)), velocity_BKD)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return flow.eval()


@torch.no_grad()
def carry(flow: AnchoredFlow, x0_NKD: Tensor, sampler: str, steps: int) -> Tensor:
    """Follow the flow from its source, 500 cells at a time."""

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        return flow(x, t, plain(len(x)))

    ends, grid = [], uniform_grid(steps)
    for part, keys in zip(x0_NKD.split(500), torch.arange(len(x0_NKD)).split(500), strict=True):
        if sampler == "ddpm":
            ends.append(ddpm(velocity, part, grid, CellNoise(keys, 0)))
        else:
            ends.append(resolve_solver(sampler).solve(velocity, part, grid))
    return torch.cat(ends)


def from_noise() -> list[dict[str, object]]:
    """Cells of Papalexi from a standard normal."""
    adata = cd.datasets.papalexi()
    counts, sizes = adata.X, adata.obs["total_umis"].to_numpy()
    log = np.log1p(counts.toarray() * (1e4 / sizes)[:, None])
    half = np.random.default_rng(0).permutation(adata.n_obs) % 2 == 0
    pca = PCA(K * D, random_state=0).fit(log[half])
    scale, order = pca.transform(log[half]).std(), torch.Generator().manual_seed(0)
    known, unseen = (torch.tensor(pca.transform(log[h]) / scale).float() for h in (half, ~half))
    # At random: the file has its cells in the order of replicates.
    known, unseen = (x[torch.randperm(len(x), generator=order)] for x in (known, unseen))
    known_NKD, judge = known.view(-1, K, D), unseen[:N_DRAWN].numpy()
    start_NKD = torch.randn(N_DRAWN, K, D, generator=torch.Generator().manual_seed(1))
    rows: list[dict[str, object]] = []

    def score(made: np.ndarray, **told: object) -> None:
        rows.append(
            {
                "task": "noise",
                **told,
                "energy": measure.energy_distance(made, judge),
                "sliced_wasserstein": measure.sliced_wasserstein(made, judge),
                "auc": measure.classifier_auc(made, judge),
            }
        )
        print(rows[-1], flush=True)

    score(known[:N_DRAWN].numpy(), network="measured cells")
    generator = torch.Generator().manual_seed(2)

    def independent(at: Tensor) -> tuple[Tensor, Tensor]:
        return torch.randn(len(at), K, D, generator=generator), known_NKD[at]

    def curve(flow: AnchoredFlow, told: dict[str, object], chosen: list[tuple[str, int]]) -> None:
        for sampler, steps in chosen:
            begun = time.perf_counter()
            made = carry(flow, start_NKD, sampler, steps)
            seconds = round(time.perf_counter() - begun, 2)
            score(made.flatten(1).numpy(), **told, sampler=sampler, steps=steps, seconds=seconds)

    by_euler = [("euler", n) for n in ODE_STEPS]
    for network, config in NETWORKS.items():
        torch.manual_seed(0)
        flow = fit(AnchoredFlow(K, D, config), on_path, independent, len(known_NKD))
        told = {"network": network, "path": "linear", "straightened": False}
        curve(flow, told, [*by_euler, ("heun", 8), ("heun", 16)])
        source = torch.randn(N_PAIRS, K, D, generator=torch.Generator().manual_seed(3))
        target = carry(flow, source, "heun", 16)
        straight = fit(
            copy.deepcopy(flow),
            on_path,
            lambda at, a=source, b=target: (a[at], b[at]),  # type: ignore[misc]
            N_PAIRS,
            UPDATES // 2,
        )
        curve(straight, {**told, "straightened": True}, by_euler)
    torch.manual_seed(0)
    flow = fit(AnchoredFlow(K, D, DiTConfig()), on_arc, independent, len(known_NKD))
    told = {"network": "dit", "path": "trigonometric", "straightened": False}
    curve(flow, told, [*by_euler, *(("ddpm", n) for n in SDE_STEPS)])
    return rows


def main(out: Path) -> None:
    """Write one row per task, network, path, sampler and number of steps."""
    torch.set_num_threads(1)
    pd.DataFrame(from_noise() + counterfactual()).to_csv(out, index=False, float_format="%.5g")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
