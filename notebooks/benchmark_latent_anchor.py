"""What the start of the latent loses: genes, components of tokens, or a regression on tokens.

No network is trained. Latents of 48 dimensions are fitted on the training cells; log expression is
read from them by ridge regression. ``explained`` is the share of its variance on training cells.
For the held-out conditions, squared error over squared effect of the mean shift of log expression,
were the true mean latent shift known (``true_shift``), and with the effect prior's estimate of it
(``prior``); ``latent_error`` is that estimate's in the latent, whitened by the variation within
conditions.

    python notebooks/benchmark_latent_anchor.py docs/results/latent_anchor.csv
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from benchmark_prior import N_TOKENS, TOKEN_DIM, problems

import celldit as cd
from celldit.conditions import Condition, ConditionTable
from celldit.effects import EffectPrior
from celldit.data import Cells
from celldit.latent.anchor import fit_anchor
from celldit.latent.regression_anchor import fit_regression_anchor
from celldit.tokenizers import GeneSets

CHOSEN = ("kang, CD14 Mono", "kang, NK", "kang, B", "norman, 3 combinations", "papalexi, 8 pairs")
COLUMNS = ("held_out", "start", "explained", "true_shift", "prior", "latent_error", "version")


def latents(train: Cells, cells: Cells) -> Iterator[tuple[str, np.ndarray]]:
    """The latents of all cells, by linear maps fitted on the training cells."""
    log = train.log_normalized()
    tokenizer = GeneSets().fit(train)
    own, every = (tokenizer(some).values.flatten(1).numpy() for some in (train, cells))
    size = N_TOKENS, TOKEN_DIM
    for name, seen, anchor in (
        ("components of genes", cells.log_normalized(), fit_anchor(log, *size, 0)),
        ("components of tokens", every, fit_anchor(own, *size, 0)),
        ("regression on tokens", every, fit_regression_anchor(own, log, *size)),
    ):
        yield name, np.asarray(seen @ anchor.loadings - anchor.offset, dtype=np.float64)


def measure(
    z: np.ndarray, cells: Cells, is_held_out: np.ndarray, held_out: Sequence[tuple[str, str]]
) -> tuple[float, ...]:
    """The numbers of one row."""
    train, own = cells.take(~is_held_out), z[~is_held_out]
    log = cells.log_normalized()
    y = log[~is_held_out].toarray().astype(np.float64)
    y -= y.mean(0)
    readout = np.linalg.solve(own.T @ own + np.eye(own.shape[1]), own.T @ y)
    explained = 1 - ((y - own @ readout) ** 2).sum() / (y**2).sum()
    prior = EffectPrior.fit(own, ConditionTable.from_cells(train, "+"))
    conditions = [Condition(tuple(p.split("+")), None, where) for p, where in held_out]
    errors = []
    for (label, where), estimate in zip(held_out, prior.estimate(conditions).mean, strict=True):
        here = cells.contexts == where
        treated, control = here & (cells.perturbations == label), here & cells.is_control
        measured = np.asarray(log[treated].mean(0) - log[control].mean(0)).ravel()
        shift = z[treated].mean(0) - z[control].mean(0)
        pairs = [(shift @ readout, measured), (estimate @ readout, measured)]
        pairs.append((estimate @ prior.rotation, shift @ prior.rotation))
        errors.append([((a - b) ** 2).sum() / (b**2).sum() for a, b in pairs])
    return tuple(round(float(x), 3) for x in (explained, *np.mean(errors, axis=0)))


def main(out: Path) -> None:
    """Write one row per split and start."""
    torch.set_num_threads(1)
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for name, (cells, held_out) in problems().items():
            if name not in CHOSEN:
                continue
            pairs = zip(cells.perturbations, cells.contexts, strict=True)
            is_held_out = np.array([pair in set(held_out) for pair in pairs])
            for start, z in latents(cells.take(~is_held_out), cells):
                row = (name, start, *measure(z, cells, is_held_out, held_out), cd.__version__)
                writer.writerow(row)
                print(*row, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
