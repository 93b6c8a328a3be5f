"""A model as a folder: JSON that a person can read, and arrays in safetensors. Never pickle.

========================  ==================================================================
``config.json``           format version, settings, conditions, what training found
``vocab.json``            genes, perturbations, contexts, tokens
``weights.safetensors``   weights of the networks and arrays of the estimates
========================  ==================================================================
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from celldit.arguments import check_path
from celldit.errors import FileError, reason_of
from celldit.io.replacing import made_whole
from celldit.memory import bound

FORMAT = 2
READS = (1, 2)
#: Far above what a model of a genome-wide screen has: bytes, entries and brackets within brackets.
MAX_JSON, MAX_ENTRIES, MAX_DEPTH = 64_000_000, 3_000_000, 40
_READS = 20
#: Mistakes in a program, which nothing in a file leads to: they are shown as they are.
CODING = (NameError, ImportError)
_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*"')
_MAX_HEADER = 10_000_000
#: What safetensors calls F32, I64 or U8, numpy calls by a word and the same bits.
_KINDS = {"F": "float", "I": "int", "U": "uint"}
CONFIG, VOCAB, WEIGHTS = "config.json", "vocab.json", "weights.safetensors"


def check_place(target: Path, *, overwrite: bool) -> None:
    """Refuse a folder that may not be replaced, or is no model; FileError says so."""
    if target.exists() and not overwrite:
        raise FileError(f"{target} exists already; choose another path or pass overwrite=True.")
    if target.exists() and not (target / CONFIG).is_file():
        raise FileError(
            f"{target} exists and is not a celldit model, so it will not be replaced; choose "
            "another path."
        )


def write_folder(
    path: str | os.PathLike[str],
    config: Mapping[str, Any],
    vocab: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    *,
    overwrite: bool,
) -> None:
    """Write a model folder whole or not at all.

    FileError as :func:`check_place`, or if the folder cannot be written.
    """
    target = check_path(path)
    check_place(target, overwrite=overwrite)
    texts = {VOCAB: vocab, CONFIG: {"format": FORMAT, **config}}
    with made_whole(target) as partial:
        partial.mkdir()
        try:
            contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
            save_file(contiguous, partial / WEIGHTS)
            for name, content in texts.items():
                text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
                (partial / name).write_text(text + "\n", encoding="utf-8")
        except (SafetensorError, ValueError) as error:
            raise FileError(f"Cannot write {target}: {error}.") from error


@dataclass(frozen=True)
class Header:
    """What a file of weights says of one array, before it is read; `dtype` as numpy calls it."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


Array = TypeVar("Array")
Check = Callable[[dict[str, Any], dict[str, Any], dict[str, Header]], None]


def read_folder(
    path: str | os.PathLike[str], check: Check | None = None
) -> tuple[dict[str, Any], dict[str, Any], dict[str, np.ndarray]]:
    """Read config, vocabulary and arrays of a model folder.

    A folder that is replaced meanwhile is read again, so that the parts belong together. `check` is
    given config, vocabulary and the headers of the arrays before any array is read, and raises
    ValueError where they do not belong together.

    FileError if a file is missing, damaged or not a plain file, or the format is newer than this
    version of celldit.
    """
    folder = check_path(path)
    for _ in range(_READS):
        before = _identity(folder)
        try:
            parts = _read_folder(folder, check)
        except FileError:
            if _identity(folder) == before:
                raise
            continue
        if _identity(folder) == before:
            return parts
    raise FileError(f"{folder} is being replaced again and again; wait until that has finished.")


def _identity(folder: Path) -> tuple[int, ...] | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns


