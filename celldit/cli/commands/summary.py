"""``celldit summary``."""

from __future__ import annotations

import typer

from celldit.cli.guard import guard, say_json
from celldit.cli.options import Debug, Json, ModelFolder


def summary(model: ModelFolder, as_json: Json = False, debug: Debug = False) -> None:
    """Say in four sentences what a model learned, what to trust, and what would help.

    Example: celldit summary model
    """
    with guard(debug=debug):
        from celldit.model import CellDiT

        sentences = CellDiT.load(model).summary()
        if as_json:
            say_json({"model": str(model), "summary": sentences.splitlines()})
            return
        typer.echo(sentences)
