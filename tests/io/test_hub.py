"""Models go to the hub and come back; a local folder plays the hub."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from celldit import CellDiT
from celldit.errors import FileError, InputError, NotTrainedError
from celldit.io.hub import model_card


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which repositories are folders."""
    root = tmp_path / "hub"

    class Api:
        def __init__(self, token: str | None = None) -> None:
            self.token = token

        def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
            if self.token == "wrong":
                raise OSError("401 Client Error: Unauthorized\nmore")
            (root / repo_id).mkdir(parents=True, exist_ok=exist_ok)

        def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> None:
            assert commit_message.startswith("celldit model")
            shutil.copytree(folder_path, root / repo_id, dirs_exist_ok=True)

    def snapshot_download(
        repo_id: str, *, revision: Any, token: Any, local_dir: str, allow_patterns: list[str]
    ) -> str:
        if not (root / repo_id).is_dir():
            raise OSError("404 Client Error: Repository Not Found")
        Path(local_dir).mkdir(parents=True)
        for name in allow_patterns:
            if (root / repo_id / name).exists():
                shutil.copy(root / repo_id / name, local_dir)
        return local_dir

    fake = SimpleNamespace(HfApi=Api, snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    return root


def test_there_and_back(tiny_model: CellDiT, hub: Path) -> None:
    address = tiny_model.push_to_hub("lab/screen", licence="cc-by-4.0", data="Made-up cells.")
    assert address.endswith("lab/screen")
    assert {path.name for path in (hub / "lab/screen").iterdir()} == {
        "README.md", "config.json", "vocab.json", "weights.safetensors",
    }  # fmt: skip
    again = CellDiT.from_hub("lab/screen")
    before, after = (m.predict_effects(["A"])["log_fold_change"] for m in (tiny_model, again))
    np.testing.assert_allclose(after, before, atol=1e-6)
    tiny_model.push_to_hub("lab/screen")


def test_the_card_tells_data_scores_and_limits(tiny_model: CellDiT) -> None:
    card = model_card(tiny_model.trained, licence="cc-by-4.0", data="Made-up cells.")
    for told in (
        'license: "cc-by-4.0"',
        "Made-up cells.",
        "480 cells, 40 genes",
        "3 perturbations: A, B, C",
        "3 contexts: d1, d2, d3",
        "held out:",
        "## Limits",
        tiny_model.trained.model_id,
    ):
        assert told in card
    assert card.startswith("---\nlibrary_name: celldit\n")


def test_names_mean_nothing_in_the_card(tiny_model: CellDiT) -> None:
    from celldit.io.hub import _some

    assert _some(["<b>x</b>", "a\n---\nb"]) == r"\<b\>x\</b\>, a --- b"


def test_refused(tiny_model: CellDiT, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("screen", "a/b/c", "/x", 3):
        with pytest.raises(InputError, match="owner/name"):
            tiny_model.push_to_hub(name)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="owner/name"):
            CellDiT.from_hub(name)  # type: ignore[arg-type]
    with pytest.raises(FileError, match=r"401 Client Error: Unauthorized\); check the name"):
        tiny_model.push_to_hub("lab/screen", token="wrong")
    with pytest.raises(FileError, match="Not Found"):
        CellDiT.from_hub("lab/none")
    (hub / "lab/empty").mkdir(parents=True)
    with pytest.raises(FileError):
        CellDiT.from_hub("lab/empty")
    untrained = CellDiT.__new__(CellDiT)
    untrained._trained = None
    with pytest.raises(NotTrainedError):
        untrained.push_to_hub("lab/screen")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(FileError, match=r"celldit\[hub\]"):
        CellDiT.from_hub("lab/screen")
