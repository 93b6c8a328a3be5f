"""Time to quality: celldit and CellFlow on the same held-out conditions, one after the other.

    python notebooks/benchmarks/race_cellflow.py docs/results \\
        --peer PYTHON_WITH_CELLFLOW --seeds 0 1 2

CellFlow (`cellflow-tools` 0.0.9, small configuration, see ``race_cellflow_peer.py``) works in 48
principal components of the training cells, which are made for it off the clock; its curve is one
training looked at after 50, 100, 200, ... steps, the clock stopped meanwhile. celldit's curve is
its whole ``train()``, both stages and what follows, once for each bound on the epochs: 0 is the
effect prior, None the default. What only new cells need, which CellFlow has no counterpart of and
no prediction depends on, is left out (``new_cells=False``). CellFlow's course differs from run to
run, so there may be several seeds, of both. Time is seconds of one core (both use one), so that
other work on the machine does not count, nor imports; compilation does. Squared error is over
squared effect, of the mean log expression of all genes; energy distance in the same principal
components. The verdict asks when celldit is as good as CellFlow ever gets, in either measure and in
both, and compares with the time of CellFlow's best; for both with the later of its two bests, which
it need not have had at once. It asks so of every seed, and of the mean over seeds of each look. The
best of one run is the luckiest of eight looks at the held-out cells, which no user has; the mean
leaves less to luck.
"""

from __future__ import annotations

import argparse
import datetime
import os
import subprocess
import tempfile
import time
from pathlib import Path

import lightning.pytorch  # noqa: F401 - celldit imports it when it first trains
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from held_out import HeldOut, Problem, pose, problems
from matplotlib.ticker import LogLocator
from sklearn.decomposition import PCA

from celldit import CellDiT
from celldit.data.cells import Cells
from celldit.data.fields import Fields
from celldit.flow.losses import energy_distance_loss
from celldit.training.config import TrainingConfig

CHOSEN = {"CD14 Mono", "3 combinations", "8 knock-outs in rep_3"}
BUDGETS: tuple[int | None, ...] = (0, 2, 3, 4, 6, None)
N_COMPONENTS = 48


class Task:
    """A problem as numbers: principal components of the training cells, and what to predict."""

    def __init__(self, posed: HeldOut) -> None:
        fields = Fields.from_anndata(posed.train)
        self.train, self.truth, self.controls = (
            Cells.from_anndata(a, fields) for a in (posed.train, posed.truth, posed.controls)
        )
        self.log_truth = self.truth.log_normalized().toarray()
        self.log_controls = self.controls.log_normalized().toarray()
        self.pca = PCA(N_COMPONENTS, random_state=0).fit(self.train.log_normalized().toarray())
        self.conditions = sorted(
            set(zip(self.truth.perturbations, self.truth.contexts, strict=True))
        )

    def score(self, predicted: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]) -> tuple:
        """Mean over conditions; for each its mean log expression (G,) and latents (N, F)."""
        nmse, energy = [], []
        for label, context in self.conditions:
            mean_G, z_NF = predicted[label, context]
            rows = (self.truth.perturbations == label) & (self.truth.contexts == context)
            before_G = self.log_controls[self.controls.contexts == context].mean(0)
            truth_G = self.log_truth[rows].mean(0)
            nmse.append(((mean_G - truth_G) ** 2).sum() / ((truth_G - before_G) ** 2).sum())
            truth_z = self.pca.transform(self.log_truth[rows])
            rng = np.random.default_rng(0)
            some = z_NF[rng.permutation(len(z_NF))[:1000]]
            pair = (torch.from_numpy(x.astype(np.float32)) for x in (some, truth_z))
            energy.append(float(energy_distance_loss(*pair)))
        return float(np.mean(nmse)), float(np.mean(energy))


def race_celldit(posed: HeldOut, task: Task, seed: int) -> list[tuple]:
    """Whole trainings with growing bounds on the epochs."""
    rows = []
    for budget in BUDGETS:
        started = time.process_time()
        model = CellDiT(posed.train)
        settings = {"enable_progress_bar": False, "accelerator": "cpu", "devices": 1}
        model.train(budget, seed=seed, config=TrainingConfig(new_cells=False), **settings)
        seconds = time.process_time() - started
        predicted = model.predict(posed.controls, perturbations=list(posed.perturbations))
        made = Cells.from_anndata(predicted, Fields.from_anndata(predicted))
        log = made.log_normalized().toarray()
        by_condition = {}
        for label, context in task.conditions:
            rows_of = (made.perturbations == label) & (made.contexts == context)
            by_condition[label, context] = log[rows_of].mean(0), task.pca.transform(log[rows_of])
        kinds = ("new context", "new combination")
        trust = max(model.flow_weight[kind] for kind in kinds)
        name = "default" if budget is None else str(budget)
        rows.append(("celldit", name, seconds, *task.score(by_condition), trust))
        print(*rows[-1], flush=True)
    return rows


