"""Of MuData."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import celldit as cd

from .case import SETUP, Case, Scope


def mudata(s: Scope) -> Any:
    """What celldit needs of a MuData."""
    rna = s.adata.copy()
    rna.uns.clear()
    return SimpleNamespace(mod={"rna": rna, "adt": rna[:, :2].copy()}, obs=rna.obs)


def setup(mdata: Any, **options: Any) -> Any:
    cd.CellDiT.setup_anndata(mdata, **SETUP, **options)
    return mdata


def model(mdata: Any) -> cd.CellDiT:
    return cd.CellDiT(mdata, tokenizer="modules")


CASES = {
    "a MuData without its modality": Case(
        lambda s: setup(mudata(s)), "such as mod='(?P<mod>[^']+)'",
        lambda s, m: setup(mudata(s), mod=m["mod"])),
    "a modality that is none": Case(
        lambda s: setup(mudata(s), mod="rnaa"), "Did you mean '(?P<mod>[^']+)'",
        lambda s, m: setup(mudata(s), mod=m["mod"])),
    "a modality of an AnnData": Case(
        lambda s: setup(s.adata, mod="rna"), "leave mod= out", lambda s, m: setup(s.adata)),
    "a MuData that was not set up": Case(
        lambda s: model(mudata(s)), r"call CellDiT\.setup_anndata\(mdata, mod='(?P<mod>[^']+)'",
        lambda s, m: model(setup(mudata(s), mod=m["mod"]))),
    "a MuData to a tool": Case(
        lambda s: cd.tl.embed(mudata(s), s.model), r"such as mdata\.mod\['(?P<mod>[^']+)'\]",
        lambda s, m: cd.tl.embed(mudata(s).mod[m["mod"]], s.model)),
}  # fmt: skip
