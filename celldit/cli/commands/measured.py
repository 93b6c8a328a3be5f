"""Commands that ask measured cells: responders, interactions, dose-response, effects-table."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

import celldit as cd
from celldit.cli import options
from celldit.cli.command import Answer, command
from celldit.cli.files import read_screen, write_figure, write_table


@command(columns=options.SCREEN)
def responders(
    data: options.Screen,
    output: options.TableOutput,
    columns: dict[str, Any],
    perturbation: options.Perturbations = None,
    guide_key: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column with the guide of each cell.")
    ] = None,
    cells: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Probability of each cell to write (.csv)."),
        options.WRITTEN,
    ] = None,
    figure: options.Figure = None,
    seed: options.Seed = 0,
) -> Answer:
    """Say which perturbed cells responded, and which guides work.

    Example: celldit responders screen.h5ad -o shares.csv --cells cells.csv --guide-key grna
    """
    adata = read_screen(data, columns)
    table = cd.tl.responders(adata, perturbation, guide_key=guide_key, seed=seed)
    write_figure(figure, partial(cd.pl.responders, adata, perturbation))
    found = adata.obs[["p_responded", "response_score"]].dropna()
    write_table(found.rename_axis("cell").reset_index(), cells)
    write_table(table, output)
    # Guides are often numbered within each perturbation.
    names = [name for name in ("perturbation", "dose", "guide") if name in table]
    said = [
        f"{', '.join(str(row[name]) for name in names)}: {row['share']:.0%} responded "
        f"({row['low']:.0%} to {row['high']:.0%})"
        for row in table.to_dict("records")
    ]
    return Answer(table.to_dict("records"), [*said, f"The shares are in {output}."])


@command(columns=[*options.SCREEN, "perturbation_sep"])
def interactions(
    data: options.Screen,
    output: options.TableOutput,
    columns: dict[str, Any],
    genes: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Deviations of genes to write (.csv)."),
        options.WRITTEN,
    ] = None,
    min_cells: options.MinCells = 20,
    figure: options.Figure = None,
    seed: options.Seed = 0,
) -> Answer:
    """Say whether measured pairs of perturbations do more than the sum of both.

    Example: celldit interactions screen.h5ad -o pairs.csv --genes genes.csv --figure pairs.pdf
    """
    adata = read_screen(data, columns)
    table = cd.tl.interactions(adata, min_cells=min_cells, seed=seed)
    write_figure(figure, partial(cd.pl.interactions, adata))
    write_table(adata.uns["interactions_genes"], genes)
    write_table(table, output)
    said = [
        f"{row.perturbation}{f' in {row.context}' if row.context else ''}: {row.kind}, "
        f"{row.total:.2f} ± {row.total_sd:.2f} of the sum, {row.n_genes} genes deviate"
        for row in table.itertuples()
    ]
    return Answer(table.to_dict("records"), [*said, f"The pairs are in {output}."])


@command(columns=[*options.SCREEN, "dose_key"])
def dose_response(
    data: options.Screen,
    output: options.TableOutput,
    columns: dict[str, Any],
    perturbation: options.Perturbations = None,
    points: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Changes at each dose to write (.csv)."),
        options.WRITTEN,
    ] = None,
    min_cells: options.MinCells = 10,
    figure: options.Figure = None,
) -> Answer:
    """Fit dose-response curves to measured genes, with the EC50 and how sure it is.

    Example: celldit dose-response drugs.h5ad -o curves.csv --dose-key dose_um --figure curves.pdf
    """
    adata = read_screen(data, columns)
    table = cd.tl.dose_response(adata, perturbation, min_cells=min_cells)
    measured = adata.uns["dose_response_points"]
    write_figure(figure, partial(cd.pl.dose_response, measured, curves=table))
    write_table(measured, points)
    write_table(table, output)
    sure = table[table["lfsr"] < 0.05]
    said = [
        f"{row.perturbation}, {getattr(row, 'symbol', row.gene)}: EC50 {row.ec50:.3g} "
        f"({row.ec50_low:.3g} to {row.ec50_high:.3g})"
        for row in sure.head(10).itertuples()
    ]
    said.append(f"{len(sure)} of {len(table):,} curves respond; all are in {output}.")
    return Answer({"output": str(output), "rows": len(table), "respond": len(sure)}, said)


@command(columns=[*options.SCREEN, "perturbation_sep"])
def effects_table(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA.h5ad",
            help="A screen with raw counts; it stays on disk, whatever its size.",
        ),
    ],
    output: options.AnnDataOutput,
    columns: dict[str, Any],
    source: Annotated[str, typer.Option(help="Where the data are from.")] = "",
    licence: Annotated[str, typer.Option(help="On what terms they may be used.")] = "",
    species: Annotated[str, typer.Option(help="Of which organism they are.")] = "",
    direction: Annotated[str, typer.Option(help="knock-out, knock-down, activation or drug.")] = "",
    min_cells: options.MinCells = 20,
    overwrite: bool = False,
) -> Answer:
    """Measure what each perturbation of a screen does, as a table for celldit train --effects.

    Example: celldit effects-table screen.h5ad -o effects.h5ad --perturbation-key perturbation
    --source "our first screen" --licence "CC BY 4.0"
    """
    table = cd.pp.effect_table(
        cd.open_store(data, **columns),
        source=source,
        licence=licence,
        species=species,
        direction=direction,  # type: ignore[arg-type]
        min_cells=min_cells,
        out=output,
        overwrite=overwrite,
    )
    n = int(table.obs["perturbation"].nunique())
    return Answer(
        {"output": str(output), "n_perturbations": n, "n_genes": table.n_vars},
        [
            f"Effects of {n} perturbations on {table.n_vars:,} genes are in {output}.",
            f"To use them: celldit train DATA.h5ad --effects {output}",
        ],
    )
