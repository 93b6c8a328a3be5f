"""``celldit effects``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from celldit.cli import options
from celldit.cli.guard import guard, say, say_json


def effects(
    model: options.ModelFolder,
    data: Annotated[
        Path, typer.Argument(metavar="DATA.h5ad", help="Cells whose contexts are of interest.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Table to write (.csv).")],
    perturbation: options.Perturbations = None,
    context: options.Contexts = None,
    dose: options.Dose = None,
    time: options.Time = None,
    min_change: Annotated[
        float, typer.Option(help="Size of a change that matters, log2, for p_changed.")
    ] = 0.25,
    figure: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Volcano plots (.pdf, .png, .svg).")
    ] = None,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Say which genes change, by how much, and how sure that is.

    Example: celldit effects model screen.h5ad -p STAT1 -o effects.csv --figure volcano.pdf
    """
    with guard(debug=debug, quiet=quiet, kept=f"{output} was not written."):
        from celldit.io.files import read_h5ad, refuse_existing, whole_file

        refuse_existing([path for path in (output, figure) if path], overwrite=overwrite)
        import matplotlib as mpl

        mpl.use("Agg")
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
        if figure is not None:
            where = str(table["context"].iloc[0])
            volcano(table, context=where, save=figure, show=False)
        with whole_file(output) as path:
            table.to_csv(path, index=False)
        changed = table[table["lfsr"] < 0.05]
        counts = changed.groupby(["perturbation", "context"], sort=False).size()
        if as_json:
            said = [{"perturbation": p, "context": c, "changed": int(n)}
                    for (p, c), n in counts.items()]  # fmt: skip
            say_json({"output": str(output), "rows": len(table), "changed": said})
            return
        say(f"{len(table):,} effects are in {output}.", quiet=quiet)
        for (label, where), n in counts.items():
            say(f"  {label}{f' in {where}' if where else ''}: {n} genes change", quiet=quiet)
        if figure is not None:
            say(f"The volcano plots are in {figure}.", quiet=quiet)
