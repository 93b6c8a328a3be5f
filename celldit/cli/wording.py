"""Sentences that name Python's arguments, said with the options of the terminal."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial

__all__ = ["in_terminal"]

# Arguments of CellDiT's methods and the options that stand for them. The short names are words
# of English, too, so they are changed only where an equals sign makes them arguments.
OPTIONS = {
    "perturbation_key": "--perturbation-key",
    "covariate_keys": "--covariate-key",
    "size_factor_key": "--size-factor-key",
    "counts_layer": "--counts-layer",
    "dose_key": "--dose-key",
    "time_key": "--time-key",
    "perturbation_sep": "--perturbation-sep",
    "max_epochs": "--max-epochs",
    "checkpoint_dir": "--checkpoint",
    "checkpoint_minutes": "--checkpoint-minutes",
    "num_nodes": "--nodes",
    "n_steps": "--n-steps",
    "batch_size": "--batch-size",
    "min_cells": "--min-cells",
    "n_cells": "N",
    "control": "--control",
    "tokenizer": "--tokenizer",
    "latent": "--latent",
    "autoencoder": "--autoencoder",
    "min_overlap": "--min-overlap",
    "dit": "--dit",
    "seed": "--seed",
    "accelerator": "--accelerator",
    "device": "--device",
    "devices": "--devices",
    "strategy": "--strategy",
    "dose": "--dose",
    "time": "--time",
    "sampler": "--sampler",
    "solver": "--solver",
    "grid": "--grid",
    "guidance": "--guidance",
    "guidance_interval": "--guidance-interval",
    "n_avg": "--n-avg",
    "t_start": "--t-start",
    "like": "--like",
    "out": "--output",
    "shard": "--shard",
    "perturbations": "--perturbation",
}

# What a whole call becomes, before its parts are looked at.
_CALLS = (
    (
        r"config=TrainingConfig\((\w+)=([^()]+)\)",
        r"--config FILE with \1 = \2 in its table [train]",
    ),
    (r"config=TrainingConfig\(\.\.\.\)", "--config FILE"),
    (
        r'CellDiT\(adata, features=cd\.pp\.gene_features\(adata, source="(\w+)"\)\), or features= '
        "a DataFrame of your own",
        r"celldit train --features \1, or --features FILE.csv of your own",
    ),
    (
        r"call (?:celldit\.)?(?:CellDiT\.)?setup_anndata\([^)]*\)(?: first)?",
        "give --perturbation-key COLUMN",
    ),
    (r" to (?:celldit\.)?CellDiT\.setup_anndata\b", ""),
    (r" of (?:celldit\.)?CellDiT\.setup_anndata\b", ""),
    (
        r"pass adata\.raw\.to_adata\(\) instead of adata",
        "write adata.raw.to_adata() to a file of its own in Python, and give that",
    ),
    (r"model\.predict\(\.\.\., missing=\"impute\"\)", "--missing impute"),
    (r"\bedit= is (.+); leave it out", r"--n-avg and --t-start are \1; leave them out"),
    (r"\badata\.(obs|X|layers|var_names|raw)\b(?!\.)", r"\1"),
)
_VALUE = r"""("[^"]*"|'[^']*'|\.\.\.|\[[^\]]*\]|\([^()]*\)|[\w.+-]*\w)?"""


def in_terminal(sentence: str, renamed: Mapping[str, str] | None = None) -> str:
    """Say a sentence about Python's arguments with the options of a command.

    Parameters
    ----------
    sentence
        Such as ``pass counts_layer='raw'``.
    renamed
        Arguments that a command calls by other options than the rest.

    Returns
    -------
    str
        Such as ``pass --counts-layer raw``. What names no option stays as it is.
    """
    for pattern, replacement in _CALLS:
        sentence = re.sub(pattern, replacement, sentence)
    sentence = sentence.replace("overwrite=True", "--overwrite")
    for name, option in {**OPTIONS, **(renamed or {})}.items():
        sentence = re.sub(rf"(?<![\w.'\"-]){name}={_VALUE}", partial(_said, option), sentence)
        if "_" in name:
            # Not as an entry of a settings file, which has the name that Python has.
            sentence = re.sub(rf"(?<![\w.'\"-]){name}(?![\w'\"=]| in \S+ must)", option, sentence)
    return sentence


def _said(option: str, found: re.Match[str]) -> str:
    value: str | None = found[1]
    if value is None:
        return option
    if value == "...":
        return f"{option} NAME"
    if value[0] == "(":
        return f"{option} {value[1:-1].replace(',', '')}"
    bare = value[1:-1] if value[0] in "'\"" else value
    return f"{option} {bare if bare and ' ' not in bare else value}"
