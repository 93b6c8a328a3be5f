"""``celldit demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from celldit.cli import options
from celldit.cli.guard import guard, say_json

DEFAULT_FOLDER = Path("demo_output")


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
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Run the whole way once on a real knock-out screen, in a minute or two."""
    folder = DEFAULT_FOLDER if output is None else output
    with guard(debug=debug, quiet=quiet, kept=lambda: _kept(folder)):
        from rich.console import Console

        from celldit.cli.demo import run_demo

        result = run_demo(
            folder,
            seed=seed,
            overwrite=overwrite or output is None,
            console=Console(quiet=quiet or as_json),
        )
        if as_json:
            say_json(
                {
                    "output": str(folder),
                    "files": [path.name for path in result.paths],
                    "table": result.table.to_dict("index"),
                    "seconds": round(result.seconds, 1),
                }
            )


def _kept(folder: Path) -> str:
    return f"The demo writes its files at its end; none in {folder} is half written."
