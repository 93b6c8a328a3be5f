"""Packages that import a member when it is first used, and modules whose members have moved.

What columns mean is said without torch, and a terminal answers before scanpy is there.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any


def members_of(
    package: str, members: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make ``__getattr__`` and ``__dir__`` of a package, which is given by its ``__name__``.

    Members are, for each public name, the module of the package that holds it; a module that is
    public itself stands for itself.
    """

    def get(name: str) -> Any:
        if name not in members:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(f".{members[name]}", package)
        return module if members[name] == name else getattr(module, name)

    return get, lambda: sorted(members)


def moved(module: str, members: Mapping[str, str]) -> Callable[[str], Any]:
    """Make ``__getattr__`` of a module that is left behind, which is given by its ``__name__``.

    Members are, for each name that it had, the module that holds it now. They load as before, with
    a warning that says from where to import them.
    """

    def get(name: str) -> Any:
        if name not in members:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        now = members[name]
        warnings.warn(
            f"{module}.{name} has moved; import it with: from {now} import {name}",
            FutureWarning,
            stacklevel=2,
        )
        return getattr(importlib.import_module(now), name)

    return get
