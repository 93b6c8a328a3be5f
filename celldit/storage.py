"""A model as a folder: JSON that a person can read, and arrays in safetensors. Never pickle.

========================  ==================================================================
``config.json``           format version, settings, conditions, what training found
``vocab.json``            genes, perturbations, contexts, tokens
``weights.safetensors``   weights of the networks and arrays of the estimates
========================  ==================================================================
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from celldit.errors import FileError

FORMAT = 1
CONFIG, VOCAB, WEIGHTS = "config.json", "vocab.json", "weights.safetensors"


def write_folder(
    path: str | os.PathLike[str],
    config: Mapping[str, Any],
    vocab: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    *,
    overwrite: bool,
) -> None:
    """Write a model folder whole or not at all.

    Everything goes to a temporary folder beside the target, which then takes its name.

    Raises
    ------
    FileError
        If the folder exists and `overwrite` is False, is no model folder, or cannot be written.
    """
    target = Path(path)
    if target.exists():
        if not overwrite:
            raise FileError(f"{target} exists already; choose another path or pass overwrite=True.")
        if not (target / CONFIG).is_file():
            raise FileError(
                f"{target} exists and is not a celldit model, so it will not be replaced; choose "
                "another path."
            )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise FileError(f"Cannot write into {target.parent}: {error.strerror}.") from error
    try:
        contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        save_file(contiguous, temporary / WEIGHTS)
        for name, content in ((VOCAB, vocab), (CONFIG, {"format": FORMAT, **config})):
            text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
            (temporary / name).write_text(text + "\n", encoding="utf-8")
        for name in (WEIGHTS, VOCAB, CONFIG):
            _sync(temporary / name)
        temporary.chmod(0o755)
        if target.exists():
            _replace(target, temporary)
        else:
            temporary.rename(target)
    except (OSError, SafetensorError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FileError(f"Cannot write {target}: {reason}.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace(target: Path, temporary: Path) -> None:
    """Put a new folder in the place of an old one, which stays if that fails."""
    retired = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
    kept = retired / target.name
    try:
        target.rename(kept)
        temporary.rename(target)
    except BaseException:
        if kept.exists():
            kept.rename(target)
        retired.rmdir()
        raise
    shutil.rmtree(retired, ignore_errors=True)


def read_folder(
    path: str | os.PathLike[str],
) -> tuple[dict[str, Any], dict[str, Any], dict[str, np.ndarray]]:
    """Read config, vocabulary and arrays of a model folder.

    Raises
    ------
    FileError
        If a file is missing or damaged, or the format is newer than this version of celldit.
    """
    folder = Path(path)
    missing = [name for name in (CONFIG, VOCAB, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise FileError(f"{folder} is not a celldit model: it has no {' and no '.join(missing)}.")
    config, vocab = _read_json(folder / CONFIG), _read_json(folder / VOCAB)
    if config.get("format") != FORMAT:
        raise FileError(
            f"{folder} has model format {config.get('format')!r}; this celldit reads {FORMAT}. "
            "Update celldit, or save the model again with this version."
        )
    try:
        arrays = load_file(folder / WEIGHTS)
    except (SafetensorError, OSError, ValueError) as error:
        raise FileError(
            f"{folder / WEIGHTS} is damaged ({error}); copy the model again."
        ) from error
    return config, vocab, arrays


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FileError(f"{path} is damaged ({error}); copy the model again.") from error
    if not isinstance(content, dict):
        raise FileError(f"{path} is damaged (no JSON object); copy the model again.")
    return content


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def prefixed(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Put a prefix before every name."""
    return {f"{prefix}.{name}": array for name, array in arrays.items()}


def under(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays under a prefix, without it."""
    start = f"{prefix}."
    return {n.removeprefix(start): a for n, a in arrays.items() if n.startswith(start)}
