"""The commands. Heavy imports wait until a command runs, so that ``--help`` is instant."""

from __future__ import annotations

from typing import Annotated

import typer

from celldit import __version__
from celldit.cli.commands.baseline import baseline
from celldit.cli.commands.benchmark import benchmark
from celldit.cli.commands.demo import demo
from celldit.cli.commands.effects import effects
from celldit.cli.commands.effects_table import effects_table
from celldit.cli.commands.evaluate import evaluate
from celldit.cli.commands.explore import explore
from celldit.cli.commands.generate import generate
from celldit.cli.commands.info import info
from celldit.cli.commands.measured.dose_response import dose_response
from celldit.cli.commands.measured.interactions import interactions
from celldit.cli.commands.measured.responders import responders
from celldit.cli.commands.next_perturbations import next_perturbations
from celldit.cli.commands.predict import predict
from celldit.cli.commands.submission import submission
from celldit.cli.commands.summary import summary
from celldit.cli.commands.train import train

__all__ = ["app"]

app = typer.Typer(
    name="celldit",
    help="Predict what cells would do if they were perturbed.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("next", no_args_is_help=True)(next_perturbations)
for command in (
    demo,
    train,
    predict,
    generate,
    effects,
    explore,
    responders,
    interactions,
    dose_response,
    evaluate,
    baseline,
    submission,
    effects_table,
    info,
    summary,
    benchmark,
):
    app.command(no_args_is_help=command not in (demo, benchmark))(command)


def _show_version(requested: bool) -> None:
    if requested:
        typer.echo(f"celldit {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Predict what cells would do if they were perturbed."""
