"""Settings of ``celldit train``: from a TOML file, from the command line, and back to TOML."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from celldit.arguments import check_former
from celldit.errors import InputError, UnknownNameError
from celldit.io.files import read_toml

__all__ = ["TrainSettings"]

_TABLES: dict[str, tuple[str, ...]] = {
    "data": (
        "perturbation_key",
        "control",
        "covariate_keys",
        "size_factor_key",
        "counts_layer",
        "dose_key",
        "time_key",
        "perturbation_sep",
    ),
    "model": (
        "tokenizer",
        "latent",
        "autoencoder",
        "min_overlap",
        "train_autoencoder",
        "features",
        "effects",
        "dit",
    ),
    "train": ("max_epochs", "seed", "accelerator", "devices", "strategy", "nodes"),
}
_NUMBERS = ("max_epochs", "seed", "nodes")
_LISTS = ("control", "covariate_keys", "features", "effects")


@dataclass(frozen=True)
class TrainSettings:
    """What ``celldit train`` is told, in three tables of TOML: data, model, train.

    Parameters
    ----------
    perturbation_key, control, covariate_keys, size_factor_key, counts_layer, dose_key, time_key, \
perturbation_sep
        As in :meth:`celldit.CellDiT.setup_anndata`.
    tokenizer, latent, dit
        As in :class:`celldit.CellDiT`.
    autoencoder, min_overlap, train_autoencoder
        Folder of a model to borrow the autoencoder of, and how, as in :class:`celldit.Pretrained`.
    features
        Sources, as :func:`celldit.cli.train_features.read_features` takes them.
    effects
        Files of effects that others measured, as in :class:`celldit.CellDiT`.
    max_epochs, seed
        As in :meth:`celldit.CellDiT.train`.
    accelerator, devices, strategy, nodes
        Of Lightning's Trainer (``num_nodes`` there); None for its own choice.
    training
        Entries of the training configuration, which stand in the table ``train``, too.
    """

    perturbation_key: str | None = None
    control: tuple[str, ...] = ("control",)
    covariate_keys: tuple[str, ...] = ()
    size_factor_key: str | None = None
    counts_layer: str | None = None
    dose_key: str | None = None
    time_key: str | None = None
    perturbation_sep: str = "+"
    tokenizer: str = "gene_sets"
    latent: str = "pca"
    autoencoder: str | None = None
    min_overlap: float = 0.5
    train_autoencoder: bool = True
    features: tuple[str, ...] = ()
    effects: tuple[str, ...] = ()
    dit: str = "S"
    max_epochs: int | None = None
    seed: int = 0
    accelerator: str | None = None
    devices: str | int | None = None
    strategy: str | None = None
    nodes: int | None = None
    training: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path | None) -> TrainSettings:
        """Those of a file; of none, the defaults."""
        return cls() if path is None else cls.from_toml(path)

    @classmethod
    def from_toml(cls, path: Path) -> TrainSettings:
        """Read a file as :meth:`to_toml` writes it; entries may be left out.

        Raises
        ------
        FileError
            If there is no such file, or it is not TOML.
        UnknownNameError
            If a table or an entry is not known; names the closest.
        InputError
            If an entry has the wrong type, or only earlier versions had it.
        """
        content = read_toml(path)
        entries: dict[str, Any] = {}
        training: dict[str, Any] = {}
        for table, values in content.items():
            if table not in _TABLES:
                raise UnknownNameError.among(f"table in {path}:", table, _TABLES)
            if not isinstance(values, Mapping):
                raise InputError(f"{table!r} in {path} must be a table, [{table}].")
            if table == "train":
                check_former(values, former_options())
            for name, value in values.items():
                more = training_defaults() if table == "train" else {}
                if name not in _TABLES[table] and name not in more:
                    known = [*_TABLES[table], *more]
                    raise UnknownNameError.among(f"entry of [{table}] in {path}:", name, known)
                _check_type(name, value, more, path)
                (training if name in more else entries)[name] = value
        for name in _LISTS:
            listed = entries.get(name, getattr(cls, name, ()))
            entries[name] = (listed,) if isinstance(listed, str) else tuple(listed)
        return cls(**entries, training=training)

    def updated(self, given: Mapping[str, Any]) -> TrainSettings:
        """What was given on the command line comes first; None and empty were not given."""
        said: dict[str, Any] = {
            name: tuple(value) if name in _LISTS else value
            for name, value in given.items()
            if value is not None
        }
        return replace(self, **{name: value for name, value in said.items() if value != ()})

    def to_toml(self) -> str:
        """Write all settings; those that are not set as comments."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        lines = ["# celldit train --config FILE; options of the command line come first"]
        for table, names in _TABLES.items():
            lines += ["", f"[{table}]"]
            more = {**training_defaults(), **self.training} if table == "train" else {}
            for name, value in {**{n: values[n] for n in names}, **more}.items():
                lines.append(f"# {name} =" if value is None else f"{name} = {_toml(value)}")
        return "\n".join(lines) + "\n"

    def setup_arguments(self) -> dict[str, Any]:
        """Arguments of :meth:`celldit.CellDiT.setup_anndata`."""
        return {name: getattr(self, name) for name in _TABLES["data"]}

    def model_arguments(self) -> dict[str, Any]:
        """Arguments of :class:`celldit.CellDiT`; a borrowed autoencoder has its own tokenizer."""
        if self.autoencoder is None:
            return {"tokenizer": self.tokenizer, "latent": self.latent}
        from celldit.pretrained import Pretrained

        start = Pretrained(self.autoencoder, self.min_overlap, self.train_autoencoder)
        chosen = None if self.tokenizer == TrainSettings.tokenizer else self.tokenizer
        return {"tokenizer": chosen, "latent": self.latent, "autoencoder": start}

    def trainer_arguments(self) -> dict[str, Any]:
        """Arguments of Lightning's Trainer that were given."""
        named: dict[str, Any] = {
            n: getattr(self, n) for n in ("accelerator", "devices", "strategy")
        }
        if isinstance(self.devices, str) and self.devices.isdigit():
            named["devices"] = int(self.devices)
        named["num_nodes"] = self.nodes
        return {name: value for name, value in named.items() if value is not None}


