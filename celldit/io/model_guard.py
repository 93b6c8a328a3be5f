"""What a model folder may ask for, checked against the arrays it brings before memory is taken."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from torch import nn

from celldit.io.folders import Header

Module = TypeVar("Module", bound=nn.Module)


SizedArray: TypeAlias = np.ndarray | Header
"""An array, or what a header says of one."""

#: Settings that are numbers of layers: each brings arrays of its own.
_LAYERS = ("depth", "levels")


def check_sizes(settings: Mapping[str, Any], arrays: Mapping[str, SizedArray], where: str) -> None:
    """Refuse settings of a network that its arrays cannot have come from.

    ValueError if a number is negative, not finite, or larger than the arrays allow.
    """
    n_values = sum(array.size for array in arrays.values())
    for name, value in settings.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        most = len(arrays) if name in _LAYERS else n_values
        if not 0 <= value <= most:
            raise ValueError(f"{where}.{name} is {value!r}, which its weights do not bear out")


def check_arrays(
    make: Callable[[], nn.Module], given: Mapping[str, SizedArray], where: str
) -> None:
    """Compare arrays with those of a module, which is made without memory.

    ValueError if arrays are missing, left over, or of another shape or type.
    """
    with torch.device("meta"):
        rehearsal = make().state_dict()
    wanted = {
        n: (tuple(t.shape), str(t.dtype).removeprefix("torch.")) for n, t in rehearsal.items()
    }
    found = {name: (tuple(array.shape), str(array.dtype)) for name, array in given.items()}
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            said = " where it must be ".join(
                "missing" if entry is None else f"{entry[1]} {list(entry[0])}"
                for entry in (found.get(name), wanted.get(name))
            )
            raise ValueError(f"the array {where}.{name} is {said}")


def build(make: Callable[[], Module], state: Mapping[str, np.ndarray], where: str) -> Module:
    """Make a module and fill it, after a rehearsal without memory has shown that the arrays fit.

    ValueError if arrays are missing, left over, or of another shape or type.
    """
    check_arrays(make, state, where)
    module = make()
    module.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    return module.eval()


def check_finite(arrays: Mapping[str, np.ndarray]) -> None:
    """Refuse arrays that hold NaN or infinite values; ValueError names the array."""
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"the array {name} holds values that are not finite")
