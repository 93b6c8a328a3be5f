"""Packages that import a member when it is first used.

The networks and the loops that train them need torch and lightning alone; a package that imported
all its members at once would make them need anndata, pandas and scikit-learn as well.
"""

from __future__ import annotations

import importlib
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
