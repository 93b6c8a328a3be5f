"""``celldit demo``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from celldit.cli import options
from celldit.cli.command import Answer, command

DEFAULT_FOLDER = Path("demo_output")


def _kept(given: Mapping[str, Any]) -> str:
    folder = given["output"] or DEFAULT_FOLDER
    return f"The demo writes its files at its end; none in {folder} is half written."


@command(kept=_kept)
def demo(
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder for the results; the files of an earlier demo in demo_output are "
            "replaced.",
            show_default=str(DEFAULT_FOLDER),
        ),
    ] = None,
    seed: options.Seed = 0,
    overwrite: bool = False,
    quiet: bool = False,
    as_json: bool = False,
) -> Answer:
    """Run the whole way once on a real knock-out screen, in a minute or two."""
    from rich.console import Console

    from celldit.cli.demo import run_demo

    folder = output or DEFAULT_FOLDER
    result = run_demo(
        folder,
        seed=seed,
        overwrite=overwrite or output is None,
        console=Console(quiet=quiet or as_json),
    )
    return Answer(
        {
            "output": str(folder),
            "files": [path.name for path in result.paths],
            "table": result.table.to_dict("index"),
            "seconds": round(result.seconds, 1),
        }
    )
