"""What is attention worth to the latent: does it say more of a cell, or repeat its noise?

From the linear start the decoder alone learns, and then encoder and decoder together, once each from
whole cells (judged by the counts that were encoded), and once from nine tenths of the molecules
(judged by the others, see `celldit.training.encoder_stage`). Nats per gene on a tenth of the cells,
kept apart; `gain` is what attention takes off the decoder's own best. Training cells of the splits
of `benchmark_latent_choice.py`, and Baron.

    python notebooks/benchmark_attention_worth.py docs/results/attention_worth.csv --seeds 0 1
"""

from __future__ import annotations

import argparse
import copy
import csv
from pathlib import Path

import numpy as np
import torch
from benchmark_latent_choice import CHOSEN
from benchmark_prior import problems

import celldit as cd
from celldit.data import Cells, Fields
from celldit.latent import Autoencoder, LatentConfig
from celldit.tokenizers import resolve
from celldit.training import TrainingConfig
from celldit.training.encoder_stage import SplitBatches, SplitStage
from celldit.training.latent_batches import CountBatches
from celldit.training.likelihood import LatentStage, maximize
from celldit.training.trainer import quiet_lightning, trainer_defaults

CONFIG = TrainingConfig()
WAYS = {"whole": (LatentStage, CountBatches), "split": (SplitStage, SplitBatches)}
COLUMNS = ("cells", "counts", "seed", "start", "decoder", "attention", "gain", "version")


def training_cells() -> dict[str, Cells]:
    """Cells to learn from, by name."""
    found = {}
    for name, (cells, held_out) in problems().items():
        if name in CHOSEN:
            pairs = zip(cells.perturbations, cells.contexts, strict=True)
            found[name] = cells.take(np.array([pair not in set(held_out) for pair in pairs]))
    adata = cd.datasets.load("baron")
    cd.CellDiT.setup_anndata(adata, size_factor_key="total_umis")
    return {**found, "baron": Cells.from_anndata(adata, Fields.from_anndata(adata))}


def best(model: Autoencoder, cells: Cells, held_out: Cells, counts: str, seed: int) -> LatentStage:
    """Train as stage one does."""
    kind, batches_of = WAYS[counts]
    batches = batches_of(cells, model, CONFIG.latent_batch, seed=seed)
    n_epochs = int(np.clip(600 // len(batches), 4, 40))
    stage = kind(model, batches, CONFIG, n_epochs * len(batches))
    with quiet_lightning():
        maximize(
            stage,
            batches_of(held_out, model, model.batch_size, seed=None),
            n_epochs=n_epochs,
            seed=seed,
            trainer_arguments=trainer_defaults({"enable_progress_bar": False}, "latent"),
            part=None,
        )
    return stage


def main() -> None:
    """Write one row for each data set, way and seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with asked.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for seed in asked.seeds:
            for name, cells in training_cells().items():
                order = np.random.default_rng(seed).permutation(cells.n_cells)
                n_held_out = round(CONFIG.held_out_cells * cells.n_cells)
                held_out, rest = (
                    cells.take(np.sort(rows)) for rows in np.split(order, [n_held_out])
                )
                tokenizer = resolve("gene_sets").fit(rest)
                model = Autoencoder.start(rest, tokenizer, LatentConfig(kind="set"), seed)
                start = copy.deepcopy(model.state_dict())
                for counts in WAYS:
                    stages = []
                    for learning in (False, True):
                        model.load_state_dict(start)
                        for parameter_name, parameter in model.named_parameters():
                            in_decoder = parameter_name.startswith("decoder.")
                            parameter.requires_grad_(learning or in_decoder)
                        stages.append(best(model, rest, held_out, counts, seed))
                    nats = stages[0].at_start, *(stage.best for stage in stages)
                    gain = 1 - nats[2] / nats[1]
                    rounded = (*(round(x, 5) for x in nats), round(gain, 4))
                    row = (name, counts, seed, *rounded, cd.__version__)
                    writer.writerow(row)
                    file.flush()
                    print(*row, flush=True)


if __name__ == "__main__":
    main()
