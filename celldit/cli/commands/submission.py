"""``celldit submission``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from celldit.cli.guard import guard, say, say_json
from celldit.cli.options import Debug, Json, Overwrite, Quiet


def submission(
    predicted: Annotated[
        Path, typer.Argument(metavar="PREDICTED.h5ad", help="What celldit predict wrote.")
    ],
    control: Annotated[
        Path, typer.Argument(metavar="CONTROL.h5ad", help="Measured control cells, raw counts.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write (.h5ad).")],
    genes: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Genes of the panel in order, one a line."),
    ] = None,
    perturbations: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Perturbations asked for, one a line."),
    ] = None,
    perturbation_key: Annotated[str, typer.Option(metavar="COLUMN")] = "perturbation",
    control_label: Annotated[str, typer.Option(metavar="LABEL")] = "control",
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write the file of Arc's challenge of 2026, and check it.

    Raw counts, genes in the order of the panel (that of CONTROL.h5ad by default), and
    obs["target"], with control cells as non-targeting.

    Example: celldit submission predicted.h5ad controls.h5ad --genes panel.txt -o submission.h5ad
    """
    with guard(debug=debug, quiet=quiet, kept=f"{output} was not written."):
        from celldit.evaluation.challenge.submission import submission as make
        from celldit.io.files import read_h5ad, refuse_existing, write_h5ad

        refuse_existing([output], overwrite=overwrite)
        base = read_h5ad(control)
        made = make(
            read_h5ad(predicted),
            list(base.var_names.astype(str)) if genes is None else _lines(genes),
            base,
            perturbation_key=perturbation_key,
            control_label=control_label,
            perturbations=None if perturbations is None else _lines(perturbations),
        )
        write_h5ad(output, made)
        n_labels = made.obs["target"].nunique() - 1
        if as_json:
            said = {"output": str(output), "n_cells": made.n_obs, "n_perturbations": n_labels}
            say_json({**said, "n_genes": made.n_vars})
            return
        say(
            f"{made.n_obs:,} cells of {n_labels} perturbations and controls, {made.n_vars:,} "
            f"genes, are in {output}; counts, order of genes and labels are as the challenge wants "
            "them.",
            quiet=quiet,
        )


def _lines(path: Path) -> list[str]:
    from celldit.arguments import check_plain
    from celldit.errors import FileError

    check_plain(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise FileError(f"{path} cannot be read ({error}).") from error
    return [line.strip() for line in text.splitlines() if line.strip()]
