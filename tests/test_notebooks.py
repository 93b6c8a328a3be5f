"""The notebooks run, warn of nothing, and are kept with clean outputs."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("[0-9]*.ipynb"))
MOST_BYTES = 900_000
TEXTS = ("text/plain", "text/html")


def execute() -> ModuleType:
    """The script that runs notebooks."""
    spec = importlib.util.spec_from_file_location("execute", FOLDER / "execute.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def outputs(path: Path) -> list[dict[str, Any]]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [output for cell in cells for output in cell.get("outputs", ())]


def test_there_are_seven() -> None:
    assert [path.name[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05", "06", "07"]


def words(output: dict[str, Any]) -> str:
    """What an output says in words."""
    text = output.get("text", ""), *(output.get("data", {}).get(k, "") for k in TEXTS)
    return "".join("".join(part) for part in text)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_kept_outputs_are_clean(path: Path) -> None:
    content = path.read_text(encoding="utf-8")
    assert len(content.encode()) < MOST_BYTES
    kept = outputs(path)
    assert not [o for o in kept if o["output_type"] == "error" or o.get("name") == "stderr"]
    # An absolute path is one of some machine.
    assert not [o for o in kept if re.search(r"(?<![\w.:/<])/\w+/\w+", words(o))]
    cells = [cell for cell in json.loads(content)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert any("image/png" in o.get("data", {}) for o in kept)


@pytest.fixture(scope="module")
def kernel() -> Iterator[Any]:
    """One for all: starting and importing takes longer than most notebooks."""
    with execute().quick_kernel() as kernel:
        yield kernel


@pytest.mark.notebook
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_without_a_warning(path: Path, kernel: Any) -> None:
    """With trainings of one epoch; `make notebooks` and the test below run them as they are."""
    script = execute()
    assert script.complaints(script.run(path, kernel=kernel)) == []


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_in_full_without_a_warning(path: Path) -> None:
    script = execute()
    assert script.complaints(script.run(path)) == []
