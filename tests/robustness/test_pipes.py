"""A pipe in place of a file is refused, wherever a file may be named; nothing waits for it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anndata as ad
import pytest
from typer.testing import CliRunner

import celldit as cd
from celldit import CellDiT
from celldit.cli.app import app
from celldit.cli.settings import TrainSettings
from celldit.errors import CellditError
from celldit.io.files import read_h5ad
from celldit.pretrained import Pretrained
from celldit.tokenizers import GeneSets, read_gmt

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes to make")


@pytest.fixture(autouse=True)
def _nothing_waits() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError("waited for the pipe")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def inside(folder: Path, name: str, pipe: Path) -> Path:
    """Put the pipe in place of a file of a folder."""
    (folder / name).unlink()
    os.mkfifo(folder / name)
    return folder


# fmt: off
READ: dict[str, Callable[[Path, Any, ad.AnnData], Any]] = {
    "a store": lambda p, m, a: cd.open_store(p),
    "cells": lambda p, m, a: read_h5ad(p),
    "a new model": lambda p, m, a: CellDiT(p),
    "a model": lambda p, m, a: CellDiT.load(p),
    "an autoencoder": lambda p, m, a: CellDiT(a, autoencoder=Pretrained(p)),
    "a query": lambda p, m, a: m.predict(p, perturbations="A"),
    "cells to be like": lambda p, m, a: m.generate(3, like=p),
    "cells to tune on": lambda p, m, a: m.fine_tune(p),
    "cells to embed": lambda p, m, a: m.get_latent_representation(p),
    "gene sets": lambda p, m, a: read_gmt(p),
    "gene sets of a tokenizer": lambda p, m, a: GeneSets(gmt=p),
    "gene sets as features": lambda p, m, a: cd.pp.gene_features(a, str(p), allow_missing=True),
    "settings": lambda p, m, a: TrainSettings.from_toml(p),
    "a folder of checkpoints": lambda p, m, a: CellDiT(a, "modules").train(0, checkpoint_dir=p),
    "an output": lambda p, m, a: m.predict(perturbations="A", out=p),
    "a folder of shards": lambda p, m, a: m.predict(perturbations="A", out=p, shard="1/1"),
    "a model to save": lambda p, m, a: m.save(p, overwrite=True),
}
# fmt: on


@pytest.mark.parametrize("what", READ)
def test_pipes_are_refused(what: str, pipe: Path, tiny_model: Any, tiny_screen: ad.AnnData) -> None:
    with pytest.raises(CellditError):
        READ[what](pipe, tiny_model, tiny_screen)


@pytest.mark.parametrize("name", ["config.json", "vocab.json", "weights.safetensors"])
def test_pipes_in_a_model(name: str, tiny_model: Any, tmp_path: Path) -> None:
    tiny_model.save(tmp_path / "model")
    with pytest.raises(CellditError):
        CellDiT.load(inside(tmp_path / "model", name, tmp_path))


def test_pipes_in_a_store(tiny_screen: ad.AnnData, tmp_path: Path) -> None:
    tiny_screen.write_zarr(tmp_path / "a.zarr")
    files = [p for p in (tmp_path / "a.zarr" / "X").rglob("*") if p.is_file()]
    for file in (files[0], files[-1]):
        file.unlink()
        os.mkfifo(file)
        with pytest.raises(CellditError):
            cd.open_store(tmp_path / "a.zarr")
        file.unlink()
        file.write_bytes(b"")


def test_pipes_among_shards(tiny_model: Any, tiny_screen: ad.AnnData, tmp_path: Path) -> None:
    few, folder = tiny_screen[:48].copy(), tmp_path / "p"
    tiny_model.predict(few, perturbations="A", out=folder, shard="1/1")
    request = next(folder.glob("*.json"))
    inside(folder, request.name, tmp_path)
    with pytest.raises(CellditError, match="no plain file"):
        tiny_model.predict(few, perturbations="A", out=folder, shard="1/1")


def test_pipes_in_the_terminal(
    pipe: Path, tiny_model: Any, tiny_screen: ad.AnnData, tmp_path: Path
) -> None:
    cells, out = tmp_path / "a.h5ad", tmp_path / "out.h5ad"
    tiny_screen.write_h5ad(cells)
    tiny_model.save(tmp_path / "m")
    model = tmp_path / "m"
    for command in (
        ["info", pipe],
        ["predict", pipe, cells, "-p", "A", "-o", out],
        ["predict", model, pipe, "-p", "A", "-o", out],
        ["generate", pipe, "-n", "3", "-o", out],
        ["train", pipe, "-o", tmp_path / "m2"],
        ["train", cells, "-o", tmp_path / "m2", "--config", pipe],
        ["train", cells, "-o", tmp_path / "m2", "--features", pipe],
        ["train", cells, "-o", tmp_path / "m2", "--autoencoder", pipe],
        ["evaluate", pipe, cells],
        ["evaluate", cells, pipe],
        ["evaluate", cells, cells, "--report", tmp_path / "r.html", "--predicted-effects", pipe],
        ["baseline", pipe, "-p", "A", "-o", out],
        ["submission", cells, cells, "-o", out, "--panel", pipe],
        ["submission", cells, cells, "-o", out, "--perturbations", pipe],
        ["submission", pipe, cells, "-o", out],
    ):
        ran = CliRunner().invoke(app, [str(part) for part in command])
        assert ran.exit_code != 0, command
        assert ran.exception is None or isinstance(ran.exception, SystemExit), command
        assert "Error" in ran.output, command
