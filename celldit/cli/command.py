"""What all commands share: four options, outputs refused before work, and how they end.

A command ends well, with one sentence about an error, or interrupted.
"""

from __future__ import annotations

import functools
import inspect
import json
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import typer

from celldit.cli import options
from celldit.cli.wording import in_terminal
from celldit.errors import CellditError, InputError
from celldit.io.files import refuse_existing

FAILED = 1
INTERRUPTED = 130  # 128 + SIGINT, as shells have it

# fmt: off
_TOLD = (
    CellditError, MemoryError, OSError, ArithmeticError, LookupError, TypeError, ValueError,
    RuntimeError,
)
# fmt: on
_PACKAGE = str(Path(__file__).resolve().parents[1])


@dataclass(frozen=True)
class Answer:
    """What a command found: content for programs, and sentences for people, a line each."""

    content: Any
    sentences: Sequence[str] = ()


def command(
    *,
    columns: Iterable[str] = (),
    group: options.Group | None = None,
    shared: Iterable[str] = tuple(options.SHARED),
    kept: Callable[[Mapping[str, Any]], str] | None = None,
) -> Callable[[Callable[..., Answer | None]], Callable[..., None]]:
    """Make a command of a function that returns an :class:`Answer`, or None if all is said.

    What was given of the `columns` of :data:`celldit.cli.options.COLUMNS` reaches the function as
    ``columns``, by the arguments of ``setup_anndata``; options of the `group` that are not None as
    keywords; of the `shared` ones those that it names. `kept` says, from what was given, what
    becomes of the files when the user interrupts.
    """
    asked = {name: (options.COLUMNS[name], None) for name in columns}
    common = {name: (options.SHARED[name], False) for name in shared}
    some = group or {}

    def of(function: Callable[..., Answer | None]) -> Callable[..., None]:
        own = inspect.signature(function, eval_str=True)
        named = [
            p
            for p in own.parameters.values()
            if p.name not in {*common, "columns"} and p.kind is not p.VAR_KEYWORD
        ]
        # Help shows options as they come: what has to be given, the columns, what may be given.
        named.sort(key=lambda p: p.default is not inspect.Parameter.empty)
        at = sum(p.default is inspect.Parameter.empty for p in named)
        named[at:at] = _optional(asked)
        named += _optional({**some, **common})
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in named]
        marks = {p.name: p.annotation.__metadata__ for p in parameters}
        for name in options.EXPERT & set(marks):
            marks[name][0].rich_help_panel = "For experts"
        written = {name: marked for name, marked in marks.items() if options.WRITTEN in marked}

        @functools.wraps(function)
        def run(**given: Any) -> None:
            told = {name: given.pop(name) for name in common}
            said = {options.ARGUMENTS[name]: given.pop(name) for name in asked}
            if asked:
                given["columns"] = {n: v for n, v in said.items() if v is not None}
            given = {n: v for n, v in given.items() if n not in some or v is not None}
            output = given.get("output")
            rest = kept(given) if kept else f"{output} was not written." if output else ""
            quiet = told.get("quiet", False) or told["as_json"]
            with guard(debug=told["debug"], quiet=told.get("quiet", False), kept=rest):
                from celldit.progress import quietly

                files = {n: given[n] for n in written if given[n] is not None}
                cells = [name for name in files if options.H5AD in written[name]]
                _check_outputs(files, cells, overwrite=told.get("overwrite", False))
                with quietly(quiet):
                    wanted = {k: v for k, v in told.items() if k in own.parameters}
                    answer = function(**given, **wanted)
                if answer is None:
                    return
                if told["as_json"]:
                    typer.echo(json.dumps(answer.content, indent=1, ensure_ascii=False))
                    return
                for sentence in answer.sentences:
                    say(sentence, quiet=quiet)

        # A terminal has lines of its own.
        run.__doc__ = re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.cleandoc(function.__doc__ or ""))
        run.__signature__ = own.replace(parameters=parameters, return_annotation=None)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return of


def _check_outputs(files: Mapping[str, Path], cells: Iterable[str], *, overwrite: bool) -> None:
    """Refuse files, by their options, that cannot be written, before any work.

    FileError if one exists. InputError if one of `cells` or a figure has another ending.
    """
    for name in cells:
        if files[name].suffix != options.H5AD:
            raise InputError(f"--{name} {files[name]} must end in {options.H5AD}.")
    if "figure" in files:
        from celldit.pl.figure import file_ending

        file_ending(files["figure"])
    refuse_existing(files.values(), overwrite=overwrite)


def _optional(group: options.Group) -> list[inspect.Parameter]:
    keyword = inspect.Parameter.KEYWORD_ONLY
    return [
        inspect.Parameter(name, keyword, default=default, annotation=option)
        for name, (option, default) in group.items()
    ]


def say(text: str, *, quiet: bool = False) -> None:
    """Print a sentence about what was done."""
    if not quiet:
        typer.echo(text)


def note(text: str, *, quiet: bool = False) -> None:
    """Print what to mind of a result, on standard error."""
    if not quiet:
        typer.echo(f"Note: {text}", err=True)


@contextmanager
def guard(*, debug: bool = False, quiet: bool = False, kept: str = "") -> Iterator[None]:
    """Turn errors into one sentence on standard error and an exit code.

    With `debug` errors keep their traceback; with `quiet` celldit's warnings are left out; `kept`
    is what to say of the files when the user interrupts.
    """
    with _watch_interrupts() as interrupted, warnings.catch_warnings():
        if not debug:
            warnings.showwarning = _show_warning
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


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """Show celldit's own warnings as a note, and keep other libraries' to themselves."""
    # By who warns, not by the line that a warning points at, which is that of celldit's caller.
    frame = sys._getframe(1)
    while frame.f_code.co_filename == warnings.__file__ and frame.f_back is not None:
        frame = frame.f_back
    if frame.f_code.co_filename.startswith(_PACKAGE) and issubclass(category, UserWarning):
        note(in_terminal(str(message)))
