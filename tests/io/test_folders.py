"""A model folder comes back as it was, or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file, save_file

from celldit import CellDiT
from celldit.errors import FileError, InputError
from celldit.io import folders as storage
from celldit.io import replacing
from celldit.io.folders import read_folder, write_folder
from celldit.nn.comparators import MLPConfig, UNetConfig

FILES = ["config.json", "vocab.json", "weights.safetensors"]
SMALL: tuple[dict, dict, dict] = ({"a": 1}, {"genes": ["g"]}, {"w": np.arange(3.0)})


@pytest.fixture
def folder(flowing_model: CellDiT, tmp_path: Path) -> Path:
    flowing_model.save(tmp_path / "model")
    return tmp_path / "model"


def edit_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def edit_weights(folder: Path, change: Callable[[dict[str, np.ndarray]], Any]) -> None:
    arrays = load_file(folder / FILES[2])
    change(arrays)
    save_file(arrays, folder / FILES[2])


def assert_same_model(one: CellDiT, two: CellDiT, adata: ad.AnnData) -> None:
    predictions = [m.predict(adata, perturbations=["A", "B+C"], seed=3) for m in (one, two)]
    generated = [m.generate(20, seed=3) for m in (one, two)]
    for a, b in (predictions, generated):
        assert a.obsm["X_celldit"].tobytes() == b.obsm["X_celldit"].tobytes()
        for layer in ("counts", "mean"):
            assert a.layers[layer].toarray().tobytes() == b.layers[layer].toarray().tobytes()
        pd.testing.assert_frame_equal(a.obs, b.obs)
        assert a.uns["celldit"]["made_by"] == b.uns["celldit"]["made_by"]
    pd.testing.assert_frame_equal(one.predict_effects(["A"]), two.predict_effects(["A"]))


def test_predictions_are_byte_identical(
    folder: Path, flowing_model: CellDiT, tiny_screen: ad.AnnData
) -> None:
    loaded = CellDiT.load(folder)
    assert_same_model(loaded, flowing_model, tiny_screen)
    assert repr(loaded) == repr(flowing_model)
    assert loaded.flow_weight == flowing_model.flow_weight
    assert loaded.history == flowing_model.history
    assert loaded.conditions == flowing_model.conditions
    assert loaded.fields == flowing_model.fields


@pytest.mark.parametrize("tokenizer", ["modules", "genes", "ranks"])
def test_tokenizers_and_features_come_back(
    tokenizer: str, tiny_screen: ad.AnnData, train_tiny: Callable[..., CellDiT], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    features = pd.DataFrame(rng.normal(size=(4, 3)), index=["A", "B", "C", "D"])
    sets = pd.DataFrame({"s": [1.0, 2.0]}, index=["A", "E"]).astype(pd.SparseDtype(float, 0.0))
    tables = {"go.slim": features, "sets": sets}
    model = train_tiny(tiny_screen, tokenizer=tokenizer, features=tables)
    model.save(tmp_path / "m")
    loaded = CellDiT.load(tmp_path / "m")
    one, two = (m.predict(tiny_screen, perturbations=["A", "D", "E"]) for m in (model, loaded))
    assert one.obsm["X_celldit"].tobytes() == two.obsm["X_celldit"].tobytes()
    assert list(one.obs["extrapolation"].unique()) == ["seen", "unseen with features"]


def test_saved_again_it_is_the_same_folder(folder: Path, tmp_path: Path) -> None:
    CellDiT.load(folder).save(tmp_path / "again")
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_the_folder_holds_three_readable_files(folder: Path) -> None:
    assert sorted(os.listdir(folder)) == FILES
    config = json.loads((folder / "config.json").read_text())
    vocab = json.loads((folder / "vocab.json").read_text())
    assert config["format"] == 2
    assert vocab["genes"][:2] == ["gene0", "gene1"]
    assert vocab["perturbations"] == ["A", "B", "C"]
    # No cells: neither names nor counts.
    assert (
        "cell17" not in (folder / "config.json").read_text() + (folder / "vocab.json").read_text()
    )


def test_a_loaded_model_has_no_cells(folder: Path) -> None:
    loaded = CellDiT.load(folder)
    for call in (
        lambda: loaded.predict(perturbations=["A"]),
        lambda: loaded.train(),
        lambda: loaded.get_latent_representation(),
    ):
        with pytest.raises(InputError, match="holds no cells"):
            call()


def test_an_existing_folder_is_not_replaced(folder: Path, tiny_model: CellDiT) -> None:
    before = (folder / FILES[2]).read_bytes()
    with pytest.raises(FileError, match=r"exists already.*overwrite=True"):
        tiny_model.save(folder)
    assert (folder / FILES[2]).read_bytes() == before
    tiny_model.save(folder, overwrite=True)
    assert CellDiT.load(folder).trained.model_id == tiny_model.trained.model_id
    assert os.listdir(folder.parent) == ["model"]


def test_other_folders_are_never_replaced(tiny_model: CellDiT, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    (tmp_path / "file").write_text("text")
    for name in ("thesis", "file"):
        with pytest.raises(FileError, match="not a celldit model"):
            tiny_model.save(tmp_path / name, overwrite=True)
    assert (tmp_path / "thesis" / "chapter1.tex").read_text() == "years of work"
    assert (tmp_path / "file").read_text() == "text"


def test_missing_parents_are_made(tiny_model: CellDiT, tmp_path: Path) -> None:
    tiny_model.save(str(tmp_path / "a" / "b" / "model"))
    assert CellDiT.load(str(tmp_path / "a" / "b" / "model")).is_trained


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["missing", "empty", "truncated", "garbage"])
def test_damaged_files(folder: Path, name: str, how: str) -> None:
    path = folder / name
    content = path.read_bytes()
    if how == "missing":
        path.unlink()
    else:
        new = {"empty": b"", "truncated": content[: len(content) // 2], "garbage": b"\xff" * 99}
        path.write_bytes(new[how])
    with pytest.raises(FileError, match=f"{name}"):
        CellDiT.load(folder)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="is not a celldit model"):
        CellDiT.load(tmp_path / "nothing")


@pytest.mark.parametrize("version", [3, 0, None, "1"])
def test_another_format(folder: Path, version: object) -> None:
    edit_json(folder / "config.json", lambda c: c.update(format=version))
    with pytest.raises(FileError, match=r"model format .*; this celldit reads 1 to 2"):
        CellDiT.load(folder)


def one_more(arrays: dict[str, np.ndarray]) -> None:
    arrays["flow.more"] = np.zeros(3)


def one_stray(arrays: dict[str, np.ndarray]) -> None:
    arrays["stray"] = np.zeros(3)


def one_less(arrays: dict[str, np.ndarray]) -> None:
    del arrays[sorted(a for a in arrays if a.startswith("flow."))[0]]


def one_changed(arrays: dict[str, np.ndarray]) -> None:
    arrays["population.prior.shifts"] = arrays["population.prior.shifts"] + 1e-3


def one_wrong_shape(arrays: dict[str, np.ndarray]) -> None:
    arrays["autoencoder.loadings"] = arrays["autoencoder.loadings"][:-1].copy()


@pytest.mark.parametrize("change", [one_more, one_stray, one_less, one_changed, one_wrong_shape])
def test_weights_of_something_else(folder: Path, change: Callable[..., None]) -> None:
    edit_weights(folder, change)
    with pytest.raises(FileError, match="does not hold a whole celldit model"):
        CellDiT.load(folder)


def test_every_array_is_needed(folder: Path) -> None:
    whole = load_file(folder / FILES[2])
    for name in whole:
        save_file({k: v for k, v in whole.items() if k != name}, folder / FILES[2])
        with pytest.raises(FileError):
            CellDiT.load(folder)


@pytest.mark.parametrize("file", ["config.json", "vocab.json"])
def test_entries_that_are_missing(folder: Path, file: str) -> None:
    whole = (folder / file).read_text()
    # Contexts and perturbations stand there for people only.
    for entry in set(json.loads(whole)) - {"celldit", "contexts", "perturbations", "format"}:
        edit_json(folder / file, lambda c, entry=entry: c.pop(entry))
        with pytest.raises(FileError):
            CellDiT.load(folder)
        (folder / file).write_text(whole)


def test_weights_of_another_model(folder: Path, tiny_model: CellDiT, tmp_path: Path) -> None:
    tiny_model.save(tmp_path / "other")
    (tmp_path / "other" / FILES[2]).replace(folder / FILES[2])
    with pytest.raises(FileError, match=r"not those that config\.json describes"):
        CellDiT.load(folder)


# --- whole or not at all ------------------------------------------------------------------------


def fail(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("where", ["save_file", "_sync", "take_place"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_failed_writes_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, overwrite: bool
) -> None:
    target = tmp_path / "model"
    if overwrite:
        write_folder(target, *SMALL, overwrite=False)
    monkeypatch.setattr(storage if where == "save_file" else replacing, where, fail)
    with pytest.raises(FileError, match="No space left on device"):
        write_folder(target, {"a": 2}, {}, {}, overwrite=overwrite)
    monkeypatch.undo()
    assert os.listdir(tmp_path) == (["model"] if overwrite else [])
    if overwrite:
        assert read_folder(target)[0]["a"] == 1


def test_the_old_model_stays_when_the_new_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "model"
    write_folder(target, *SMALL, overwrite=False)
    monkeypatch.setattr(replacing, "_exchange", lambda *_: False)
    rename, calls = Path.rename, []

    def second_fails(self: Path, to: Path) -> Path:
        calls.append(self)
        return fail() if len(calls) == 2 else rename(self, to)

    monkeypatch.setattr(Path, "rename", second_fails)
    with pytest.raises(FileError):
        write_folder(target, {"a": 2}, {}, {}, overwrite=True)
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["model"]
    assert read_folder(target)[0]["a"] == 1


def test_an_interruption_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(replacing, "_sync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_folder(tmp_path / "model", *SMALL, overwrite=False)
    assert os.listdir(tmp_path) == []


def test_numbers_that_json_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="Cannot write"):
        write_folder(tmp_path / "model", {"a": float("nan")}, {}, {}, overwrite=False)
    assert os.listdir(tmp_path) == []


def test_a_parent_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    with pytest.raises(FileError, match="Cannot write"):
        write_folder(tmp_path / "file" / "model", *SMALL, overwrite=False)


def test_nothing_in_a_folder_is_executed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither pickle nor torch.load takes part in loading."""
    import pickle

    for module, name in ((pickle, "load"), (pickle, "loads"), (torch, "load")):
        monkeypatch.setattr(module, name, fail)
    assert CellDiT.load(folder).is_trained


