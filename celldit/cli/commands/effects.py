"""``celldit effects``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from celldit.cli import options
from celldit.cli.command import Answer, command
from celldit.cli.files import write_figure, write_table


@command()
def effects(
    model: options.ModelFolder,
    data: Annotated[
        Path, typer.Argument(metavar="DATA.h5ad", help="Cells whose contexts are of interest.")
    ],
    output: options.TableOutput,
    perturbation: options.Perturbations = None,
    context: options.Contexts = None,
    dose: options.Dose = None,
    time: options.Time = None,
    min_change: Annotated[
        float, typer.Option(help="Size of a change that matters, log2, for p_changed.")
    ] = 0.25,
    figure: options.Figure = None,
) -> Answer:
    """Say which genes change, by how much, and how sure that is.

    Example: celldit effects model screen.h5ad -p STAT1 -o effects.csv --figure volcano.pdf
    """
    from celldit.io.files import read_h5ad
    from celldit.model import CellDiT
    from celldit.pl.effects.volcano import volcano
    from celldit.tl.effects import effects as table_of

    table = table_of(
        read_h5ad(data),
        CellDiT.load(model),
        perturbation or None,
        contexts=context or None,
        dose=options.read_dose(dose),
        time=time,
        min_change=min_change,
    )
    write_figure(figure, partial(volcano, table, context=str(table["context"].iloc[0])))
    write_table(table, output)
    changed = table[table["lfsr"] < 0.05].groupby(["perturbation", "context"], sort=False).size()
    counts = [{"perturbation": p, "context": c, "changed": int(n)} for (p, c), n in changed.items()]
    said = [f"{len(table):,} effects are in {output}."]
    for one in counts:
        where = f" in {one['context']}" if one["context"] else ""
        said.append(f"  {one['perturbation']}{where}: {one['changed']} genes change")
    if figure is not None:
        said.append(f"The volcano plots are in {figure}.")
    return Answer({"output": str(output), "rows": len(table), "changed": counts}, said)