def _read_folder(
    folder: Path, check: Check | None
) -> tuple[dict[str, Any], dict[str, Any], dict[str, np.ndarray]]:
    names = (CONFIG, VOCAB, WEIGHTS)
    missing = [name for name in names if not (folder / name).is_file()]
    if not folder.exists():
        raise FileError(
            f"There is no {folder}, so it is not a celldit model; check the path to the folder."
        )
    if missing:
        raise FileError(f"{folder} is not a celldit model: it has no {' and no '.join(missing)}.")
    for name in names:
        if (folder / name).is_symlink():
            raise FileError(
                f"{folder / name} is a link, which a model from elsewhere could point anywhere; "
                "copy the file itself into the folder."
            )
    config, vocab = _read_json(folder / CONFIG), _read_json(folder / VOCAB)
    if config.get("format") not in READS:
        raise FileError(
            f"{folder} has model format {config.get('format')!r}; this celldit reads 1 to "
            f"{FORMAT}. Update celldit, or save the model again with this version."
        )
    weights = folder / WEIGHTS
    size, (memory, limit) = weights.stat().st_size, bound()
    if size > memory:
        raise FileError(
            f"{weights} has {size / 1e9:,.0f} GB, more than {limit} ({memory / 1e9:,.0f} GB); load "
            "it on a larger machine."
        )
    try:
        headers = _headers(weights)
        if check is not None:
            with whole_model(folder):
                check(config, vocab, headers)
        arrays = load_file(weights)
    except FileError:
        raise
    except MemoryError as error:
        raise FileError(
            f"{weights} has {size / 1e6:,.0f} MB, more than the memory that is free; close other "
            "programs, or load it on a larger machine."
        ) from error
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FileError(f"{weights} is damaged ({error}); copy the model again.") from error
    return config, vocab, arrays


@contextmanager
def whole_model(folder: object, how: str = "") -> Iterator[None]:
    """Say in one sentence that a folder holds no whole model, whatever its parts lead to.

    FileError in place of any error but mistakes in a program; `how` says how it showed.
    """
    try:
        yield
    except (FileError, *CODING):
        raise
    except Exception as error:  # whatever settings that make no sense lead to
        said = f"no {error}" if isinstance(error, KeyError) else reason_of(error)
        advice = "copy the model again"
        if isinstance(error, (AttributeError, AssertionError)):
            # Settings of the wrong kind lead to these, and so do mistakes in celldit.
            advice += ", or, if it is as it was saved, report this error of celldit's"
        raise FileError(
            f"{folder} does not hold a whole celldit model{how} ({said}); {advice}."
        ) from error


def _headers(weights: Path) -> dict[str, Header]:
    """Names, shapes and types in a file of weights.

    ValueError or SafetensorError if the header is none, or lies about lengths.
    """
    with weights.open("rb") as file:
        if int.from_bytes(file.read(8), "little") > _MAX_HEADER:
            raise ValueError("its header is longer than a model's can be")
    found = {}
    with safe_open(weights, framework="numpy") as arrays:
        for name in arrays.keys():  # noqa: SIM118, which is no dict
            array = arrays.get_slice(name)
            said = array.get_dtype()
            known = said[0] in _KINDS and said[1:].isdigit()
            dtype = f"{_KINDS[said[0]]}{said[1:]}" if known else said.lower()
            found[name] = Header(tuple(array.get_shape()), dtype)
    return found


def _read_json(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    if size > MAX_JSON:
        raise FileError(
            f"{path} has {size / 1e6:,.0f} MB, more than the {MAX_JSON / 1e6:.0f} "
            "MB that a model's can have; copy the model again."
        )
    try:
        raw = path.read_bytes()
        _check_extent(raw)
        content = json.loads(raw.decode("utf-8"), parse_constant=_no_number)
    except (OSError, ValueError, RecursionError) as error:
        raise FileError(f"{path} is damaged ({error}); copy the model again.") from error
    if not isinstance(content, dict):
        raise FileError(f"{path} is damaged (no JSON object); copy the model again.")
    return content


def _check_extent(raw: bytes) -> None:
    """Refuse JSON of very many or deep entries before they take memory; ValueError says which."""
    bare = np.frombuffer(_TEXT.sub(b"", raw), dtype=np.uint8)
    steps = np.zeros(len(bare), dtype=np.int8)
    for mark, step in ((b"[{", 1), (b"]}", -1)):
        for byte in mark:
            steps[bare == byte] = step
    if (steps > 0).sum() + (bare == ord(",")).sum() > MAX_ENTRIES:
        raise ValueError(f"more than {MAX_ENTRIES:,} entries")
    if steps[steps != 0].cumsum(dtype=np.int32).max(initial=0) > MAX_DEPTH:
        raise ValueError(f"brackets more than {MAX_DEPTH} deep")


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")


def under(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The arrays under a prefix, without it."""
    start = f"{prefix}."
    return {n.removeprefix(start): a for n, a in arrays.items() if n.startswith(start)}


def best_of(epochs: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The least of each number that was measured after epochs."""
    best: dict[str, float] = {}
    for row in epochs:
        for name, value in row.items():
            if name != "epoch":
                best[name] = min(value, best.get(name, value))
    return best
