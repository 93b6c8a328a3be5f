"""A training state in one file: tensors as safetensors, the rest as JSON in its header.

Nothing is pickled, so reading a file executes nothing. A digest over the JSON and every tensor
stands in the header as well: a file that was cut short or changed is refused.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from celldit.arguments import check_plain
from celldit.errors import FileError, InputError, reason_of
from celldit.io.replacing import made_whole

FORMAT = 1
_STATE, _DIGEST = "celldit_state", "celldit_sha256"


def write_state(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write nested dictionaries, lists, numbers, texts, arrays and tensors; whole or not at all.

    A file that is there is replaced in one step. Tensors go to the CPU. FileError if the file
    cannot be written; says how much room it needs when the disk is full. InputError if something in
    the state is of a kind that cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    text = json.dumps({"format": FORMAT, "state": _encode(state, "", tensors)})
    header = {_STATE: text, _DIGEST: _digest(text, tensors)}
    target = Path(path)
    size = sum(t.numel() * t.element_size() for t in tensors.values()) + len(text)
    try:
        with made_whole(target) as temporary:
            try:
                save_file(tensors, temporary, metadata=header)
            except SafetensorError as error:
                # Whatever the library calls it, the operating system refused to take the bytes.
                raise OSError(str(error)) from error
    except FileError as error:
        raise FileError(_no_room(target, size, str(error))) from error


def read_state(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what :func:`write_state` wrote.

    FileError if the file is damaged, cut short, or of another format.
    """
    damaged = f"{path} is damaged or cut short; delete it to start this part of training again"
    check_plain(Path(path))
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        text = header[_STATE]
        if header[_DIGEST] != _digest(text, tensors):
            raise FileError(f"{damaged} (its checksum is wrong).")
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise FileError(
                f"{path} is a checkpoint of format {content['format']!r}; this celldit reads "
                f"{FORMAT}. Choose another folder, or delete the file to start again."
            )
        decoded = _decode(content["state"], tensors)
        if not isinstance(decoded, dict):
            raise ValueError("its state has no names")
        return decoded
    except FileError:
        raise
    except MemoryError as error:
        raise FileError(f"{path} needs more memory than there is ({error}).") from error
    except Exception as error:  # a checkpoint from elsewhere may say anything
        raise FileError(f"{damaged} ({reason_of(error)}).") from error


def _no_room(target: Path, size: int, reason: str) -> str:
    try:
        free = shutil.disk_usage(target.parent).free
    except OSError:
        return reason
    if free > size + (1 << 16):
        return reason
    return (
        f"{reason.rstrip('.')}; a checkpoint takes {_megabytes(size)} MB and {_megabytes(free)} MB "
        "are free. What was written before is untouched; free some room, or choose a folder on "
        "another disk."
    )


def _megabytes(n_bytes: int) -> str:
    return f"{math.ceil(10 * n_bytes / 1e6) / 10:,.1f}"


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if tensor.numel():
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _encode(value: Any, at: str, tensors: dict[str, Tensor]) -> Any:
    """JSON for a value; its tensors go to `tensors` under their place `at` in the state."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value)
    if isinstance(value, np.ndarray):
        return {"array": _encode(torch.from_numpy(value.copy()), at, tensors)["tensor"]}
    if isinstance(value, Tensor):
        # Tensors that share memory, or are a part of a larger one, are written each by itself.
        name = f"{len(tensors)}{at}"
        tensors[name] = value.detach().cpu().clone().contiguous()
        return {"tensor": name}
    if isinstance(value, Mapping):
        pairs = [
            [_key(key, at), _encode(item, f"{at}.{key}", tensors)] for key, item in value.items()
        ]
        return {"dict": pairs}
    if isinstance(value, (list, tuple)):
        items = [_encode(item, f"{at}.{i}", tensors) for i, item in enumerate(value)]
        return {"tuple": items} if isinstance(value, tuple) else {"list": items}
    raise InputError(
        f"A checkpoint cannot hold {at.lstrip('.') or 'this'}, which is of type "
        f"{type(value).__name__}; leave out the callback or plugin that keeps it, or train without "
        "checkpoints."
    )


def _key(key: Any, at: str) -> str | int:
    if isinstance(key, (str, int)) and not isinstance(key, bool):
        return key
    raise InputError(f"A checkpoint cannot hold the key {key!r} of {at.lstrip('.')}.")


def _decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "array":
        return tensors[content].numpy()
    if kind == "dict":
        return {key: _decode(item, tensors) for key, item in content}
    items = [_decode(item, tensors) for item in content]
    return tuple(items) if kind == "tuple" else items
