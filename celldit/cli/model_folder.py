"""What training and fine-tuning share: the folder of the model, and how they end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celldit.cli.command import Answer
from celldit.errors import FileError

if TYPE_CHECKING:
    from celldit.model import CellDiT

__all__ = ["kept", "place_of", "trained"]


def kept(given: Mapping[str, Any]) -> str:
    """What an interruption leaves."""
    said = "No model was written: it is written only when training is done."
    if given["checkpoint"] is None:
        return said
    where = given["checkpoint"]
    return f"{said} The checkpoints in {where} are whole; the same command goes on from there."


@contextmanager
def place_of(output: Path, *, overwrite: bool) -> Iterator[bool]:
    """Hold the folder of a model while it is trained; says whether this process is the first.

    Raises
    ------
    FileError
        If it exists already, is no model, or another process writes to it.
    """
    from celldit.io.folders import CONFIG
    from celldit.io.launched import is_first_process
    from celldit.io.locks import sole_writer

    # Of several processes of one training only the first writes, and holds the place for all.
    first = is_first_process()
    with sole_writer(output) if first else nullcontext():
        if output.exists() and not overwrite:
            raise FileError(f"{output} exists already; choose another folder, or pass --overwrite.")
        if output.exists() and not (output / CONFIG).is_file():
            raise FileError(f"{output} is not a celldit model, so it will not be replaced.")
        yield first


def trained(
    model: CellDiT, output: Path, n_cells: int, started: float, *, overwrite: bool
) -> Answer | None:
    """Save a model, and say so; None from processes that only helped."""
    from celldit.training.saving.checkpoints import is_main_process

    if not is_main_process():
        return None
    model.save(output, overwrite=overwrite)
    seconds = time.perf_counter() - started
    content = {
        "model": str(output),
        "id": model.trained.model_id,
        "n_cells": n_cells,
        "n_genes": len(model.genes),
        "flow_weight": model.flow_weight,
        "seconds": round(seconds, 1),
    }
    said = [
        f"Trained in {seconds:.0f} s; the model is in {output}.",
        f"What it can do: celldit info {output}",
    ]
    return Answer(content, said)
