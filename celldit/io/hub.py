"""Models on the Hugging Face hub: the folder of a model and a card, up and down."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from celldit.errors import FileError, InputError, reason_of
from celldit.io.card import model_card
from celldit.io.files import write_text
from celldit.io.folders import CONFIG, VOCAB, WEIGHTS
from celldit.io.model_folder import save_trained
from celldit.training.trained import Trained

CARD = "README.md"


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise FileError(
            'The hub needs huggingface_hub; pip install "celldit[hub]", or share the folder that '
            "model.save() writes."
        ) from error
    return huggingface_hub


def push(
    trained: Trained,
    repo_id: str,
    *,
    licence: str = "",
    data: str = "",
    private: bool = True,
    token: str | None = None,
) -> str:
    """Upload a model with its card; see :meth:`celldit.CellDiT.push_to_hub`."""
    _check_repo(repo_id)
    hub = _hub()
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        save_trained(trained, model, overwrite=False)
        write_text(model / CARD, model_card(trained, licence=licence, data=data))
        with _asking(f"{repo_id} could not be written to the hub"):
            api = hub.HfApi(token=token)
            api.create_repo(repo_id, private=private, exist_ok=True)
            said = f"celldit model {trained.model_id}"
            api.upload_folder(repo_id=repo_id, folder_path=str(model), commit_message=said)
    return f"https://huggingface.co/{repo_id}"


@contextmanager
def pulled(
    repo_id: str, *, revision: str | None = None, token: str | None = None
) -> Iterator[Path]:
    """Download the three files of a model into a folder that is there for the time of a block."""
    _check_repo(repo_id)
    hub = _hub()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "model"
        with _asking(f"{repo_id} could not be read from the hub"):
            hub.snapshot_download(
                repo_id,
                revision=revision,
                token=token,
                local_dir=str(folder),
                allow_patterns=[CONFIG, VOCAB, WEIGHTS],
            )
        yield folder


@contextmanager
def _asking(failed: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        raise FileError(
            f"{failed} ({reason_of(error)}); check the name, the connection and the token "
            "(huggingface-cli login)."
        ) from error


def _check_repo(repo_id: object) -> None:
    """Refuse what is no name of a repository."""
    parts = repo_id.split("/") if isinstance(repo_id, str) else []
    if len(parts) != 2 or not all(parts) or any(os.sep in part for part in parts):
        raise InputError(
            f"repo_id={repo_id!r} names no repository of the hub; write it as 'owner/name'."
        )
