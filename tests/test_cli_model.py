"""What a trained model is asked in a terminal, and what all commands have in common."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from celldit import CellDiT
from celldit.cli import app
from celldit.cli.files import named_query


def call(*words: object, code: int = 0) -> Any:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == code, (done.output, done.exception)
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any, _tiny_screen: ad.AnnData, tiny_model: Any) -> Path:
    path = tmp_path_factory.mktemp("model")
    adata = _tiny_screen.copy()
    adata.uns.clear()
    adata.write_h5ad(path / "screen.h5ad")
    tiny_model.save(path / "model")
    return path


def test_rank_is_that_of_the_tool(folder: Path, tmp_path: Path, tiny_model: Any) -> None:
    ways = ("perturbation == 'control'", "perturbation == 'A'")
    output = tmp_path / "ranking.csv"
    asked = ("rank", folder / "model", folder / "screen.h5ad", "--from", ways[0], "--max-cells", 20)
    told = call(*asked, "--target", f"treated={ways[1]}", "-o", output).stdout
    assert "4 perturbations; all are in" in told
    written = pd.read_csv(output)
    import celldit as cd

    screen = ad.read_h5ad(folder / "screen.h5ad")
    direct = cd.tl.rank_perturbations(
        screen, tiny_model, source=ways[0], target=ways[1], max_cells=20
    )
    assert list(written["perturbation"]) == list(direct["perturbation"])
    np.testing.assert_allclose(written["score"], direct["score"], rtol=1e-6)
    few = json.loads(call(*asked, "--target", ways[1], "-p", "A", "-p", "B+C", "--json").stdout)
    assert {row["perturbation"] for row in few} == {"A", "B+C"}
    assert "--from" in call(*asked[:4], "nothing", "--target", ways[1], code=1).stderr
    assert "exists already" in call(*asked, "--target", ways[1], "-o", output, code=1).stderr


def test_interpolate_between_conditions_and_between_cells(folder: Path, tmp_path: Path) -> None:
    asked = ("interpolate", folder / "model", folder / "screen.h5ad")
    way = tmp_path / "new" / "way.h5ad"
    call(*asked, "--start", "control", "--end", "A", "--share", 0, "--share", 1, "-o", way)
    made = ad.read_h5ad(way)
    assert set(made.obs["share"]) == {0.0, 1.0}
    assert made.n_obs == 2 * 160
    cells = tmp_path / "cells.zarr"
    told = call(*asked, "--start-cell", "cell3", "--end-cell", "cell4", "-o", cells, "--json")
    assert json.loads(told.stdout)["n_cells"] == 5
    assert set(ad.read_zarr(cells).obs["start_cell"]) == {"cell3"}
    for lacking in ((), ("--start", "A"), ("--start", "A", "--end-cell", "cell4"),
                    ("--start", "A", "--end", "B", "--end-cell", "cell4")):  # fmt: skip
        call(*asked, *lacking, "-o", tmp_path / "x.h5ad", code=2)
    said = call(*asked, "--start", "A", "--end", "B", "--share", 2, "-o", tmp_path / "x.h5ad",
                code=1).stderr  # fmt: skip
    assert "--share" in said
    assert not (tmp_path / "x.h5ad").exists()


def test_what_interpolate_writes_to_disk_is_what_it_returns(
    tiny_model: Any, tmp_path: Path
) -> None:
    for ask, ends in (
        (tiny_model.interpolate, {"start": "control", "end": "A"}),
        (tiny_model.interpolate_cells, {"start": "cell3", "end": "cell4"}),
    ):
        written = ask(**ends, out=tmp_path / "way.h5ad", overwrite=True).to_memory()
        direct = ask(**ends)
        assert (written.layers["counts"] != direct.layers["counts"]).nnz == 0
        assert list(written.obs_names) == list(direct.obs_names)


def test_embed_writes_cells_with_their_latent(
    folder: Path, tmp_path: Path, tiny_model: Any
) -> None:
    output = tmp_path / "embedded.h5ad"
    asked = ("embed", folder / "model", folder / "screen.h5ad", "-o", output)
    assert "obsm['X_celldit']" in call(*asked).stdout
    written = ad.read_h5ad(output)
    latent = tiny_model.get_latent_representation(ad.read_h5ad(folder / "screen.h5ad"))
    np.testing.assert_allclose(written.obsm["X_celldit"], latent, rtol=1e-5, atol=1e-6)
    assert "exists already" in call(*asked, code=1).stderr


def test_trajectory_shows_cells_at_other_times(
    tmp_path: Path, simulate_screen: Any, train_tiny: Any
) -> None:
    screen = simulate_screen(240, 20, labels=("control",))
    screen.obs["day"] = np.arange(240) % 3.0
    CellDiT.setup_anndata(screen, time_key="day")
    train_tiny(screen, max_epochs=0).save(tmp_path / "model")
    screen[:20].copy().write_h5ad(tmp_path / "some.h5ad")
    output = tmp_path / "path.h5ad"
    asked = ("trajectory", tmp_path / "model", tmp_path / "some.h5ad")
    told = call(*asked, "--time", 0.5, "--time", 2, "-o", output).stdout
    assert "40 cells are in" in told
    assert set(ad.read_h5ad(output).obs["day"]) == {0.5, 2.0}
    assert "exists already" in call(*asked, "--time", 1, "-o", output, code=1).stderr
    said = call(*asked, "--time", "nan", "-o", tmp_path / "x.h5ad", code=1).stderr
    assert "--time" in said


def test_fine_tune_asks_for_no_column_that_the_model_knows(
    folder: Path, tmp_path: Path, simulate_screen: Any
) -> None:
    other = simulate_screen(240, 40, donors=("d4",), seed=1)
    other.write_h5ad(tmp_path / "other.h5ad")
    settings = tmp_path / "train.toml"
    settings.write_text('[model]\ntokenizer = "modules"\n[train]\nmax_epochs = 0\nn_trials = 1\n')
    output = tmp_path / "new"
    asked = ("fine-tune", folder / "model", tmp_path / "other.h5ad", "-o", output)
    told = json.loads(call(*asked, "--config", settings, "--json").stdout)
    assert told["n_cells"] == 240
    facts = json.loads(call("info", output, "--json").stdout)
    assert facts["contexts"] == ["d1", "d2", "d3", "d4"]
    assert facts["setup"]["covariate_keys"] == ["donor"]
    assert "exists already" in call(*asked, code=1).stderr
    (tmp_path / "mine").mkdir()
    said = call(*asked[:3], "-o", tmp_path / "mine", "--overwrite", code=1).stderr
    assert "is not a celldit model" in said
    other.obs = other.obs.rename(columns={"donor": "patient"})
    other.write_h5ad(tmp_path / "other.h5ad")
    assert "--covariate-key" in call(*asked, "--overwrite", code=1).stderr
    call(*asked, "--overwrite", "--covariate-key", "patient", "--max-epochs", 0, "-q")


def test_evaluate_finds_the_library_sizes_of_training(tmp_path: Path, simulate_screen: Any) -> None:
    screen = simulate_screen(240)
    screen.obs["umis"] = 10.0 * np.asarray(screen.X.sum(axis=1)).ravel()
    screen.write_h5ad(tmp_path / "screen.h5ad")
    setup = ("--perturbation-key", "perturbation", "--covariate-key", "donor",
             "--size-factor-key", "umis", "--tokenizer", "modules", "--max-epochs", 0)  # fmt: skip
    data, model, guess = (tmp_path / name for name in ("screen.h5ad", "model", "p.h5ad"))
    call("train", data, "-o", model, *setup, "-q")
    call("predict", model, data, "-p", "A", "-o", guess, "-q")
    call("evaluate", guess, data)
    del screen.obs["umis"]
    screen.write_h5ad(data)
    assert "--size-factor-key" in call("evaluate", guess, data, code=1).stderr


def test_submission_is_told_its_columns_by_the_prediction(
    tmp_path: Path, simulate_screen: Any
) -> None:
    screen = simulate_screen(240)
    screen.obs = screen.obs.rename(columns={"perturbation": "gene"})
    screen.obs["gene"] = screen.obs["gene"].replace({"control": "NT"})
    screen.write_h5ad(tmp_path / "screen.h5ad")
    setup = ("--perturbation-key", "gene", "--control", "NT", "--name", "mean shift")
    call("baseline", tmp_path / "screen.h5ad", "-p", "A", *setup, "-o", tmp_path / "p.h5ad")
    made = ("submission", tmp_path / "p.h5ad", tmp_path / "screen.h5ad", "-o", tmp_path / "s.h5ad")
    call(*made)
    assert set(ad.read_h5ad(tmp_path / "s.h5ad").obs["target"]) == {"A", "non-targeting"}


@pytest.mark.parametrize(
    ("text", "name", "query"),
    [
        ("B cells=cell_type == 'B'", "B cells", "cell_type == 'B'"),
        ("cell_type == 'B'", "cell_type == 'B'", "cell_type == 'B'"),
        ("late=day>=3", "late", "day>=3"),
        ("day>=3", "day>=3", "day>=3"),
        ("day != 3", "day != 3", "day != 3"),
        ("donor in ['a=b']", "donor in ['a=b']", "donor in ['a=b']"),
        ("healthy", "healthy", "healthy"),
    ],
)
def test_a_query_may_have_a_name(text: str, name: str, query: str) -> None:
    assert named_query(text) == (name, query)


def test_an_option_means_the_same_in_every_command() -> None:
    said = defaultdict(set)
    for one in typer.main.get_command(app).commands.values():  # type: ignore[attr-defined]
        for option in one.params:
            if option.param_type_name == "option":
                said[option.opts[0]].add((option.help or "").replace("; repeat for several", ""))
    # Where a command writes depends on what it writes.
    assert {option: texts for option, texts in said.items() if len(texts) > 1}.keys() == {
        "--output"
    }
    assert all(all(texts) for texts in said.values())


def test_help_shows_every_day_experts_and_columns_apart() -> None:
    text = CliRunner().invoke(app, ["train", "--help"], env={"COLUMNS": "120"}).stdout
    boxes = re.split("─ (Options|What the data mean|For experts) ─", text)
    shown = dict(zip(boxes[1::2], boxes[2::2], strict=True))
    assert list(shown) == ["Options", "What the data mean", "For experts"]
    assert "--features" in shown["Options"]
    assert "--perturbation-key" in shown["What the data mean"]
    assert "--strategy" in shown["For experts"]


def test_genes_that_no_set_has_are_modules_as_in_python(folder: Path, tmp_path: Path) -> None:
    told = call("train", folder / "screen.h5ad", "-o", tmp_path / "new", "--max-epochs", 0).stderr
    assert "None of the 50 gene sets" in told
    assert "--tokenizer modules to choose them" in told
    assert CellDiT.load(tmp_path / "new").trained.autoencoder.tokenizer.name == "modules"
