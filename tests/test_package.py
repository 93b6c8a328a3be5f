from __future__ import annotations

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


def test_names_are_listed_and_unknown_ones_refused():
    assert set(celldit.__all__) <= set(dir(celldit))
    assert celldit.datasets.__name__ == "celldit.datasets"
    assert celldit.data.__name__ == "celldit.data"
    with pytest.raises(AttributeError, match="no attribute 'modell'"):
        celldit.modell  # noqa: B018


def test_versions_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert celldit.__version__ == project["version"] == version("celldit")


def test_constraints_pin_what_is_installed():
    lines = (ROOT / "constraints.txt").read_text().split()
    pins = dict(line.split("==") for line in lines)
    assert all("+" not in pin for pin in pins.values()), "a local version is on no index"
    for name in ("torch", "anndata", "scanpy", "lightning"):
        assert version(name).split("+")[0] == pins[name]