def test_not_trained(tiny_screen: ad.AnnData, tmp_path: Path) -> None:
    from celldit.errors import NotTrainedError

    with pytest.raises(NotTrainedError, match=r"call model\.train\(\) first"):
        CellDiT(tiny_screen, "modules").save(tmp_path / "model")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("network", [MLPConfig(width=16, depth=1), UNetConfig(width=16)])
def test_every_velocity_network_survives_a_folder(
    train_tiny: Callable[..., CellDiT], tiny_screen: ad.AnnData, tmp_path: Path, network: Any
) -> None:
    model = train_tiny(tiny_screen, dit=network)
    model.save(tmp_path / "m")
    again = CellDiT.load(tmp_path / "m")
    assert again.trained.flow.config == network
    assert_same_model(model, again, tiny_screen)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"There is no .*nowhere"):
        CellDiT.load(tmp_path / "nowhere")


def test_a_folder_that_never_holds_still(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter(range(100))
    monkeypatch.setattr(storage, "_identity", lambda _: (next(moments),))
    with pytest.raises(FileError, match="is being replaced again and again; wait"):
        read_folder(folder)


def test_where_nothing_can_be_written(
    tiny_model: CellDiT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(replacing.tempfile, "mkdtemp", refuse)
    with pytest.raises(FileError, match=r"Cannot write into .*Permission denied"):
        tiny_model.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("place", ["io.model_folder._from_folder", "io.rehearsal.to_folder"])
@pytest.mark.parametrize("error", [AttributeError("x"), AssertionError(), NameError("x")])
def test_mistakes_of_celldit_are_not_laid_on_the_file(
    place: str, error: Exception, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(f"celldit.{place}", fail)
    if isinstance(error, NameError):
        with pytest.raises(NameError):
            CellDiT.load(folder)
        return
    with pytest.raises(FileError, match="if it is as it was saved, report this error of celldit's"):
        CellDiT.load(folder)
