"""How a command ends: well, with one sentence about an error, or interrupted."""

from __future__ import annotations

import json
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import typer

from celldit.cli.wording import in_terminal
from celldit.errors import CellditError

__all__ = ["FAILED", "INTERRUPTED", "guard", "say", "say_json"]

FAILED = 1
INTERRUPTED = 130  # 128 + SIGINT, as shells have it

_PACKAGE = str(Path(__file__).resolve().parents[1])


def say(text: str, *, quiet: bool = False) -> None:
    """Print a sentence about what was done."""
    if not quiet:
        typer.echo(text)


def say_json(content: Any) -> None:
    """Print a result for programs."""
    typer.echo(json.dumps(content, indent=1, ensure_ascii=False))


@contextmanager
def guard(
    *,
    debug: bool = False,
    quiet: bool = False,
    kept: str | Callable[[], str] = "",
) -> Iterator[None]:
    """Turn errors into one sentence on standard error and an exit code.

    Parameters
    ----------
    debug
        Whether errors keep their traceback.
    quiet
        Whether celldit's warnings are left out.
    kept
        What to say of the files when the user interrupts.
    """
    with _watch_interrupts() as interrupted, warnings.catch_warnings():
        if not debug:
            warnings.showwarning = _note
            if quiet:
                warnings.simplefilter("ignore")
        try:
            yield
        except CellditError as error:
            if debug:
                raise
            typer.echo(f"Error: {in_terminal(str(error))}", err=True)
            raise typer.Exit(FAILED) from None
        except (KeyboardInterrupt, SystemExit):
            # Lightning answers the interruption itself, and exits with 1.
            if not interrupted.is_set():
                raise
            typer.echo(f"\nStopped. {kept() if callable(kept) else kept}".rstrip(), err=True)
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            raise
        except MemoryError:
            typer.echo("Error: There is not enough memory; use fewer cells or genes.", err=True)
            raise typer.Exit(FAILED) from None
        except (OSError, ArithmeticError, LookupError, TypeError, ValueError, RuntimeError) as e:
            if debug or isinstance(e, typer.Exit):
                raise
            reason = str(e).strip().splitlines()
            typer.echo(
                f"Error: {type(e).__name__}: {reason[0] if reason else ''} (unexpected; run again "
                "with --debug for the traceback, and please report it).",
                err=True,
            )
            raise typer.Exit(FAILED) from None


@contextmanager
def _watch_interrupts() -> Iterator[threading.Event]:
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return

    def stop(number: int, frame: FrameType | None) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)


def _note(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Show celldit's own warnings as a note, and keep other libraries' to themselves."""
    if filename.startswith(_PACKAGE) and issubclass(category, UserWarning):
        typer.echo(f"Note: {in_terminal(str(message))}", err=True)
