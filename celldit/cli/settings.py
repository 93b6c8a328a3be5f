"""Settings of ``celldit train``: from a TOML file, from the command line, and back to TOML."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from celldit.arguments import check_former, check_known
from celldit.errors import InputError
from celldit.io.files import read_toml

#: By the type of a setting: what a file may hold, and how an error names it.
_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "tuple[str, ...]": ((str, list), "texts"),
    "bool": ((bool,), "true or false"),
    "float": ((int, float), "a number"),
    "int": ((int,), "a whole number"),
    "str | int": ((str, int), "a number"),
    "str": ((str,), "a text"),
}


@dataclass(frozen=True)
class TrainSettings:
    """What ``celldit train`` is told, in three tables of TOML: data, model, train.

    Most are arguments of :class:`celldit.CellDiT`, its setup and its training; `autoencoder`, a
    folder, and the two after it are those of :class:`celldit.Pretrained`. `features` are as
    :func:`celldit.cli.commands.training.read_features` takes them; `accelerator` to `nodes` are
    of Lightning's Trainer, None for its own choice. `training` holds entries of the training
    configuration, which stand in the table ``train``, too.
    """

    perturbation_key: str | None = None
    control: tuple[str, ...] = ("control",)
    covariate_keys: tuple[str, ...] = ()
    size_factor_key: str | None = None
    counts_layer: str | None = None
    dose_key: str | None = None
    time_key: str | None = None
    perturbation_sep: str = "+"
    tokenizer: str | None = None
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

        FileError if there is no such file, or it is not TOML. UnknownNameError if a table or an
        entry is not known; names the closest. InputError if an entry has the wrong type, or only
        earlier versions had it.
        """
        entries: dict[str, Any] = {}
        training: dict[str, Any] = {}
        for table, values in read_toml(path).items():
            check_known([table], _TABLES, f"table in {path}:")
            if not isinstance(values, Mapping):
                raise InputError(f"{table!r} in {path} must be a table, [{table}].")
            more: dict[str, str] = {}
            if table == "train":
                from celldit.training.config import FORMER, TrainingConfig

                check_former(values, FORMER)
                more = _types_of(TrainingConfig)
            for name, value in values.items():
                check_known([name], [*_TABLES[table], *more], f"entry of [{table}] in {path}:")
                wanted = _wanted(value, more.get(name) or _TYPES[name])
                if wanted is not None:
                    raise InputError(f"{name} in {path} must be {wanted}, not {value!r}.")
                (training if name in more else entries)[name] = value
        return replace(cls(training=training), **_as_tuples(entries))

    def updated(self, given: Mapping[str, Any]) -> TrainSettings:
        """What was given on the command line comes first."""
        return replace(self, **_as_tuples(given))

    def to_toml(self) -> str:
        """Write all settings; those that are not set as comments."""
        lines = ["# celldit train --config FILE; options of the command line come first"]
        for table, names in _TABLES.items():
            lines += ["", f"[{table}]"]
            more = {}
            if table == "train":
                from celldit.training.config import TrainingConfig

                more = {**asdict(TrainingConfig()), **self.training}
            for name, value in {**{n: getattr(self, n) for n in names}, **more}.items():
                # JSON writes texts, lists, numbers and truth values as TOML does.
                lines.append(f"# {name} =" if value is None else f"{name} = {json.dumps(value)}")
        return "\n".join(lines) + "\n"

    def setup_arguments(self) -> dict[str, Any]:
        """Arguments of :meth:`celldit.CellDiT.setup_anndata`."""
        return {name: getattr(self, name) for name in _TABLES["data"]}

    def model_arguments(self) -> dict[str, Any]:
        """Arguments of :class:`celldit.CellDiT`."""
        shape = {"tokenizer": self.tokenizer, "latent": self.latent}
        if self.autoencoder is None:
            return shape
        from celldit.pretrained import Pretrained

        start = Pretrained(self.autoencoder, self.min_overlap, self.train_autoencoder)
        return {**shape, "autoencoder": start}

    def trainer_arguments(self) -> dict[str, Any]:
        """Arguments of Lightning's Trainer that were given."""
        devices = self.devices
        if isinstance(devices, str) and devices.isdigit():
            devices = int(devices)
        named = {
            "accelerator": self.accelerator,
            "devices": devices,
            "strategy": self.strategy,
            "num_nodes": self.nodes,
        }
        return {name: value for name, value in named.items() if value is not None}


def _types_of(settings: type) -> dict[str, str]:
    """The type of each field as it is written, None aside."""
    return {f.name: str(f.type).removesuffix(" | None") for f in fields(settings)}


_TYPES = _types_of(TrainSettings)
_NAMES = [name for name in _TYPES if name != "training"]
#: Settings by table, in their order.
_TABLES = {
    "data": _NAMES[: _NAMES.index("tokenizer")],
    "model": _NAMES[_NAMES.index("tokenizer") : _NAMES.index("max_epochs")],
    "train": _NAMES[_NAMES.index("max_epochs") :],
}


def _as_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they are kept, where lists are tuples and one text is a list of one."""
    kept = dict(values)
    for name, value in values.items():
        if _TYPES[name] == "tuple[str, ...]":
            kept[name] = (value,) if isinstance(value, str) else tuple(value)
    return kept


def _wanted(value: Any, written: str) -> str | None:
    """What a setting must be by its type, if it is something else."""
    kinds, wanted = _KINDS[written]
    good = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
    if isinstance(value, list):
        good = good and all(isinstance(item, str) for item in value)
    return None if good else wanted
