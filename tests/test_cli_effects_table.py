"""``celldit effects-table`` and ``celldit train --effects``."""

from __future__ import annotations

import json
from pathlib import Path

import anndata as ad
import pytest
from typer.testing import CliRunner

from celldit.cli import app


@pytest.fixture
def screen(tiny_screen: ad.AnnData, tmp_path: Path) -> Path:
    tiny_screen.write_h5ad(tmp_path / "screen.h5ad")
    return tmp_path / "screen.h5ad"


def call(*words: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == code, done.output
    return done.output


def test_a_table_is_made_and_used(screen: Path, tmp_path: Path) -> None:
    table, model = tmp_path / "effects.h5ad", tmp_path / "model"
    told = ("--source", "us", "--licence", "CC0")
    made = ("effects-table", screen, "-o", table, "--min-cells", 10, *told)
    said = json.loads(call(*made, "--json"))
    assert said == {"output": str(table), "n_perturbations": 4, "n_genes": 40}
    assert ad.read_h5ad(table).uns["effect_table"]["licence"] == "CC0"
    assert "exists already" in call(*made, code=1)
    assert "celldit train DATA.h5ad --effects" in call(*made, "--overwrite")
    keys = ("--perturbation-key", "perturbation", "--covariate-key", "donor")
    call("train", screen, "-o", model, *keys, "--tokenizer", "modules", "--max-epochs", 0,
         "--effects", table, "--quiet")  # fmt: skip
    facts = json.loads(call("info", model, "--json"))
    assert facts["effects"]["us"]["licence"] == "CC0"
    settings = call("train", "--effects", table, "--print-config")
    assert f'effects = ["{table}"]' in settings


def test_refusals_speak_of_options(screen: Path, tmp_path: Path) -> None:
    made = ("effects-table", screen, "-o", tmp_path / "t.h5ad")
    assert "lower --min-cells" in call(*made, "--min-cells", 10_000, code=1)
    assert "Unknown direction 'up'" in call(*made, "--direction", "up", code=1)
    assert not (tmp_path / "t.h5ad").exists()
