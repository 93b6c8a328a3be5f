"""Sentences that name Python's arguments, said with the options of the terminal."""

from __future__ import annotations

import re
from functools import partial

# Arguments of CellDiT's methods and the options that stand for them. The short names are words
# of English, too, so they are changed only where an equals sign makes them arguments.
_ALIKE = """
    perturbation_key size_factor_key counts_layer dose_key time_key perturbation_sep
    max_epochs checkpoint_minutes n_steps batch_size min_cells control tokenizer latent
    autoencoder min_overlap dit seed accelerator device devices strategy dose time
    sampler solver grid guidance guidance_interval n_avg t_start like shard
    target max_cells start end perturbation about preset engine key_added
    min_change guide_key
"""
OPTIONS = {name: f"--{name.replace('_', '-')}" for name in _ALIKE.split()} | {
    "covariate_keys": "--covariate-key",
    "checkpoint_dir": "--checkpoint",
    "num_nodes": "--nodes",
    "n_cells": "N",
    "out": "--output",
    "save": "--figure",
    "perturbations": "--perturbation",
    "candidates": "--candidate",
    "contexts": "--context",
    "metrics": "--metric",
    "source": "--from",
    "shares": "--share",
    "times": "--time",
    "targets": "--target",
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
    (
        r'model\.predict_effects\(\.\.\., out="effects\.zarr"\)',
        "celldit predict --effects-output effects.zarr",
    ),
    (r"\bas baselines=", "as --control-cells FILE"),
    (r"^source selects", "--from selects"),
    (r"^target selects", "--target selects"),
    (r"use cd\.open_store\(path, [^)]*\)", "give --perturbation-key COLUMN"),
    (
        r"train from disk with celldit\.open_store",
        "train on a .zarr or a folder of .h5ad files, which stay on disk",
    ),
    (
        r"CellDiT\(adata, features=cd\.pp\.gene_features\(adata\)\)",
        "celldit train --features reactome",
    ),
    (
        r'made into a table with cd\.pp\.gene_features\(adata, source="(\w+)"\)',
        r"given by name, --features \1",
    ),
    (r",? to (?:celldit\.)?CellDiT\.setup_anndata\b", ""),
    (r" of (?:celldit\.)?CellDiT\.setup_anndata\b", ""),
    (
        r"pass adata\.raw\.to_adata\(\) instead of adata",
        "write adata.raw.to_adata() to a file of its own in Python, and give that",
    ),
    (r"model\.predict\(\.\.\., missing=\"impute\"\)", "--missing impute"),
    (r"\bedit= is (.+); leave it out", r"--n-avg and --t-start are \1; leave them out"),
    (r"""\btargets\[(?:'[^']*'|"[^"]*")\]=""", "target="),
    (r"\badata\.(obs|X|layers|var_names|raw)\b(?!\.)", r"\1"),
)
_VALUE = r"""("[^"]*"|'[^']*'|\.\.\.|\[[^\]]*\]|\([^()]*\)|[\w.+-]*\w)?"""


def in_terminal(sentence: str) -> str:
    """Say a sentence about Python's arguments with the options of a command.

    ``pass counts_layer='raw'`` becomes ``pass --counts-layer raw``. What names no option stays as
    it is.
    """
    for pattern, replacement in _CALLS:
        sentence = re.sub(pattern, replacement, sentence)
    sentence = sentence.replace("overwrite=True", "--overwrite")
    for name, option in OPTIONS.items():
        # Two equals signs compare, in a query.
        given = rf"(?<![\w.'\"-]){name}=(?!=){_VALUE}"
        sentence = re.sub(given, partial(_said, option), sentence)
        if "_" in name:
            # Not as an entry of a settings file, which has the name that Python has.
            sentence = re.sub(rf"(?<![\w.'\"-]){name}(?![\w'\"=]| in \S+ must)", option, sentence)
    return sentence


def _said(option: str, found: re.Match[str]) -> str:
    value: str | None = found[1]
    if value is None:
        return option
    if value.strip("'[]") == "...":
        return f"{option} NAME"
    if value[0] == "(":
        return f"{option} {value[1:-1].replace(',', '')}"
    listed = re.findall(r"""'[^']*'|"[^"]*\"""", value) if value[0] == "[" else []
    return " ".join(f"{option} {_bare(text)}" for text in listed or [value])


def _bare(text: str) -> str:
    """A text as it is typed: without quotation marks where no blank asks for them."""
    bare = text[1:-1] if text[0] in "'\"" else text
    return bare if bare and " " not in bare else text
