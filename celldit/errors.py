"""The errors that celldit raises on purpose.

Each derives from :class:`CellditError`, so that one ``except`` clause catches them all, and from
the built-in error that Python programmers expect in its place.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Iterable

__all__ = [
    "CellditError",
    "FileError",
    "InputError",
    "NotTrainedError",
    "OutOfMemoryError",
    "TrainingError",
    "UnknownNameError",
    "closest",
    "examples",
    "outside",
    "reason_of",
]


_PACKAGE = os.path.dirname(__file__) + os.sep
_LONGEST_WORD = 300
#: Names are compared letter by letter, which takes minutes for giant ones.
_LONGEST_NAME = 200


class CellditError(Exception):
    """Any error that celldit raises on purpose.

    A name of thousands of letters is shortened, so that the sentence around it can be read.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(_shortened(a) if isinstance(a, str) else a for a in args))


def _shortened(sentence: str) -> str:
    if len(sentence) <= _LONGEST_WORD:
        return sentence
    words = re.compile(rf"\S{{{_LONGEST_WORD},}}")
    return words.sub(lambda word: f"{word[0][:80]}…{word[0][-40:]}", sentence)


class InputError(CellditError, ValueError):
    """Something in the input cannot be used."""


class UnknownNameError(CellditError, KeyError):
    """A name (gene, perturbation, column, ...) that is not known."""

    def __str__(self) -> str:
        # KeyError shows the repr of its argument; a sentence should read as a sentence.
        return str(self.args[0]) if self.args else ""

    @classmethod
    def among(cls, kind: str, name: object, known: Iterable[object]) -> UnknownNameError:
        """Build the error for a name that is not among the known ones of a kind.

        The kind is what names stand for, such as ``"perturbation"``. The text names the closest
        known name, if one is close, and some of the others.
        """
        names = [str(item) for item in known]
        near = closest(str(name), names)
        hint = f" Did you mean {near!r}?" if near is not None else ""
        listing = f"known: {examples(names, 10)}" if names else "none is known"
        return cls(f"Unknown {kind} {str(name)!r} ({listing}).{hint}")


class FileError(CellditError, OSError):
    """A file cannot be read or written."""


class NotTrainedError(CellditError, RuntimeError):
    """The model must be trained before it can do what was asked."""


class OutOfMemoryError(CellditError, MemoryError):
    """There is not enough memory for what was asked."""


class TrainingError(CellditError, RuntimeError):
    """Training cannot go on; the model is as it was before."""


def reason_of(error: BaseException) -> str:
    """The first line of what another library says, or the kind of its error."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def closest(name: str, known: Iterable[str]) -> str | None:
    """Find the known name that is spelt most like ``name``, or None when none is close."""
    if len(name) > _LONGEST_NAME:
        return None
    by_lower: dict[str, str] = {}
    for item in known:
        if len(item) <= _LONGEST_NAME:
            by_lower.setdefault(item.lower(), item)
    found = difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None


def examples(names: Iterable[object], limit: int = 3) -> str:
    """Write the first few names as ``'A', 'B', 'C' and 12 more``."""
    items = [repr(str(name)) for name in names]
    shown, rest = items[:limit], len(items) - limit
    return ", ".join(shown) + (f" and {rest} more" if rest > 0 else "")


def outside() -> int:
    """Level of the stack at which celldit was called, for a warning to point at.

    Python 3.12 has ``skip_file_prefixes`` for this.
    """
    level, frame = 1, sys._getframe(1)
    while frame.f_code.co_filename.startswith(_PACKAGE) and frame.f_back is not None:
        level, frame = level + 1, frame.f_back
    return level
