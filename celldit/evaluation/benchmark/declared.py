"""A benchmark declared in a TOML file: data sets, what to hold out of them, methods and seeds."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import anndata as ad

from celldit.data import setup_anndata, split
from celldit.data.fields import Fields
from celldit.data.holdout import Conditions
from celldit.errors import InputError, UnknownNameError
from celldit.evaluation.benchmark.problems import DATASETS, Problem, set_up
from celldit.io.files import read_h5ad, read_toml

_TOP = ("methods", "seeds", "max_epochs", "data", "problem")
_DATA = ("name", "path", *(name for name in signature(setup_anndata).parameters if name != "adata"))
_PROBLEM = ("data", "by", "test", "fraction", "n_seen", "split_seed", "each", "name")
_WAYS = ("perturbation", "combination", "context", "pair")


@dataclass(frozen=True, eq=False)
class Declaration:
    """What a file asks for.

    Parameters
    ----------
    problems
        What to hold out of which data set.
    data
        The user's own data sets, set up, by name; bundled ones are loaded when needed.
    methods
        Names; empty for all.
    seeds
        Of training and prediction.
    max_epochs
        Most epochs of each stage of celldit; None lets it choose.
    """

    problems: list[Problem]
    data: dict[str, ad.AnnData]
    methods: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    max_epochs: int | None = None


def read_declaration(path: str | Path) -> Declaration:
    """Read and check a declared benchmark.

    Parameters
    ----------
    path
        TOML. At the top ``methods``, ``seeds`` and ``max_epochs``, all optional; a table
        ``[[data]]`` for each data set of the user's own, with ``name``, ``path`` (relative to the
        file) and what ``setup_anndata`` takes; a table ``[[problem]]`` for each thing to hold out,
        with ``data``, ``by`` and ``test``, or ``fraction`` and ``split_seed`` to draw it.
        ``each = true`` makes a problem of each unit alone.

    Raises
    ------
    FileError
        If the file cannot be read or is not TOML.
    InputError, UnknownNameError
        If it says something that cannot be understood, with the place.
    """
    file = Path(path)
    content = read_toml(file)
    _check_keys(content, _TOP, f"{file.name}")
    data: dict[str, ad.AnnData] = {}
    sources: dict[str, str] = {}
    for number, entry in enumerate(_tables(content, "data", file), 1):
        where = f"{file.name}, [[data]] {number}"
        _check_keys(entry, _DATA, where)
        name = _text(entry, "name", where)
        if name in DATASETS or name in data:
            raise InputError(f"{where}: the name {name!r} is taken; choose another.")
        own = file.parent / _text(entry, "path", where)
        adata = read_h5ad(own)
        setup_anndata(adata, **{k: v for k, v in entry.items() if k not in ("name", "path")})
        data[name] = adata
        sources[name] = hashlib.blake2b(own.read_bytes(), digest_size=8).hexdigest()
    problems: list[Problem] = []
    for number, entry in enumerate(_tables(content, "problem", file), 1):
        where = f"{file.name}, [[problem]] {number}"
        _check_keys(entry, _PROBLEM, where)
        problems += _problems(entry, where, data, sources)
    if not problems:
        raise InputError(f"{file.name} has no table [[problem]], so there is nothing to run.")
    names = [(p.dataset, p.name) for p in problems]
    for dataset, name in names:
        if names.count((dataset, name)) > 1:
            raise InputError(
                f"{file.name} has two problems named {name!r} of {dataset}; give them a name=."
            )
    return Declaration(
        problems=problems,
        data=data,
        methods=_list_of(content, "methods", str, file),
        seeds=_list_of(content, "seeds", int, file) or (0,),
        max_epochs=content.get("max_epochs"),
    )


def _problems(
    entry: Mapping[str, Any],
    where: str,
    data: Mapping[str, ad.AnnData],
    sources: Mapping[str, str],
) -> list[Problem]:
    dataset = _text(entry, "data", where)
    if dataset not in data and dataset not in DATASETS:
        raise UnknownNameError.among(f"data in {where}", dataset, [*data, *DATASETS])
    by: Any = _text(entry, "by", where)
    if by not in _WAYS:
        raise UnknownNameError.among(f"by in {where}", by, _WAYS)
    if ("test" in entry) == ("fraction" in entry):
        raise InputError(f"{where} needs either test, what to hold out, or fraction, to draw it.")
    adata = data[dataset] if dataset in data else set_up(dataset)
    if "test" in entry:
        listed = entry["test"]
        if not isinstance(listed, list) or not listed:
            raise InputError(f'{where}: test must be a list, such as ["STAT1"].')
        units = [tuple(unit) if isinstance(unit, list) else str(unit) for unit in listed]
    else:
        units = _drawn(adata, by, entry)
    source = sources.get(dataset, "")
    if entry.get("each", False):
        return [
            Problem(dataset, f"{_said([unit])} alone", by, (unit,), f"each {by}", source)
            for unit in units
        ]
    name = str(entry.get("name", _said(units)))
    return [Problem(dataset, name, by, tuple(units), name, source)]


def _drawn(adata: ad.AnnData, by: Any, entry: Mapping[str, Any]) -> list[Any]:
    """What ``split`` draws, as units that can be named."""
    copy = ad.AnnData(obs=adata.obs.copy(), uns=dict(adata.uns), shape=(adata.n_obs, 0))
    copy.obs_names = adata.obs_names
    split(
        copy,
        by,
        fraction=float(entry["fraction"]),
        n_seen=entry.get("n_seen"),
        seed=int(entry.get("split_seed", 0)),
        key_added="_side",
    )
    fields = Fields.from_anndata(adata)
    held = Conditions.from_anndata(copy[(copy.obs["_side"] == "test").to_numpy()], fields)
    perturbed = ~held.is_control
    labels, contexts = held.labels[perturbed], held.contexts[perturbed]
    if by == "context":
        return sorted(set(contexts))
    if by == "pair":
        return sorted(set(zip(labels, contexts, strict=True)))
    return sorted(set(labels))


def _said(units: Sequence[Any]) -> str:
    names = [" in ".join(u) if isinstance(u, tuple) else str(u) for u in units]
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _tables(content: Mapping[str, Any], key: str, file: Path) -> list[dict[str, Any]]:
    tables = content.get(key, [])
    if not isinstance(tables, list) or not all(isinstance(one, dict) for one in tables):
        raise InputError(f"{file.name}: write [[{key}]], with two brackets, for each {key}.")
    return tables


def _check_keys(entry: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in entry:
        if key not in known:
            raise UnknownNameError.among(f"entry in {where}:", key, known)


def _text(entry: Mapping[str, Any], key: str, where: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value:
        raise InputError(f'{where} needs {key} = "...".')
    return value


def _list_of(content: Mapping[str, Any], key: str, kind: type, file: Path) -> tuple[Any, ...]:
    values = content.get(key, [])
    right = isinstance(values, list) and all(
        isinstance(v, kind) and not isinstance(v, bool) for v in values
    )
    if not right:
        what = "names" if kind is str else "whole numbers"
        raise InputError(f"{file.name}: {key} must be a list of {what}.")
    return tuple(dict.fromkeys(values))