def training_defaults() -> dict[str, Any]:
    """The entries of the training configuration and their defaults."""
    from celldit.training.config import TrainingConfig

    return asdict(TrainingConfig())


def former_options() -> dict[str, str]:
    """Entries that the training configuration had, and what to do instead."""
    from celldit.training.config import FORMER

    return FORMER


def _check_type(name: str, value: Any, more: Mapping[str, Any], path: Path) -> None:
    if name in _LISTS:
        listed = [value] if isinstance(value, str) else value
        good, wanted = isinstance(listed, list) and all(isinstance(k, str) for k in listed), "texts"
    elif name == "train_autoencoder":
        good, wanted = isinstance(value, bool), "true or false"
    elif name == "min_overlap":
        good, wanted = isinstance(value, (int, float)) and not isinstance(value, bool), "a number"
    elif name in _NUMBERS:
        good, wanted = isinstance(value, int) and not isinstance(value, bool), "a whole number"
    elif name in more:
        kind = type(more[name])
        whole = (int,) if more[name] is None or kind is int else ()
        kinds: tuple[type, ...] = whole or ((int, float) if kind is float else (kind,))
        good = isinstance(value, kinds) and (kind is bool or not isinstance(value, bool))
        wanted = "a whole number" if whole else f"of type {kind.__name__}"
    elif name == "devices":
        good, wanted = isinstance(value, (int, str)) and not isinstance(value, bool), "a number"
    else:
        good, wanted = isinstance(value, str), "a text"
    if not good:
        raise InputError(f"{name} in {path} must be {wanted}, not {value!r}.")


def _toml(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    # JSON writes texts, numbers and truth values as TOML does.
    return json.dumps(value, ensure_ascii=True)
