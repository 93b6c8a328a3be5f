"""How a command ends: well, with one sentence about an error, or interrupted."""

from __future__ import annotations

import json
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import typer

from celldit.cli.wording import in_terminal
from celldit.errors import CellditError

__all__ = ["FAILED", "INTERRUPTED", "guard", "say", "say_json"]

FAILED = 1
INTERRUPTED = 130  # 128 + SIGINT, as shells have it

# fmt: off
_TOLD = (
    CellditError, MemoryError, OSError, ArithmeticError, LookupError, TypeError, ValueError,
    RuntimeError,
)
# fmt: on
_PACKAGE = str(Path(__file__).resolve().parents[1])


def say(text: str, *, quiet: bool = False) -> None:
    """Print a sentence about what was done."""
    if not quiet:
        typer.echo(text)


def say_json(content: Any) -> None:
    """Print a result for programs."""
    typer.echo(json.dumps(content, indent=1, ensure_ascii=False))


@contextmanager
def guard(*, debug: bool = False, quiet: bool = False, kept: str = "") -> Iterator[None]:
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
        except (KeyboardInterrupt, SystemExit):
            # Lightning answers the interruption itself, and exits with 1.
            if not interrupted.is_set():
                raise
            typer.echo(f"\nStopped. {kept}".rstrip(), err=True)
            raise typer.Exit(INTERRUPTED) from None
        except (BrokenPipeError, typer.Exit):
            raise
        except _TOLD as error:
            if debug:
                raise
            typer.echo(f"Error: {_sentence(error)}", err=True)
            raise typer.Exit(FAILED) from None


def _sentence(error: Exception) -> str:
    if isinstance(error, CellditError):
        return in_terminal(str(error))
    if isinstance(error, MemoryError):
        return "There is not enough memory; use fewer cells or genes."
    reason = str(error).strip().splitlines()
    return (
        f"{type(error).__name__}: {reason[0] if reason else ''} (unexpected; run again with "
        "--debug for the traceback, and please report it)."
    )


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
    message: Warning | str, category: type[Warning], filename: str, *_: Any, **__: Any
) -> None:
    """Show celldit's own warnings as a note, and keep other libraries' to themselves."""
    if filename.startswith(_PACKAGE) and issubclass(category, UserWarning):
        typer.echo(f"Note: {in_terminal(str(message))}", err=True)
