"""Options of figures that cannot be used."""

from __future__ import annotations

import pandas as pd
import scanpy as sc

from .case import Case, Scope
from .tools import draw

PALETTE = r"(?:as in|such as) palette='(?P<name>\w+)'"


def heatmap(s: Scope, **options: object) -> object:
    return draw("effect_heatmap", s.effects, **options)


def symbols(s: Scope) -> pd.Series:
    return pd.Series([f"S{i}" for i in range(s.adata.n_vars)], index=s.adata.var_names)


def into_scanpys_folder(s: Scope, name: str) -> object:
    before = sc.settings.figdir
    sc.settings.figdir = s.folder / name
    try:
        return heatmap(s, save=True)
    finally:
        sc.settings.figdir = before


CASES = {
    "a size that is none": Case(
        lambda s: heatmap(s, figsize=3), r"as in \((?P<x>\d+), (?P<y>\d+)\)",
        lambda s, m: heatmap(s, figsize=(int(m["x"]), int(m["y"])))),
    "a palette that is none": Case(
        lambda s: heatmap(s, palette=3), PALETTE, lambda s, m: heatmap(s, palette=m["name"])),
    "a colour map that is none": Case(
        lambda s: heatmap(s, palette="plasmma"), "Did you mean '(?P<name>[^']+)'",
        lambda s, m: heatmap(s, palette=m["name"])),
    "a palette by name for numbers": Case(
        lambda s: heatmap(s, palette={"A": "red"}), PALETTE,
        lambda s, m: heatmap(s, palette=m["name"])),
    "a palette of too few colours": Case(
        lambda s: draw("volcano", s.effects, context="d1", palette=["red"]), PALETTE,
        lambda s, m: draw("volcano", s.effects, context="d1", palette=m["name"])),
    "a palette for what is not drawn": Case(
        lambda s: draw("volcano", s.effects, context="d1", palette={"upp": "red"}),
        "Did you mean '(?P<name>[^']+)'",
        lambda s, m: draw("volcano", s.effects, context="d1", palette={m["name"]: "red"})),
    "symbols that are none": Case(
        lambda s: heatmap(s, gene_symbols=3), r"as in gene_symbols=adata\.var\['symbol'\]",
        lambda s, m: heatmap(s, gene_symbols=symbols(s))),
    "a column of symbols that is none": Case(
        lambda s: heatmap(s, gene_symbols="lfsrr"), "Did you mean '(?P<name>[^']+)'",
        lambda s, m: heatmap(s, gene_symbols=m["name"])),
    "a folder of figures that is a file": Case(
        lambda s: ((s.folder / "f").write_text(""), into_scanpys_folder(s, "f")),
        "Cannot write the figure",
        lambda s, m: into_scanpys_folder(s, "figures")),
}  # fmt: skip
