from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

import celldit

ROOT = Path(__file__).resolve().parents[1]


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_import_is_light():
    loaded = run(
        "import sys, celldit; print(*[m for m in ('torch', 'lightning', 'scanpy', 'anndata')"
        " if m in sys.modules])"
    )
    assert loaded == ""


def test_datasets_need_neither_torch_nor_lightning():
    loaded = run(
        "import sys, celldit; celldit.datasets.sciplex2(); celldit.data.Fields;"
        " print(*[m for m in ('torch', 'lightning') if m in sys.modules])"
    )
    assert loaded == ""


def test_lightning_is_imported_only_when_training_starts():
    loaded = run(
        "import sys, celldit; celldit.CellDiT, celldit.tl, celldit.pl;"
        " print('lightning' in sys.modules)"
    )
    assert loaded == "False"


def test_names_are_listed_and_unknown_ones_refused():
    assert set(celldit.__all__) <= set(dir(celldit))
    assert celldit.datasets.__name__ == "celldit.datasets"
    assert celldit.data.__name__ == "celldit.data"
    with pytest.raises(AttributeError, match="no attribute 'modell'"):
        celldit.modell  # noqa: B018


@pytest.mark.parametrize("name", [
    "data", "datasets", "evaluation", "pl", "pp", "report", "tl", "tokenizers",
])  # fmt: skip
def test_what_completion_offers_is_public(name: str) -> None:
    space = getattr(celldit, name)
    assert dir(space) == sorted(space.__all__)
    assert dir(celldit) == sorted(celldit.__all__)


def test_the_setup_shows_its_parameters():
    signature = inspect.signature(celldit.CellDiT.setup_anndata)
    documented = inspect.cleandoc(celldit.CellDiT.setup_anndata.__doc__).splitlines()
    assert "perturbation_key" in signature.parameters
    assert not {"arguments", "options"} & set(signature.parameters)
    assert set(signature.parameters) <= {part for line in documented for part in line.split(", ")}


def test_versions_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert celldit.__version__ == project["version"] == version("celldit")


def test_constraints_pin_what_is_installed():
    lines = (ROOT / "constraints.txt").read_text().split()
    pins = dict(line.split("==") for line in lines)
    assert all("+" not in pin for pin in pins.values()), "a local version is on no index"
    for name in ("torch", "anndata", "scanpy", "lightning"):
        assert version(name).split("+")[0] == pins[name]


ROOMS = (
    "data", "tokenizers", "nn", "flow", "conditions", "effects", "latent", "calibration",
    "training", "io", "inference", "analysis", "evaluation", "pl", "report", "tl", "pp", "cli",
)  # fmt: skip
# Rooms that still look at a later one; a pair that is no longer needed has to go from here.
LOOKS_DOWN = {
    ("conditions", "effects"),
    ("training", "io"),
}


def imported(path: Path) -> set[str]:
    """Rooms that a file imports when it runs."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    modules = [
        node.module.split(".")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and id(node) not in for_types
    ]
    return {parts[1] for parts in modules if parts[0] == "celldit" and len(parts) > 1}


def test_rooms_import_what_is_above_them():
    package = ROOT / "celldit"
    found = {
        (room, other)
        for room in ROOMS
        for path in (package / room).rglob("*.py")
        for other in imported(path) & set(ROOMS)
        if ROOMS.index(other) > ROOMS.index(room)
    }
    assert found == LOOKS_DOWN


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ("celldit.nn.mlp.MLPConfig", "celldit.nn.comparators"),
        ("celldit.nn.unet.UNetConfig", "celldit.nn.comparators"),
        ("celldit.inference.edit.EditConfig", "celldit.inference.maps.edit"),
    ],
)
def test_settings_load_from_where_they_were(before: str, now: str) -> None:
    module, _, name = before.rpartition(".")
    there = importlib.import_module(module)
    told = rf"{before} has moved; import it with: from {now} import {name}$"
    with pytest.warns(FutureWarning, match=told):
        found = getattr(there, name)
    assert found is getattr(importlib.import_module(now), name)
    assert not hasattr(there, "nothing_of_this_name")
