"""``celldit submission``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from celldit.cli import options
from celldit.cli.command import Answer, command


@command(columns=("perturbation_key", "control"))
def submission(
    predicted: Annotated[
        Path, typer.Argument(metavar="PREDICTED.h5ad", help="What celldit predict wrote.")
    ],
    controls: Annotated[
        Path, typer.Argument(metavar="CONTROL.h5ad", help="Measured control cells, raw counts.")
    ],
    output: options.AnnDataOutput,
    columns: dict[str, Any],
    panel: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Genes of the panel in order, one a line."),
    ] = None,
    perturbations: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Perturbations asked for, one a line."),
    ] = None,
) -> Answer:
    """Write the file of Arc's challenge of 2026, and check it.

    Raw counts, genes in the order of the panel (that of CONTROL.h5ad by default), and
    obs["target"], with control cells as non-targeting. The prediction says which column holds
    labels, and what the control's is.

    Example: celldit submission predicted.h5ad controls.h5ad --panel panel.txt -o submission.h5ad
    """
    from celldit.data.fields import Fields, is_set_up
    from celldit.evaluation.challenge.submission import submission as make
    from celldit.io.files import read_h5ad, write_h5ad

    guess, base = read_h5ad(predicted), read_h5ad(controls)
    known = Fields.from_anndata(guess) if is_set_up(guess) else Fields()
    made = make(
        guess,
        list(base.var_names.astype(str)) if panel is None else _lines(panel),
        base,
        perturbation_key=columns.get("perturbation_key")
        or known.perturbation_key
        or "perturbation",
        control_label=columns.get("control", [known.control])[0],
        perturbations=None if perturbations is None else _lines(perturbations),
    )
    write_h5ad(output, made)
    n_labels = made.obs["target"].nunique() - 1
    said = {"output": str(output), "n_cells": made.n_obs, "n_perturbations": n_labels}
    return Answer(
        {**said, "n_genes": made.n_vars},
        [
            f"{made.n_obs:,} cells of {n_labels} perturbations and controls, {made.n_vars:,} "
            f"genes, are in {output}; counts, order of genes and labels are as the challenge wants "
            "them."
        ],
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
