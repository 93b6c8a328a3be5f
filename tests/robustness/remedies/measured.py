"""Of answers from measured cells: who responded, pairs, doses."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np

import celldit as cd

from .case import Case, Scope, arguments
from .tools import draw, only


def dosed(s: Scope, n_doses: int = 4, **setup: Any) -> ad.AnnData:
    """Controls and A at some doses, without contexts."""
    adata = only(s, "control", "A")
    treated = adata.obs["perturbation"] == "A"
    adata.obs["um"] = np.where(treated, np.cumsum(treated) % n_doses + 1.0, 0.0)
    cd.CellDiT.setup_anndata(
        adata, **{"perturbation_key": "perturbation", "dose_key": "um", **setup}
    )
    return adata


def responded(s: Scope) -> ad.AnnData:
    cd.tl.responders(s.adata)
    return s.adata


def paired(s: Scope) -> ad.AnnData:
    cd.tl.interactions(s.adata)
    return s.adata


def curves(s: Scope, n_doses: int = 4) -> tuple[Any, Any]:
    adata = dosed(s, n_doses)
    found = cd.tl.dose_response(adata)
    return adata.uns["dose_response_points"], found


def joined(s: Scope) -> ad.AnnData:
    adata = s.adata
    adata.obs["perturbation"] = [x.replace("+", "|") for x in adata.obs["perturbation"]]
    return adata


# fmt: off
CASES: dict[str, Case] = {
    "responders without perturbations": Case(
        lambda s: cd.tl.responders(s.setup(perturbation_key=None, covariate_keys=["donor"])),
        r"call CellDiT\.setup_anndata\(adata, perturbation_key=",
        lambda s, m: cd.tl.responders(s.setup())),
    "responders without controls": Case(
        lambda s: cd.tl.responders(_no_controls(s)), "are compared, so add such cells",
        lambda s, m: cd.tl.responders(s.adata)),
    "pairs without controls": Case(
        lambda s: cd.tl.interactions(only(s, "A", "B", "A+B")), "are compared, so add such cells",
        lambda s, m: cd.tl.interactions(s.adata)),
    "curves without controls": Case(
        lambda s: cd.tl.dose_response(_treated(dosed(s))),
        "are compared, so add such cells",
        lambda s, m: cd.tl.dose_response(dosed(s))),
    "responders of contexts without controls": Case(
        lambda s: cd.tl.responders(_many_donors(s)), "set up adata with fewer covariate_keys",
        lambda s, m: cd.tl.responders(s.setup(_many_donors(s), covariate_keys=()))),
    "responders of a perturbation that is none": Case(
        lambda s: cd.tl.responders(s.adata, "AA"), "known: '(?P<name>[^']+)'",
        lambda s, m: cd.tl.responders(s.adata, m["name"])),
    "responders among few cells": Case(
        lambda s: cd.tl.responders(_few_of_c(s)), "'C' have fewer than 10 cells",
        lambda s, m: cd.tl.responders(_few_of_c(s), ["A", "B"])),
    "a figure of no responders": Case(
        lambda s: draw("responders", s.adata), r"make them with cd\.tl\.responders\(adata\)",
        lambda s, m: draw("responders", responded(s))),
    "a figure of responders to something else": Case(
        lambda s: draw("responders", responded(s), "AA"), "known: '(?P<name>[^']+)'",
        lambda s, m: draw("responders", responded(s), m["name"])),
    "pairs of too few cells": Case(
        lambda s: cd.tl.interactions(s.adata, min_cells=1000), "lower min_cells",
        lambda s, m: cd.tl.interactions(s.adata)),
    "pairs joined otherwise": Case(
        lambda s: cd.tl.interactions(_joined_pairs(s)),
        r"pass (?P<name>perturbation_sep)='\.\.\.', what joins the parts of a label",
        lambda s, m: cd.tl.interactions(s.setup(joined(s), **{m["name"]: "|"}))),
    "a figure of no pairs": Case(
        lambda s: draw("interactions", s.adata), r"make them with cd\.tl\.interactions\(adata\)",
        lambda s, m: draw("interactions", paired(s))),
    "a figure of a pair that is none": Case(
        lambda s: draw("interactions", paired(s), "A+C"), "known: '(?P<name>[^']+)'",
        lambda s, m: draw("interactions", paired(s), m["name"])),
    "curves without doses": Case(
        lambda s: cd.tl.dose_response(s.adata),
        "pass (?P<arguments>dose_key='COLUMN') to CellDiT",
        lambda s, m: cd.tl.dose_response(dosed(s, **{**arguments(m), "dose_key": "um"}))),
    "curves of one dose": Case(
        lambda s: cd.tl.dose_response(dosed(s, 1)), "has 3 doses above 0",
        lambda s, m: cd.tl.dose_response(dosed(s, 3))),
    "curves of doses with few cells": Case(
        lambda s: cd.tl.dose_response(dosed(s), min_cells=25), "lower min_cells",
        lambda s, m: cd.tl.dose_response(dosed(s), min_cells=15)),
    "curves of a perturbation that is none": Case(
        lambda s: cd.tl.dose_response(dosed(s), "AA"), "known: '(?P<name>[^']+)'",
        lambda s, m: cd.tl.dose_response(dosed(s), m["name"])),
    "curves of programs without genes": Case(
        lambda s: cd.tl.dose_response(dosed(s), programs={"p": []}), "leave it out for curves of",
        lambda s, m: cd.tl.dose_response(dosed(s))),
    "curves of programs that are none": Case(
        lambda s: cd.tl.dose_response(dosed(s), programs=["gene1"]),
        r"gene sets by name, (?P<like>\{'name': \['GENE', \.\.\.\]\})",
        lambda s, m: cd.tl.dose_response(dosed(s), programs={"name": ["gene1"]})),
    "curves of programs of unknown genes": Case(
        lambda s: cd.tl.dose_response(dosed(s), programs={"p": ["gene_1"]}),
        "Did you mean '(?P<name>[^']+)'",
        lambda s, m: cd.tl.dose_response(dosed(s), programs={"p": [m["name"]]})),
    "a figure of curves without points": Case(
        lambda s: draw("dose_response", curves(s)[1], curves=curves(s)[1]),
        r"adata\.uns\['dose_response_points'\] before it",
        lambda s, m: draw("dose_response", curves(s)[0], curves=curves(s)[1])),
    "a figure of curves alone": Case(
        lambda s: draw("dose_response", curves(s)[1]),
        r"adata\.uns\['dose_response_points'\] before it",
        lambda s, m: draw("dose_response", curves(s)[0], curves=curves(s)[1])),
    "a figure of doses from cells": Case(
        lambda s: draw("dose_response", dosed(s)),
        r"adata\.uns\['dose_response_points'\] before it",
        lambda s, m: draw("dose_response", curves(s)[0], curves=curves(s)[1])),
    "a figure of curves of another call": Case(
        lambda s: draw("dose_response", curves(s)[0],
                       curves=curves(s)[1].assign(perturbation="B")),
        "pass those of one call",
        lambda s, m: draw("dose_response", curves(s)[0], curves=curves(s)[1])),
}
# fmt: on


def _no_controls(s: Scope) -> ad.AnnData:
    """Set up with controls, of which none are left."""
    return only(s, "A", "B")


def _treated(adata: ad.AnnData) -> ad.AnnData:
    return adata[(adata.obs["perturbation"] != "control").to_numpy()].copy()


def _many_donors(s: Scope) -> ad.AnnData:
    adata = s.adata.copy()
    adata.obs["donor"] = [f"d{i // 12}" for i in range(adata.n_obs)]
    return adata


def _few_of_c(s: Scope) -> ad.AnnData:
    c = np.flatnonzero(s.adata.obs["perturbation"] == "C")
    return s.adata[np.setdiff1d(np.arange(s.adata.n_obs), c[5:])].copy()


def _joined_pairs(s: Scope) -> ad.AnnData:
    adata = joined(s)
    cd.CellDiT.setup_anndata(adata, perturbation_key="perturbation", covariate_keys=["donor"])
    return adata
