"""Model folders from strangers: each is refused with a reason, before memory is taken."""

from __future__ import annotations

import copy
import json
import os
import resource
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from celldit import CellDiT
from celldit.errors import CellditError, FileError
from celldit.io import folders as storage
from celldit.io.model_folder import fingerprint

WEIGHTS, CONFIG, VOCAB = "weights.safetensors", "config.json", "vocab.json"


@pytest.fixture(scope="module")
def saved(_tiny_screen: Any, train_tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("strangers") / "model"
    train_tiny(_tiny_screen, tokenizer="ranks").save(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    for name in (WEIGHTS, CONFIG, VOCAB):
        (tmp_path / name).write_bytes((saved / name).read_bytes())
    return tmp_path


def refused(folder: Path, match: str = ".") -> None:
    """Refused in celldit's words, within a second, without much memory."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(FileError, match=match):
        CellDiT.load(folder)
    assert time.process_time() - start < 1.0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def rewrite(folder: Path, change: Callable[[dict[str, np.ndarray]], Any]) -> None:
    """Change arrays and forge the fingerprint, as somebody with intent would."""
    arrays = load_file(folder / WEIGHTS)
    change(arrays)
    save_file(arrays, folder / WEIGHTS)
    config = json.loads((folder / CONFIG).read_text())
    own = {name: array for name, array in arrays.items() if not name.startswith("features.")}
    config["model"] = fingerprint(own)
    (folder / CONFIG).write_text(json.dumps(config))


def first(arrays: dict[str, np.ndarray], prefix: str) -> str:
    own = (name for name in arrays if name.startswith(prefix) and arrays[name].ndim)
    return min(name for name in own if arrays[name].dtype.kind == "f")


@pytest.mark.parametrize("prefix", ["flow.", "autoencoder."])
@pytest.mark.parametrize("dtype", ["float64", "float16", "int32", "uint8"])
def test_wrong_types(folder: Path, prefix: str, dtype: str) -> None:
    def change(arrays: dict[str, np.ndarray]) -> None:
        name = first(arrays, prefix)
        arrays[name] = np.zeros(arrays[name].shape, dtype)

    rewrite(folder, change)
    refused(folder, rf"is {dtype} .* where it must be float32")


@pytest.mark.parametrize("prefix", ["flow.", "autoencoder."])
@pytest.mark.parametrize("how", ["missing", "extra", "shape", "nan", "inf"])
def test_wrong_arrays_with_a_forged_fingerprint(folder: Path, prefix: str, how: str) -> None:
    def change(arrays: dict[str, np.ndarray]) -> None:
        name = first(arrays, prefix)
        if how == "missing":
            del arrays[name]
        elif how == "extra":
            arrays[prefix + "stray"] = np.zeros(2, np.float32)
        elif how == "shape":
            arrays[name] = np.zeros((*arrays[name].shape, 2), np.float32)
        else:
            arrays[name] = np.full(arrays[name].shape, float(how), np.float32)

    rewrite(folder, change)
    refused(folder, "not finite" if how in ("nan", "inf") else "where it must be")


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG, VOCAB])
def test_links_are_refused(folder: Path, name: str, tmp_path_factory: Any) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "secret"
    (folder / name).rename(elsewhere)
    (folder / name).symlink_to(elsewhere)
    refused(folder, "is a link")
    (folder / name).unlink()
    (folder / name).symlink_to(Path(name))
    refused(folder, "is not a celldit model")


def test_what_is_no_file_is_refused(folder: Path) -> None:
    (folder / CONFIG).unlink()
    os.mkfifo(folder / CONFIG)
    refused(folder, "is not a celldit model")


@pytest.mark.parametrize("evil", ["../../outside", "/etc/passwd", "..", "a/../../b", "\x00"])
def test_names_that_climb_out_of_the_folder(folder: Path, evil: str) -> None:
    """Names in a model are only ever names: nothing outside the three files is opened."""
    outside = sorted(p.name for p in folder.parent.iterdir())
    rewrite(folder, lambda arrays: arrays.update({f"flow.{evil}": np.zeros(1, np.float32)}))
    refused(folder)
    config = json.loads((folder / CONFIG).read_text())
    config["latent"]["tokenizer"]["name"] = evil
    config["dit"]["network"] = evil
    (folder / CONFIG).write_text(json.dumps(config))
    refused(folder)
    assert sorted(p.name for p in folder.parent.iterdir()) == outside


def test_headers_are_compared_before_weights_are_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stranger's folder with other arrays costs no memory, however large they are."""

    def change(arrays: dict[str, np.ndarray]) -> None:
        name = first(arrays, "flow.")
        arrays[name] = np.zeros((*arrays[name].shape, 3), np.float32)

    rewrite(folder, change)
    monkeypatch.setattr(storage, "load_file", lambda path: pytest.fail("weights were read"))
    refused(folder, "the array flow.* where it must be")
    rewrite(folder, lambda arrays: arrays.update({"elsewhere.w": np.zeros(3, np.float32)}))
    refused(folder, "the array elsewhere.w belongs to no part")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("history",), 0.5),
        (("population", "prior", "lengths"), [None, None, None]),
        (("population", "prior", "conditions", 0, 1), "x"),
        (("flow_weight", "seen"), True),
        (("flow_weight", "seen"), 1.5),
        (("trained_with",), True),
        (("frequencies", 1, 0), [1]),
    ],
)
def test_what_would_fail_in_use_is_not_loaded(folder: Path, place: Any, value: Any) -> None:
    config = json.loads((folder / CONFIG).read_text())
    node = config
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = value
    (folder / CONFIG).write_text(json.dumps(config))
    refused(folder, "does not hold a whole celldit model")


