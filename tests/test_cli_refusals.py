"""What the commands refuse, in one sentence that says what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from celldit.cli import app
from celldit.cli.commands.training import read_features


def sentence(*arguments: object) -> str:
    """The one line of an error with exit code 1."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 1, (result.output, result.exception)
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.fixture
def folder(tmp_path: Path, tiny_screen: Any, tiny_model: Any) -> Path:
    """A folder with data and a trained model."""
    screen = tiny_screen.copy()
    screen.write_h5ad(tmp_path / "truth.h5ad")
    screen.uns.clear()
    screen.write_h5ad(tmp_path / "screen.h5ad")
    tiny_model.save(tmp_path / "model")
    return tmp_path


def test_tables_that_cannot_be_read(folder: Path) -> None:
    (folder / "binary.csv").write_bytes(b"a,b\n\xff\xfe,1\n")
    screen = folder / "screen.h5ad"
    said = sentence(
        "train", screen, "-o", folder / "new", "--perturbation-key", "perturbation",
        "--features", folder / "binary.csv",
    )  # fmt: skip
    assert "binary.csv cannot be read as .csv" in said
    said = sentence(
        "evaluate", folder / "truth.h5ad", folder / "truth.h5ad",
        "--predicted-effects", folder / "binary.csv", "--report", folder / "r.html",
    )  # fmt: skip
    assert "The effects cannot be read from" in said


def test_a_model_whose_vocabulary_is_of_another_kind(folder: Path) -> None:
    vocab = folder / "model" / "vocab.json"
    content = json.loads(vocab.read_text())
    vocab.write_text(json.dumps(dict.fromkeys(content, 3)))
    assert "does not hold a whole celldit model" in sentence("info", folder / "model")


def test_an_output_below_a_file(folder: Path) -> None:
    said = sentence(
        "predict", folder / "model", folder / "screen.h5ad", "-p", "A",
        "-o", folder / "screen.h5ad" / "predicted.h5ad",
    )  # fmt: skip
    assert "Cannot make the folder" in said
    assert "File exists" in said or "Not a directory" in said


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("--perturbation-sep", "--perturbation-sep is empty"),
        ("--covariate-key", "Unknown column for --covariate-key"),
        ("--control", "control is empty"),
    ],
)
def test_an_option_that_is_empty_is_not_one_left_out(folder: Path, option: str, text: str) -> None:
    said = sentence(
        "train", folder / "screen.h5ad", "-o", folder / "new", "--perturbation-key",
        "perturbation", option, "",
    )  # fmt: skip
    assert text in said


def test_a_file_that_memory_does_not_hold(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What to do is said of the terminal, and not of Python."""

    def full(path: Path) -> None:
        raise MemoryError("Unable to allocate 80 GiB")

    monkeypatch.setattr("anndata.read_h5ad", full)
    screen = folder / "screen.h5ad"
    said = sentence("predict", folder / "model", screen, "-p", "A", "-o", folder / "x.h5ad")
    assert said == (
        f"Error: {screen} needs more memory than there is; give fewer cells, or, to "
        "celldit train, a .zarr or a folder of .h5ad files, which stay on disk."
    )


@pytest.mark.parametrize("command", ["embed", "baseline", "submission", "effects-table"])
def test_cells_are_written_as_h5ad_alone(folder: Path, command: str) -> None:
    """Another ending would be a file that nothing reads; nothing of the data is read before."""
    nothing = folder / "nothing"
    given = {
        "embed": (nothing, nothing),
        "baseline": (nothing, "-p", "A"),
        "submission": (nothing, nothing),
        "effects-table": (nothing,),
    }[command]
    output = folder / "cells.zarr"
    said = sentence(command, *given, "-o", output)
    assert said == f"Error: --output {output} must end in .h5ad."


def test_co_expression_needs_cells_in_memory(folder: Path, tiny_screen: Any) -> None:
    screen = tiny_screen.copy()
    screen.write_zarr(folder / "screen.zarr")
    said = sentence(
        "train", folder / "screen.zarr", "-o", folder / "new", "--perturbation-key",
        "perturbation", "--features", "expression",
    )  # fmt: skip
    assert "--features expression looks at control cells in memory" in said
    assert "--features reactome" in said


def test_gene_sets_tell_of_genes_without_cells() -> None:
    tables = read_features(["reactome", "hallmark"], None)
    assert list(tables) == ["reactome", "hallmark"]
    assert {"STAT1", "JAK2"} <= set(tables["reactome"].index)


def test_settings_that_are_not_there(folder: Path) -> None:
    said = sentence("train", folder / "screen.h5ad", "-o", folder / "new", "--config", "gone.toml")
    assert "There is no settings file gone.toml; check the path." in said


def test_an_empty_name_of_the_latent(folder: Path) -> None:
    screen, output = folder / "screen.h5ad", folder / "embedded.h5ad"
    said = sentence("embed", folder / "model", screen, "-o", output, "--key-added", "")
    assert "--key-added '' must be text that is not empty" in said
    assert not output.exists()
