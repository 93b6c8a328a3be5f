"""``celldit responders``, ``interactions`` and ``dose-response``."""

from __future__ import annotations

import json
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from celldit.cli import app

COMMANDS = {
    "responders": ("--cells", "--guide-key", "guide"),
    "interactions": ("--genes", "--min-cells", 10),
    "dose-response": ("--points", "--dose-key", "um"),
}


@pytest.fixture
def screen(tiny_screen: ad.AnnData, tmp_path: Path) -> Path:
    label = tiny_screen.obs["perturbation"]
    tiny_screen.obs["guide"] = label.astype(str) + "_g1"
    treated = (label != "control").to_numpy()
    number = tiny_screen.obs.groupby("perturbation", observed=True).cumcount().to_numpy()
    tiny_screen.obs["um"] = np.where(treated, 10.0 ** (number % 3), 0.0)
    # The file was not set up; the options say what its columns mean.
    del tiny_screen.uns["celldit"]
    tiny_screen.write_h5ad(tmp_path / "screen.h5ad")
    return tmp_path / "screen.h5ad"


def call(*words: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == code, done.output
    return done.output


@pytest.mark.parametrize("name", COMMANDS)
def test_tables_and_a_figure_are_written(name: str, screen: Path, tmp_path: Path) -> None:
    output, more, figure = (tmp_path / file for file in ("o.csv", "more.csv", "new/f.png"))
    option, *others = COMMANDS[name]
    given = (name, screen, "-o", output, option, more, "--figure", figure, *others)
    keys = ("--perturbation-key", "perturbation")
    said = call(*given, *keys)
    assert str(output) in said
    table = pd.read_csv(output)
    assert len(table) > 0
    assert len(pd.read_csv(more)) > len(table)
    assert figure.stat().st_size > 10_000
    assert "exist already" in call(*given, *keys, code=1)
    assert json.loads(call(*given, *keys, "--overwrite", "--json"))
    assert "--perturbation-key" in call(*given, "--overwrite", code=1)


@pytest.mark.parametrize("name", [*COMMANDS, "effects"])
def test_a_figure_that_cannot_be_written_is_refused_before_any_work(
    name: str, tmp_path: Path
) -> None:
    """The data are missing, which would be the error if work had started."""
    nothing = [tmp_path / "nothing"] * (2 if name == "effects" else 1)
    figure = tmp_path / "figure.word"
    said = call(name, *nothing, "-o", tmp_path / "o.csv", "--figure", figure, code=1)
    assert f"--figure {figure} must end in one of" in said


def test_refusals_speak_of_options(screen: Path, tmp_path: Path) -> None:
    given = (screen, "-o", tmp_path / "o.csv", "--perturbation-key", "perturbation")
    assert "pass --dose-key COLUMN." in call("dose-response", *given, code=1)
    assert "lower --min-cells" in call("interactions", *given, "--min-cells", 1000, code=1)
    assert not (tmp_path / "o.csv").exists()


def test_guides_and_genes_are_named_as_a_reader_knows_them(screen: Path, tmp_path: Path) -> None:
    adata = ad.read_h5ad(screen)
    adata.obs["guide"] = "g1"
    adata.var_names = [f"ENSG{990000 + g:011d}" for g in range(adata.n_vars)]
    adata.var["gene_name"] = [f"SYM{g}" for g in range(adata.n_vars)]
    adata.write_h5ad(tmp_path / "ids.h5ad")
    given = (tmp_path / "ids.h5ad", "--perturbation-key", "perturbation", "-o")
    said = call("responders", *given, tmp_path / "o.csv", "--guide-key", "guide")
    assert "A, g1: " in said
    said = call("dose-response", *given, tmp_path / "c.csv", "--dose-key", "um")
    respond = (pd.read_csv(tmp_path / "c.csv")["lfsr"] < 0.05).any()
    assert ("A, SYM" in said) == bool(respond)
    assert "ENSG" not in said