@pytest.mark.parametrize("mark", ["[],", "0,", '{"a":0},'])
def test_json_of_many_entries_takes_no_memory(folder: Path, mark: str) -> None:
    text = '{"format": 1, "a": [' + mark * (20_000_000 // len(mark)) + "0]}"
    (folder / CONFIG).write_text(text)
    with pytest.raises(FileError, match="more than 3,000,000 entries"):
        CellDiT.load(folder)


def test_brackets_in_names_are_no_depth(folder: Path) -> None:
    vocab = json.loads((folder / VOCAB).read_text())
    vocab["note"] = "[" * 1000 + '"' + "\\"
    (folder / VOCAB).write_text(json.dumps(vocab))
    CellDiT.load(folder)


def raw_weights(folder: Path, header: dict[str, Any], body: bytes = b"") -> None:
    text = json.dumps(header).encode()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + body)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]},
        {"dtype": "F32", "shape": [2**32, 2**32], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 9]},
        {"dtype": "OBJECT", "shape": [2], "data_offsets": [0, 8]},
        {"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]},
        {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]},
        {"shape": [2]},
        "text",
    ],
)
def test_headers_that_lie(folder: Path, entry: Any) -> None:
    raw_weights(folder, {"flow.w": entry}, b"\x00" * 8)
    refused(folder)


@pytest.mark.parametrize("length", [0, 7, 2**32, 2**62, 2**64 - 1])
def test_header_lengths_that_lie(folder: Path, length: int) -> None:
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", length) + b"{}")
    refused(folder)


def test_more_weights_than_memory(folder: Path) -> None:
    """A file of a hundred terabytes that takes no room on the disk, with an honest header."""
    n_bytes = 2**44
    raw_weights(
        folder, {"flow.w": {"dtype": "U8", "shape": [n_bytes], "data_offsets": [0, n_bytes]}}
    )
    try:
        os.truncate(folder / WEIGHTS, n_bytes - 4096)
    except OSError:
        pytest.skip("this file system has no files of such a size")
    refused(folder, r"more than the (memory|limit) of")


@pytest.mark.parametrize("name", [CONFIG, VOCAB])
@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000,
        '{"format": ' * 50_000,
        '{"format": 1e999999}',
        '{"format": ' + "9" * 5000 + "}",
        '{"format": NaN}',
        "[]",
        "null",
        '"\\ud800"',
        "\ufeff{}",
    ],
    ids=["brackets", "objects", "large", "digits", "nan", "list", "null", "surrogate", "bom"],
)
def test_odd_json(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text, encoding="utf-8")
    refused(folder)


def test_huge_json(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.truncate(folder / VOCAB, storage.MAX_JSON + 1)
    refused(folder, "more than the 64 MB")


def leaves(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to every number and text of a JSON document, the first two of each list."""
    if isinstance(node, dict):
        for key in node:
            yield from leaves(node[key], (*path, key))
    elif isinstance(node, list):
        for i, item in enumerate(node[:2]):
            yield from leaves(item, (*path, i))
    elif path:
        yield path


EVIL = [10**9, 10**30, -1, 0, 1e308, True, None, "x" * 100, [], {}, [[[]]]]
#: In an ordinary run one entry in so many is replaced, each by a value of the next kind in turn.
SPARSE = 6


@pytest.mark.parametrize("file", [CONFIG, VOCAB])
def test_some_entries_replaced(folder: Path, file: str) -> None:
    """Whatever one entry becomes, the folder is refused or read, fast and without much memory."""
    replace_entries(folder, file, every=SPARSE)


@pytest.mark.slow
@pytest.mark.parametrize("file", [CONFIG, VOCAB])
def test_every_entry_replaced(folder: Path, file: str) -> None:
    replace_entries(folder, file, every=1)


def replace_entries(folder: Path, file: str, every: int) -> None:
    """Put evil values into entries of every section of a file, one at a time."""
    whole = json.loads((folder / file).read_text())
    heads = {
        "fields",
        "latent",
        "dit",
        "population",
        "flow_weight",
        "effect_calibration",
        "features",
    }
    heads |= {"frequencies", "genes", "format"}
    before, n_refused = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0
    found = [path for path in leaves(whole) if path[0] in heads]
    # The first of each section is among them, however few there are.
    firsts = {path[0]: path for path in reversed(found)}
    chosen = [p for i, p in enumerate(found) if i % every == 0 or firsts[p[0]] == p]
    used = set()
    for turn, path in enumerate(chosen):
        kinds = range(turn % 6, len(EVIL), 6) if every == 1 else [turn % len(EVIL)]
        for kind in kinds:
            used.add(kind)
            changed = copy.deepcopy(whole)
            node = changed
            for key in path[:-1]:
                node = node[key]
            node[path[-1]] = EVIL[kind]
            (folder / file).write_text(json.dumps(changed))
            start = time.process_time()
            try:
                CellDiT.load(folder)
            except CellditError:
                n_refused += 1
            assert time.process_time() - start < 1.0, (path, EVIL[kind])
    assert n_refused
    assert {path[0] for path in chosen} == {path[0] for path in found}
    assert len(used) == min(len(EVIL), len(chosen)) or every == 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000
