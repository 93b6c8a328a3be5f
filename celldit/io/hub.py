"""Models on the Hugging Face hub: the folder of a model and its card, up and down.

The card says what a model was trained on, what it can do, how well, and what it cannot.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from celldit import __version__
from celldit.errors import FileError, InputError, reason_of
from celldit.io.files import write_text
from celldit.io.folders import CONFIG, VOCAB, WEIGHTS, best_of
from celldit.io.model_folder import save_trained
from celldit.training.trained import Trained

CARD = "README.md"
LISTED = 40


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


def model_card(trained: Trained, *, licence: str = "", data: str = "") -> str:
    """Markdown with the front matter that hubs read.

    `licence` is that of the model, ``other`` where nothing is said; `data` a sentence on what it
    was trained on.
    """
    contexts = sorted({c.context for c in trained.frequencies} - {""})
    weight = {str(kind): round(w, 3) for kind, w in trained.flow_weight.items() if w}
    card = files("celldit.io").joinpath("model_card.md").read_text(encoding="utf-8")
    return Template(card).substitute(
        licence=json.dumps(licence or "other"),
        data=f"{data}\n\n" if data else "",
        n_cells=f"{sum(trained.frequencies.values()):,}",
        n_genes=f"{len(trained.genes):,}",
        genes=_some(trained.genes, 8),
        n_perturbations=len(trained.perturbations),
        perturbations=_some(trained.perturbations),
        n_contexts=max(len(contexts), 1),
        contexts=f": {_some(contexts)}" if contexts else "",
        features=_some(sorted(trained.features)) or "none",
        tables=_lines(_tables(trained)),
        scores=_lines(_scores(trained)),
        weight=_pairs(weight) or "none, it is the effect model alone",
        model=trained.model_id,
        version=__version__,
        seed=trained.trained_with.get("seed", "unknown"),
    )


def _lines(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _some(names: Sequence[str], limit: int = LISTED) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(_plain(name) for name in names[:limit]) + more


def _plain(name: str) -> str:
    """A name in which Markdown and HTML mean nothing."""
    flat = " ".join(str(name).split())
    return "".join(f"\\{c}" if c in r"\`*_[]<>|#" else c for c in flat)


def _pairs(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in values.items())


def _scores(trained: Trained) -> list[str]:
    """The best of each number that training held out."""
    found = []
    for stage, epochs in trained.history.items():
        if best := best_of(epochs):
            found.append(f"- {stage}, held out: {_pairs(best)}")
    return found


def _tables(trained: Trained) -> list[str]:
    """Effects that others measured, with their licences."""
    lines = []
    for name, said in trained.elsewhere.provenance.items():
        source, licence = (_plain(said[what]) or "not told" for what in ("source", "licence"))
        lines.append(
            f"- effects measured elsewhere: {_plain(name)} (source: {source}, licence: {licence}), "
            f"reliability {said['reliability']:.2f}"
        )
    return lines
