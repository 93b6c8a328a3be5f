"""The commands. Heavy imports wait until a command runs, so that ``--help`` is instant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from celldit import __version__
from celldit.cli.command import guard
from celldit.cli.commands.about import info, summary
from celldit.cli.commands.cells import embed, generate, interpolate, predict, trajectory
from celldit.cli.commands.demo import demo
from celldit.cli.commands.effects import effects, explore, next_perturbations, rank
from celldit.cli.commands.measured import dose_response, effects_table, interactions, responders
from celldit.cli.commands.scoring import baseline, evaluate, submission
from celldit.cli.commands.training import fine_tune, train
from celldit.errors import InputError

app = typer.Typer(
    name="celldit",
    help="Predict what cells would do if they were perturbed.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
#: Headings of ``celldit --help``, and the commands under each.
COMMANDS: dict[str, tuple[Callable[..., Any], ...]] = {
    "The way through": (demo, train, predict, generate, effects, evaluate),
    "With a trained model": (
        rank, next_perturbations, trajectory, interpolate, embed, fine_tune, explore, summary, info
    ),
    "What was measured": (responders, interactions, dose_response, effects_table),
    "Comparisons": (baseline, submission),
}  # fmt: skip
RENAMED: dict[Callable[..., Any], str] = {next_perturbations: "next"}

for heading, commands in COMMANDS.items():
    for command in commands:
        app.command(
            RENAMED.get(command), no_args_is_help=command is not demo, rich_help_panel=heading
        )(command)


@app.command(
    hidden=True, context_settings={"allow_extra_args": True, "ignore_unknown_options": True}
)
def benchmark() -> None:
    """Say what does the work of a command that left."""
    with guard():
        raise InputError(
            "There is no celldit benchmark any more: hold conditions out with cd.pp.split, train "
            "on the rest, and compare with celldit evaluate --report FILE.html --baselines."
        )


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
