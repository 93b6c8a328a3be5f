"""celldit: single-cell perturbation effects predicted by an anchored rectified flow."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from celldit.errors import CellditError

if TYPE_CHECKING:
    from celldit import data, datasets, evaluation, pl, pp, report, tl, tokenizers
    from celldit.data import open_store
    from celldit.model import CellDiT
    from celldit.pretrained import Pretrained

__version__ = "0.2.0"

# torch, scanpy and lightning take seconds to import, so a name is imported when it is first used.
_MODULES = frozenset({"data", "datasets", "evaluation", "pl", "pp", "report", "tl", "tokenizers"})
_MEMBERS = {
    "CellDiT": "celldit.model",
    "Pretrained": "celldit.pretrained",
    "open_store": "celldit.data",
}

__all__ = [
    "CellDiT",
    "CellditError",
    "Pretrained",
    "__version__",
    "data",
    "datasets",
    "evaluation",
    "open_store",
    "pl",
    "pp",
    "report",
    "tl",
    "tokenizers",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value: Any = importlib.import_module(f"celldit.{name}")
    elif name in _MEMBERS:
        value = getattr(importlib.import_module(_MEMBERS[name]), name)
    else:
        raise AttributeError(f"module 'celldit' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
