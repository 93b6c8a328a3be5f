"""A folder of checkpoints: one file for each part of training, in progress or finished.

The parts are the autoencoder, each trial run of the flow, and its final run. The same command finds
what is finished, goes on in the middle of what is not, and ends at the weights that it would have
reached without interruption.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from celldit import __version__
from celldit.data.store import CellStore
from celldit.errors import FileError, InputError, examples, outside
from celldit.io.locks import is_first_process
from celldit.training.saving.state_file import read_state, write_state

SUFFIX = ".checkpoint"


class Checkpoints:
    """The files of one training in a folder, which is made if need be.

    Minutes are those between two states of a part in progress, 0 for one after every batch; the
    identity is what must be the same for training to go on: settings, data and version, as texts.
    InputError if the folder belongs to another training; says what differs. FileError if it cannot
    be written to, or a file in it is damaged.
    """

    def __init__(
        self, folder: str | os.PathLike[str], minutes: float, identity: Mapping[str, str]
    ) -> None:
        self.folder, self.minutes, self.identity = Path(folder), float(minutes), dict(identity)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # What a killed process had begun to write has a hidden name and was never used.
            for left_over in self.folder.glob(f".*{SUFFIX}"):
                left_over.unlink()
        except OSError as error:
            raise FileError(f"Cannot write into {self.folder}: {error.strerror}.") from error
        if not os.access(self.folder, os.W_OK):
            raise FileError(f"Cannot write into {self.folder}; choose another folder.")
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            self._refuse_others(path, read_state(path))

    def _refuse_others(self, path: Path, state: Mapping[str, Any]) -> None:
        saved = state.get("identity")
        kept = "result" if state.get("finished") else "progress"
        if not isinstance(saved, Mapping) or not isinstance(state.get(kept), Mapping):
            raise FileError(
                f"{path} holds no state of a training of celldit; delete it, or choose another "
                "checkpoint folder."
            )
        different = [
            f"{name} ({saved.get(name, 'none')} there, {self.identity.get(name, 'none')} here)"
            for name in dict.fromkeys([*self.identity, *saved])
            if saved.get(name) != self.identity.get(name)
        ]
        if different:
            raise InputError(
                f"{path} is a checkpoint of another training, which differs in "
                f"{'; '.join(different[:4])}{' and more' if len(different) > 4 else ''}. Choose "
                "another checkpoint folder, or delete this one."
            )

    def part(self, name: str) -> Part:
        """One part of training."""
        return Part(self, name)


class Part:
    """One part of training in a folder of checkpoints, which has a file of its name."""

    def __init__(self, checkpoints: Checkpoints, name: str) -> None:
        self.checkpoints, self.name = checkpoints, name
        self.path = checkpoints.folder / f"{name}{SUFFIX}"

    def finished(self) -> dict[str, Any] | None:
        """What :meth:`finish` kept; None where the part is not finished."""
        state = self._read()
        return state["result"] if state is not None and state["finished"] else None

    def in_progress(self) -> dict[str, Any] | None:
        """What :meth:`keep` kept; None where there is nothing or the part is finished."""
        state = self._read()
        return None if state is None or state["finished"] else state["progress"]

    def _read(self) -> dict[str, Any] | None:
        return read_state(self.path) if self.path.exists() else None

    def keep(self, progress: Mapping[str, Any]) -> None:
        """Keep the state in progress, in place of the one before; a full disk is a warning."""
        self._write({"finished": False, "progress": progress})

    def finish(self, result: Mapping[str, Any]) -> None:
        """Keep the result, in place of the state in progress; a full disk is a warning."""
        self._write({"finished": True, "result": result})

    def _write(self, content: Mapping[str, Any]) -> None:
        if not is_main_process():
            return
        try:
            write_state(self.path, {"identity": self.checkpoints.identity, **content})
        except FileError as error:
            warnings.warn(
                f"Training goes on without this checkpoint: {error}", stacklevel=outside()
            )


def is_main_process() -> bool:
    """Whether this process writes files; under several processes only the first does.

    Asked before training, too, when only the launcher's variables tell.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank() == 0
    return is_first_process()


def identity_of(
    cells: CellStore, settings: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> dict[str, str]:
    """What names a training: version, data and settings, each as a short text.

    Settings may be nested, and are compared one by one; arrays are more data, such as features of
    perturbations.
    """
    per_cell = [cells.size_factors, cells.perturbations, cells.contexts, cells.doses, cells.times]
    identity = {
        "celldit version": __version__,
        "number of cells": str(cells.n_cells),
        "genes": f"{cells.n_genes}, {examples(cells.genes, 1)}, {_short(cells.genes)}",
        "counts": cells.identity(),
        "conditions of the cells": _short(*(a for a in per_cell if a is not None)),
    }
    if arrays:
        identity["features"] = _short(*(array for _, array in sorted(arrays.items())))
    return {**identity, **_flat(settings)}


def settings_of(tokenizer: Any) -> dict[str, str]:
    """Name and options of a tokenizer, fitted or not, as short texts."""
    options = {n: str(v) for n, v in vars(tokenizer).items() if not n.startswith("_")}
    short = {n: text if len(text) <= 60 else _short([text]) for n, text in options.items()}
    return {"": str(tokenizer.name), **short}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name} ")
        else:
            flat[f"{prefix}{name}".strip()] = str(value)
    return flat


def _short(*arrays: Any) -> str:
    """Twelve hexadecimal digits that name some arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        array = np.asarray(array)
        if array.dtype.kind in "OU":
            digest.update("\0".join(map(str, array.tolist())).encode())
        else:
            digest.update(np.ascontiguousarray(array).data)
        digest.update(b"\n")
    return digest.hexdigest()[:12]
