"""Commands that ask a model which perturbation does what: effects, rank, next, explore."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

import celldit as cd
from celldit.cli import options
from celldit.cli.command import Answer, command
from celldit.cli.files import named_query, write_figure, write_table
from celldit.errors import InputError
from celldit.io.files import read_h5ad


@command(group=options.WHEN)
def effects(
    model: options.ModelFolder,
    data: Annotated[
        Path, typer.Argument(metavar="DATA.h5ad", help="Cells whose contexts are of interest.")
    ],
    output: options.TableOutput,
    perturbation: options.Perturbations = None,
    context: options.Contexts = None,
    min_change: Annotated[
        float, typer.Option(help="Size of a change that matters, log2, for p_changed.")
    ] = 0.25,
    figure: options.Figure = None,
    **when: Any,
) -> Answer:
    """Say which genes change, by how much, and how sure that is.

    Example: celldit effects model screen.h5ad -p STAT1 -o effects.csv --figure volcano.pdf
    """
    chosen = {"contexts": context, "min_change": min_change, **when}
    table = cd.tl.effects(read_h5ad(data), cd.CellDiT.load(model), perturbation, **chosen)
    drawn = str(table["context"].iloc[0])
    write_figure(figure, partial(cd.pl.volcano, table, context=drawn))
    write_table(table, output)
    changed = table[table["lfsr"] < 0.05].groupby(["perturbation", "context"], sort=False).size()
    counts = [{"perturbation": p, "context": c, "changed": int(n)} for (p, c), n in changed.items()]
    said = [f"{len(table):,} effects are in {output}."]
    for one in counts:
        where = f" in {one['context']}" if one["context"] else ""
        said.append(f"  {one['perturbation']}{where}: {one['changed']} genes change")
    if figure is not None:
        only = f" of {drawn} (for another: --context)" if table["context"].nunique() > 1 else ""
        said.append(f"The volcano plots{only} are in {figure}.")
    return Answer({"output": str(output), "rows": len(table), "changed": counts}, said)


@command(group={**options.WHEN, **options.DRAWN})
def rank(
    model: options.ModelFolder,
    data: options.Screen,
    source: Annotated[
        str,
        typer.Option("--from", metavar="QUERY", help="Cells to move: the controls of this query."),
    ],
    target: Annotated[str, options.Target],
    perturbation: options.Perturbations = None,
    output: options.Table = None,
    max_cells: options.MaxCells = 200,
    **given: Any,
) -> Answer:
    """Rank perturbations by how far they move some cells towards others.

    Example: celldit rank model screen.h5ad --from "cell_type == 'CD4 T'"
    --target "cell_type == 'Treg'" -o ranking.csv
    """
    table = cd.tl.rank_perturbations(
        read_h5ad(data),
        cd.CellDiT.load(model),
        source=source,
        target=named_query(target)[1],
        perturbations=perturbation,
        max_cells=max_cells,
        **given,
    )
    write_table(table, output)
    said = [
        f"{row.perturbation}: {row.score:.0%} ± {row.sd:.0%} of the way ({row.extrapolation})"
        for row in table.head(10).itertuples()
    ]
    where = f"; all are in {output}." if output else "; keep them with --output FILE."
    return Answer(table.to_dict("records"), [*said, f"{len(table)} perturbations{where}"])


@command()
def next_perturbations(
    model: options.ModelFolder,
    candidate: Annotated[
        list[str] | None,
        typer.Option(
            "--candidate",
            "-c",
            metavar="LABEL",
            help="Label; repeat; by default all with features, not measured.",
        ),
    ] = None,
    n: Annotated[int, typer.Option("-n", min=1, help="How many to choose.")] = 5,
    context: options.Contexts = None,
    gene: Annotated[
        list[str] | None,
        typer.Option("--gene", metavar="NAME", help="Gene to learn about; repeat; all by default."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Screen, .h5ad, in which --target picks cells.")
    ] = None,
    target: Annotated[str | None, options.Target] = None,
    about: Annotated[
        Literal["others", "target", "both"] | None,
        typer.Option(help="What to learn.", show_default="both with --target, else others"),
    ] = None,
    n_cells: Annotated[
        int, typer.Option(min=1, help="Cells for each perturbation and context.")
    ] = 100,
    output: options.Table = None,
) -> Answer:
    """Choose a batch of perturbations from which most would be learned about the others.

    Example: celldit next model -c A+B -c A+C -c B+C -n 2
    """
    import anndata as ad

    if (data is None) != (target is None):
        raise InputError("--target picks cells of --data; give both, or neither.")
    table = cd.tl.next_perturbations(
        ad.AnnData() if data is None else read_h5ad(data),
        cd.CellDiT.load(model),
        candidate,
        n=n,
        contexts=context,
        genes=gene,
        target=None if target is None else named_query(target)[1],
        about=about,
        n_cells=n_cells,
    )
    write_table(table, output)
    said = [
        f"{row.perturbation}: {row.left:.1%} is unknown of the others after it"
        for row in table.itertuples()
    ]
    return Answer(table.to_dict("records"), said)


@command(group=options.WHEN)
def explore(
    model: options.ModelFolder,
    data: options.Screen,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Page to write (.html)."), options.WRITTEN
    ],
    perturbation: options.Perturbations = None,
    context: options.Contexts = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]QUERY",
            help="State to reach: a query of obs, and a name for it; repeat for several.",
        ),
    ] = None,
    title: Annotated[str | None, typer.Option(help="Title of the page.")] = None,
    max_cells: options.MaxCells = 150,
    seed: options.Seed = 0,
    overwrite: bool = False,
    **when: Any,
) -> Answer:
    """Write a page in which the effects of perturbations can be explored, in one file.

    Example: celldit explore model screen.h5ad -o explore.html --target "B cells=cell_type == 'B'"
    """
    page = cd.report.explore(
        read_h5ad(data),
        cd.CellDiT.load(model),
        output,
        perturbation,
        contexts=context,
        targets=dict(map(named_query, target or ())),
        title=title,
        max_cells=max_cells,
        overwrite=overwrite,
        seed=seed,
        **when,
    )
    size = page.stat().st_size
    said = f"The page is in {page} ({size / 1e6:.1f} MB); any browser opens it."
    return Answer({"output": str(page), "bytes": size}, [said])
