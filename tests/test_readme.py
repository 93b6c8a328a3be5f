"""The blocks of the README run as printed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import celldit as cd

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_python_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A part of the cells, and a model at its linear start; everything else is as printed.
    some = cd.datasets.papalexi()
    some = some[some.obs["perturbation"].isin(["control", "STAT1", "IRF1", "JAK2"])][::6].copy()
    monkeypatch.setattr(cd.datasets, "papalexi", lambda: some)
    train = cd.CellDiT.train
    monkeypatch.setattr(
        cd.CellDiT,
        "train",
        lambda model, **options: train(model, 0, enable_progress_bar=False, **options),
    )
    monkeypatch.chdir(tmp_path)
    some.write_zarr(tmp_path / "screen.zarr")
    names: dict[str, Any] = {}
    for block in blocks("python"):
        exec(block, names)
    assert names["predicted"].n_obs > 0
    assert names["synthetic"].n_obs == 1000
    assert "celldit_mean" in names["adata"].layers


def test_readme_is_short() -> None:
    """Ten minutes from install to a figure: the rest is in the documentation."""
    assert len(README.split()) < 900
    assert max(map(len, README.splitlines())) <= 120


def test_linked_files_exist() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    missing = [x for x in links if not x.startswith("http") and not (ROOT / x).exists()]
    assert missing == []


NUMBER = re.compile(r"-?\d+\.\d+")


@pytest.mark.slow
def test_printed_output_is_what_the_ten_lines_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(next(block for block in blocks("python") if "cd.datasets.papalexi" in block), names)
    page = (ROOT / "docs" / "prediction.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"<!-- output:begin -->\n```text\n(.*?)```", page, flags=re.DOTALL)
    for part in filter(None, shown.split(">>> ")):
        call, _, expected = part.partition("\n")
        table = eval(call, names)
        lacks_index = "effects" in call
        printed = table.to_string(index=False) if lacks_index else repr(table)
        # Numbers may differ in their last digits from machine to machine; words may not.
        assert NUMBER.sub("x", printed).split() == NUMBER.sub("x", expected).split(), printed
        numbers = [[float(x) for x in NUMBER.findall(text)] for text in (printed, expected)]
        assert numbers[0] == pytest.approx(numbers[1], rel=0.05, abs=0.01), printed


@pytest.mark.slow
def test_terminal_blocks_run(tmp_path: Path) -> None:
    (commands,) = [block for block in blocks("bash") if "celldit train" in block]
    cd.datasets.papalexi().write_h5ad(tmp_path / "screen.h5ad")
    for line in commands.replace("\\\n", " ").strip().splitlines():
        words = line.split()
        assert words[0] == "celldit"
        command = [sys.executable, "-m", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, (line, done.stderr)
