"""What it costs and what it saves to give up a network that saves nothing.

    python notebooks/benchmarks/flow_steps.py docs/results/flow_steps.csv

Every problem is trained twice: with all steps of all runs (``least_gain=0``) and as is by default,
where training stops with a network that saves too little of the effect model's error. Problems are
those of ``held_out.py``, and a simulated screen of ``scale.py`` (*cells x genes x perturbations x
batches*), scored as they are there. Seconds are of the processor, of training without what new
cells need.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import scale
import torch
from held_out import cases
from scores import Scorer
from simulated_screen import KEYS, write_store

import celldit as cd
from celldit.training import TrainingConfig

PROBLEMS = ("papalexi", "norman", "kang-mixed-0", "12000x1000x200x2")
LEAST_GAINS = {"all steps": 0.0, "default": TrainingConfig().least_gain}


def trained(data: Any, tokenizer: str | None, least_gain: float) -> tuple[cd.CellDiT, float]:
    """A model and the seconds of its training."""
    model = cd.CellDiT(data, tokenizer)
    config = TrainingConfig(new_cells=False, least_gain=least_gain)
    start = time.process_time()
    model.train(config=config, enable_progress_bar=False)
    return model, time.process_time() - start


def real(name: str, least_gain: float) -> dict[str, float]:
    """Scores of a problem on real cells."""
    problem = cases()[name]()
    model, seconds = trained(problem.train, None, least_gain)
    made = model.predict(problem.controls, perturbations=problem.perturbations)
    scores = Scorer(problem)(made)
    weight = float(made.obs["flow_weight"].mean())
    return {
        "weight": weight,
        "nmse": scores["nmse"],
        "energy": scores["energy"],
        "seconds": seconds,
    }


def simulated(name: str, least_gain: float) -> dict[str, float]:
    """The squared error on a simulated screen."""
    world, layout = scale.screen(tuple(map(int, name.split("x"))))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "screen.zarr"
        write_store(path, world, layout)
        store = cd.open_store(path, **KEYS)
        model, seconds = trained(store, "modules", least_gain)
        nmse = scale.scores(model, store, world, layout)["nmse, celldit"]
    return {"weight": max(model.flow_weight.values()), "nmse": nmse, "seconds": seconds}


def main() -> None:
    """Write a row for each problem and way to train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--problems", nargs="+", default=PROBLEMS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows: list[dict[str, Any]] = []
    for name in given.problems:
        score = simulated if name[0].isdigit() else real
        for training, least_gain in LEAST_GAINS.items():
            numbers = {k: round(v, 4) for k, v in score(name, least_gain).items()}
            rows.append({"problem": name, "training": training, **numbers})
            rows[-1] |= {"seconds": round(numbers["seconds"]), "date": date.today().isoformat()}
            print(rows[-1], flush=True)
            pd.DataFrame(rows).to_csv(given.out, index=False)


if __name__ == "__main__":
    main()