def ask_cellflow(
    task: Task, python: str, script: str, argument: float, seed: int = 0
) -> dict[str, np.ndarray]:
    """Run a script of this folder where CellFlow is installed, in one thread, and read its arrays.

    It gets the principal components of the training cells with their conditions, and what to
    predict; a file to write to; one number; and the seed.
    """
    folder_of_scripts = Path(__file__).parent
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder, "task.npz"), Path(folder, "made.npz")
        labels, contexts = (np.array(c, dtype=str) for c in zip(*task.conditions, strict=True))
        np.savez(
            given,
            z=task.pca.transform(task.train.log_normalized().toarray()).astype(np.float32),
            labels=task.train.perturbations.astype(str),
            contexts=task.train.contexts.astype(str),
            asked=labels,
            asked_contexts=contexts,
        )
        one = {"OMP_NUM_THREADS": "1", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | one
        environment |= {"JAX_PLATFORMS": "cpu"}
        command = [python, str(folder_of_scripts / script), str(given), str(made), str(argument)]
        command.append(str(seed))
        subprocess.run(command, check=True, env=environment, stderr=subprocess.DEVNULL)
        return dict(np.load(made))


def race_cellflow(task: Task, python: str, seconds: float, seed: int) -> list[tuple]:
    """One training, looked at after 50, 100, 200, ... steps."""
    result = ask_cellflow(task, python, "race_cellflow_peer.py", seconds, seed)
    ends = np.cumsum(result["sizes"])
    rows = []
    for i, clock in enumerate(result["seconds"]):
        parts = dict(zip(result["keys"], np.split(result["z"][i], ends[:-1]), strict=True))
        by_condition = {
            (label, context): (task.pca.inverse_transform(parts[label]).mean(0), parts[label])
            for label, context in task.conditions
        }
        rows.append(
            ("CellFlow", str(result["steps"][i]), float(clock), *task.score(by_condition), np.nan)
        )
    best = min(rows, key=lambda row: row[3])
    print(
        "CellFlow's best squared error:", best, "least energy", min(r[4] for r in rows), flush=True
    )
    return rows


def draw(frame: pd.DataFrame, path: Path) -> None:
    """Curves over time, one row for each measure; thin lines are seeds, where there are several."""
    names = list(dict.fromkeys(frame["held_out"]))
    figure, axes = plt.subplots(2, len(names), figsize=(4 * len(names), 6), squeeze=False)
    for column, name in enumerate(names):
        for row, measure in enumerate(("nmse", "energy")):
            axis = axes[row, column]
            for method, color in (("CellFlow", "tab:gray"), ("celldit", "tab:blue")):
                own = frame[(frame["held_out"] == name) & (frame["method"] == method)]
                if own["seed"].nunique() > 1:
                    for _, run in own.groupby("seed"):
                        axis.plot(run["seconds"], run[measure], color=color, lw=0.7, alpha=0.5)
                mean = own.groupby("steps_or_epochs", sort=False)[["seconds", measure]].mean()
                axis.plot(
                    mean["seconds"], mean[measure], marker="o", ms=3, color=color, label=method
                )
            axis.set(
                xlabel="core seconds of training", ylabel=measure, yscale="log", ylim=(None, None)
            )
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
            axis.yaxis.set_minor_formatter("{x:g}")
        axes[0, column].set_title(name, fontsize=10)
    axes[0, 0].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def verdict(frame: pd.DataFrame) -> pd.DataFrame:
    """When each reaches what CellFlow ever reaches, in either measure, in both, and on average."""
    rows = []
    looks = frame.groupby(["held_out", "method", "steps_or_epochs"], sort=False)
    mean = looks[["seconds", "nmse", "energy"]].mean().reset_index().assign(seed="mean")
    several = frame.groupby("held_out")["seed"].nunique() > 1
    mean = mean[mean["held_out"].map(several)]
    every = pd.concat([frame, mean])
    for (name, seed), own in every.groupby(["held_out", "seed"], sort=False):
        flow, ours = (own[own["method"] == m] for m in ("CellFlow", "celldit"))
        best = {measure: flow.loc[flow[measure].idxmin()] for measure in ("nmse", "energy")}
        for measures in (["nmse"], ["energy"], ["nmse", "energy"]):
            theirs = max(best[measure]["seconds"] for measure in measures)
            good = ours
            for measure in measures:
                good = good[good[measure] <= best[measure][measure]]
            when = good["seconds"].min() if len(good) else np.nan
            value = best[measures[0]][measures[0]] if len(measures) == 1 else np.nan
            rows.append((name, seed, " and ".join(measures), value, theirs, when, when / theirs))
    columns = [
        "held_out",
        "seed",
        "measure",
        "cellflow_best",
        "cellflow_s",
        "celldit_s",
        "share_of_time",
    ]
    return pd.DataFrame(rows, columns=columns)


def main() -> None:
    """Race, write the table, the verdict and the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--peer", required=True, help="Python with cellflow-tools")
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--datasets", nargs="+", default=["kang", "norman", "papalexi"])
    arguments = parser.parse_args()
    chosen: list[Problem] = [p for p in problems() if p.name in CHOSEN]
    chosen = [p for p in chosen if p.dataset.split("_")[0] in arguments.datasets]
    chosen.sort(key=lambda p: len(p.test))
    frames = []
    for problem in chosen:
        posed = pose(problem)
        task = Task(posed)
        for seed in arguments.seeds:
            name = f"{problem.dataset}: {problem.name}"
            print(name, seed, flush=True)
            rows = race_cellflow(task, arguments.peer, arguments.seconds, seed)
            rows += race_celldit(posed, task, seed)
            columns = ["method", "steps_or_epochs", "seconds", "nmse", "energy", "trust"]
            frames.append(pd.DataFrame(rows, columns=columns).assign(held_out=name, seed=seed))
            frame = pd.concat(frames)[["held_out", "seed", *columns]]
            load = f"{os.getloadavg()[1]:.1f}"
            today = datetime.date.today().isoformat()
            frame = frame.assign(date=today, cores=os.cpu_count(), load=load)
            frame.round(4).to_csv(arguments.out / "race.csv", index=False)
            verdict(frame).round(3).to_csv(arguments.out / "race_verdict.csv", index=False)
            draw(frame, arguments.out / "race.png")
    print(verdict(frame).round(3).to_string(index=False))


if __name__ == "__main__":
    main()
