"""``celldit trajectory``."""

from __future__ import annotations

from typing import Annotated

import typer

from celldit.cli import options
from celldit.cli.command import Answer, command
from celldit.cli.files import claim


@command()
def trajectory(
    model: options.ModelFolder,
    data: options.Screen,
    output: options.CellsOutput,
    time: Annotated[
        list[float], typer.Option(help="Time of the cells, where the data have times.")
    ],
    batch_size: options.BatchSize = 512,
    seed: options.Seed = 0,
    overwrite: bool = False,
) -> Answer:
    """Show cells at other times, those between the trained ones included; repeat --time.

    Example: celldit trajectory model day10.h5ad --time 10.25 --time 10.5 -o path.h5ad
    """
    from celldit.io.files import read_h5ad
    from celldit.model import CellDiT

    claim(output, overwrite=overwrite)
    loaded = CellDiT.load(model)
    path = loaded.trajectory(
        read_h5ad(data),
        times=time,
        batch_size=batch_size,
        seed=seed,
        out=output,
        overwrite=overwrite,
    )
    return Answer(
        {"output": str(output), "n_cells": path.n_obs, "time_course": loaded.time_course},
        [f"{path.n_obs:,} cells are in {output}.", f"Between the times of training: "
         f"{loaded.time_course}"],
    )  # fmt: skip
