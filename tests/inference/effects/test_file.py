"""Effects on disk are those of the table, and what does not fit is refused before the work."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import celldit as cd
from celldit.cli.wording import in_terminal
from celldit.errors import FileError, OutOfMemoryError
from celldit.inference.effects import file as effects_file
from celldit.inference.effects import table as effects


@pytest.mark.parametrize("name", ["effects.zarr", "effects.h5ad"])
def test_the_file_holds_what_the_table_holds(
    name: str, tiny_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tiny_model.predict_effects(["A", "B"])
    # In blocks of any size.
    monkeypatch.setattr(effects_file, "BLOCK", 4)
    path = tmp_path / name
    written = tiny_model.predict_effects(["A", "B"], out=path).to_memory()
    assert list(written.var_names) == list(tiny_model.genes)
    for column, values in (("log_fold_change", written.X), ("sd", written.layers["sd"])):
        expected = table[column].to_numpy().reshape(written.shape)
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)
    each = table.iloc[:: len(tiny_model.genes)]
    for column in ("perturbation", "context", "extrapolation"):
        assert written.obs[column].astype(str).tolist() == each[column].tolist()
    with pytest.raises(FileError, match="exists already"):
        tiny_model.predict_effects(["A"], out=path)


def test_no_room_is_said_before_the_work(
    tiny_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = SimpleNamespace(free=10_000_000)
    monkeypatch.setattr(effects_file.shutil, "disk_usage", lambda _: free)
    with pytest.raises(FileError, match=r"need 0\.1 GB in .*, where 0\.0 GB are free"):
        tiny_model.predict_effects(["A"], out=tmp_path / "effects.zarr")
    assert list(tmp_path.iterdir()) == []


def test_too_large_a_table_is_refused_with_its_size(
    tiny_model: Any, tiny_screen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(effects, "bound", lambda: (1_000.0, "the memory of this machine"))
    told = r"3 conditions x 40 genes has 120 rows and takes about .* GB.*out=\"effects.zarr\""
    with pytest.raises(OutOfMemoryError, match=told):
        tiny_model.predict_effects(["A"])
    monkeypatch.setattr(effects, "effects_of", lambda *_: pytest.fail("predicted nevertheless"))
    with pytest.raises(OutOfMemoryError, match=told) as caught:
        cd.tl.effects(tiny_screen, tiny_model, ["A"])
    assert "celldit predict --effects-output effects.zarr" in in_terminal(str(caught.value))
    assert "celldit_effects" not in tiny_screen.uns


def test_a_table_takes_no_more_memory_than_is_said(
    tiny_model: Any, tiny_screen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = effects.effects_of

    def often(*asked: Any) -> Any:
        return (one for found in [list(once(*asked))] for _ in range(200) for one in found)

    monkeypatch.setattr(effects, "effects_of", often)
    for make, row_bytes in (
        (lambda: tiny_model.predict_effects(["A", "B"]), effects.ROW_BYTES),
        (lambda: cd.tl.effects(tiny_screen, tiny_model), effects.FULL_ROW_BYTES),
    ):
        tracemalloc.start()
        n_rows = len(make())
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert row_bytes / 3 < peak / n_rows < 1.1 * row_bytes
