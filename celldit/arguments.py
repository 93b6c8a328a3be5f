"""What every public function asks of its plain arguments, in the same words."""

from __future__ import annotations

import errno
import functools
import math
import os
import stat
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar

from celldit.errors import FileError, InputError, UnknownNameError

Settings = TypeVar("Settings")

#: Torch takes seeds below 2^64, numpy any; their random integers reach 2^63.
SEEDS = 2**63


def check_former(given: Iterable[str], former: Mapping[str, str]) -> None:
    """Refuse options that only earlier versions had; `former` says what to do instead of each."""
    for name in given:
        if name in former:
            raise InputError(f"{name}= is no option any more. {former[name]}")


def refuses_former(
    former: Mapping[str, str], idle: Collection[str] = ()
) -> Callable[[type[Settings]], type[Settings]]:
    """Make a class of settings say of options that left what to do instead.

    Python alone would say that it got an unexpected keyword. The `idle` ones, without which
    everything is as it was with them, are let by with a warning.
    """

    def decorate(settings: type[Settings]) -> type[Settings]:
        made = settings.__init__

        @functools.wraps(made)
        def __init__(self: Settings, *args: Any, **options: Any) -> None:
            for name in set(idle) & set(options):
                del options[name]
                said = f"{name}= has no effect any more. {former[name]}"
                warnings.warn(said, FutureWarning, stacklevel=2)
            check_former(options, former)
            made(self, *args, **options)

        settings.__init__ = __init__  # type: ignore[assignment]
        return settings

    return decorate


def check_whole(value: object, name: str, least: int = 1) -> None:
    """Refuse what is no whole number of at least `least`; InputError names the argument."""
    number: Any = value
    whole = isinstance(value, Integral)
    if not whole and isinstance(value, Real):
        whole = math.isfinite(number) and int(number) == number
    if isinstance(value, bool) or not whole or number < least:
        raise InputError(f"{name}={_short(value)} must be a whole number of at least {least}.")


def check_number(value: object, name: str, most: float = math.inf) -> None:
    """Refuse what is no finite number from 0 to `most`; raises as :func:`check_whole`."""
    number: Any = value
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not 0 <= number <= most or number == math.inf:
        wanted = "of at least 0" if most == math.inf else f"between 0 and {most:g}"
        raise InputError(f"{name}={_short(value)} must be a number {wanted}.")


def check_share(value: object, name: str) -> None:
    """Refuse what does not lie between 0 and 1; raises as :func:`check_whole`."""
    check_number(value, name)
    if not 0 < value < 1:  # type: ignore[operator]
        raise InputError(f"{name}={_short(value)} must lie between 0 and 1.")


def check_kind(value: object, kind: type | tuple[type, ...], name: str, instead: str) -> None:
    """Refuse an argument that is not of a kind; InputError says what to type instead."""
    if not isinstance(value, kind):
        raise InputError(f"{name} must be {instead}, not {_short(value)}.")


def check_key(key_added: object) -> None:
    """Refuse what results cannot be found by: a name that is empty, or is no text."""
    if not isinstance(key_added, str) or not key_added.strip():
        raise InputError(
            f"key_added={_short(key_added)} must be text that is not empty, such as "
            "key_added='result'."
        )


def check_known(names: Iterable[object], known: Collection[Any], kind: str) -> None:
    """Refuse names that are not among the known ones of a kind.

    UnknownNameError names the first of them, and the known one that is closest.
    """
    for name in names:
        if name not in known:
            raise UnknownNameError.among(kind, name, known)


def check_seed(seed: object) -> None:
    """Refuse what random generators do not take; raises as :func:`check_whole`."""
    check_whole(seed, "seed", 0)
    if seed >= SEEDS:  # type: ignore[operator]
        raise InputError(f"seed={seed} must be below 2^63.")


def check_path(path: object) -> Path:
    """Take text or a path-like object as a path; FileError if no path can be written so."""
    if not isinstance(path, (str, os.PathLike)):
        raise FileError(f"A path is text, such as 'folder/name', not {_short(path)}.")
    found = Path(os.fsdecode(path))
    try:
        os.lstat(found)
    except FileNotFoundError:
        pass
    except ValueError as error:  # a NUL, which no path holds
        raise FileError(f"The path {str(found)!r} cannot be one ({error}).") from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise FileError(f"The path {str(found)!r} is too long for a file's name.") from error
    return found


def check_plain(path: Path) -> None:
    """Refuse pipes, devices and sockets, whose reading may never end, with a FileError."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise FileError(f"Cannot read {path}: {error.strerror}.") from error
    if not stat.S_ISREG(mode):
        raise FileError(f"{path} is no plain file (a pipe, a device or a socket); name a file.")


def text_list(value: object, name: str) -> list[str]:
    """Take one name, or a collection of them, as a list; numbers are written as text.

    InputError with the `name` of the argument if it is neither.
    """
    if isinstance(value, str):
        return [value]
    if not isinstance(value, Iterable) or isinstance(value, (bytes, Mapping)):
        raise InputError(f"{name}={_short(value)} must be a name, or a list of names.")
    return [str(item) for item in value]


def _short(value: object) -> str:
    """How a value is shown in an error: as typed, if that is short, else its kind."""
    if value is None or isinstance(value, (str, int, float, list, tuple, dict)):
        shown = repr(value)
        if len(shown) <= 60:
            return shown
    return f"<{type(value).__name__}>"
