"""Of what a biologist asks next: effects with their doubt, and the page to explore them."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np

import celldit as cd

from .case import ARGUMENTS, Case, Scope, arguments
from .model import controls_only
from .tools import dosed_effects, draw, model_and_query, terminal, tool, with_obs


def _new_context(s: Scope) -> ad.AnnData:
    return s.setup(with_obs(s.adata.copy(), donor="new"))


def _only_a(adata: ad.AnnData) -> ad.AnnData:
    return adata[adata.obs["perturbation"] == "A"].copy()


def _one_without_controls(s: Scope) -> ad.AnnData:
    adata = s.adata.copy()
    new = (adata.obs["donor"] == "d3") & (adata.obs["perturbation"] != "control")
    adata.obs["donor"] = np.where(new, "new", adata.obs["donor"].astype(str))
    return s.setup(adata)


def page(s: Scope, name: str = "page.html", **options: Any) -> Any:
    adata, model = options.pop("adata", s.adata), options.pop("model", s.model)
    given = {"perturbations": ["A"], "max_cells": 5, "overwrite": True, **options}
    return cd.report.explore(adata, model, s.folder / name, **given)


def following(s: Scope, **options: Any) -> Any:
    candidates = options.pop("candidates", ["A+C", "B+C"])
    return tool("next_perturbations", s, candidates, **options)


# fmt: off
CASES: dict[str, Case] = {
    "effects in new contexts without controls": Case(
        lambda s: tool("effects", s, "A", adata=_only_a(_new_context(s))), "add control cells",
        lambda s, m: tool("effects", s, "A", adata=_new_context(s))),
    "effects in a context without controls": Case(
        lambda s: tool("effects", s, "A", adata=_one_without_controls(s), contexts=["new"]),
        r"add its control cells, or leave it out of contexts=",
        lambda s, m: tool("effects", s, "A", adata=_one_without_controls(s), contexts=["d1"])),
    "effects in a context that is none": Case(
        lambda s: tool("effects", s, "A", contexts="d11"), "Did you mean '(?P<name>[^']+)'",
        lambda s, m: tool("effects", s, "A", contexts=m["name"])),
    "genes ranked by what is none": Case(
        lambda s: cd.tl.ranked_genes(s.effects, by="p"), r"must be one of '(?P<by>\w+)'",
        lambda s, m: cd.tl.ranked_genes(s.effects, by=m["by"])),
    "genes ranked without probabilities": Case(
        lambda s: cd.tl.ranked_genes(s.model.predict_effects("A")),
        r"make the table with cd\.tl\.effects\(adata, model, \.\.\.\)",
        lambda s, m: cd.tl.ranked_genes(s.effects)),
    "a volcano of no perturbation": Case(
        lambda s: draw("volcano", s.effects, perturbation=[], context="d1"),
        "leave it out to draw all",
        lambda s, m: draw("volcano", s.effects, context="d1")),
    "a volcano without probabilities": Case(
        lambda s: draw("volcano", s.model.predict_effects("A")),
        r"make the table with cd\.tl\.effects\(adata, model, \.\.\.\)",
        lambda s, m: draw("volcano", s.effects, context="d1")),
    "a volcano of several contexts": Case(
        lambda s: draw("volcano", s.effects), f"say which, such as {ARGUMENTS}",
        lambda s, m: draw("volcano", s.effects, **arguments(m))),
    "a volcano of a context that is none": Case(
        lambda s: draw("volcano", s.effects, context="d11"), "Did you mean '(?P<name>[^']+)'",
        lambda s, m: draw("volcano", s.effects, context=m["name"])),
    "a volcano of another perturbation": Case(
        lambda s: draw("volcano", s.effects, "a", context="d1"), "Did you mean '(?P<name>[^']+)'",
        lambda s, m: draw("volcano", s.effects, m["name"], context="d1")),
    "a volcano with fewer than no name": Case(
        lambda s: draw("volcano", s.effects, context="d1", n_genes=-1),
        "of at least (?P<n>0)",
        lambda s, m: draw("volcano", s.effects, context="d1", n_genes=int(m["n"]))),
    "a volcano of several doses": Case(
        lambda s: draw("volcano", dosed_effects(s, [1, 2]), context="d1"),
        r"(?P<code>effects\[effects\['dose'\] == 1\])",
        lambda s, m: draw("volcano", eval(m["code"], {"effects": dosed_effects(s, [1, 2])}),
                          context="d1")),
    "effects of a model without perturbations": Case(
        lambda s: tool("effects", s, model=controls_only(s)), "train it on perturbed cells",
        lambda s, m: tool("effects", s)),
    "a page of an exchanged model": Case(
        lambda s: cd.report.explore(s.model, s.adata, s.folder / "page.html"),
        r"(?P<code>cd\.report\.explore)\(adata, model, path\)",
        lambda s, m: eval(m["code"], {"cd": cd})(s.adata, s.model, s.folder / "page.html", "A")),
    "a page of another kind": Case(
        lambda s: page(s, "page.pdf"), "such as '(?P<name>report.html)'",
        lambda s, m: page(s, m["name"])),
    "a page without perturbations": Case(
        lambda s: page(s, model=controls_only(s), perturbations=None),
        "train it on perturbed cells", lambda s, m: page(s, perturbations=None)),
    "a page without controls": Case(
        lambda s: page(s, adata=_only_a(s.adata)), "add control cells", lambda s, m: page(s)),
    "a page of a context that is none": Case(
        lambda s: page(s, contexts="d11"), "Did you mean '(?P<name>[^']+)'",
        lambda s, m: page(s, contexts=m["name"])),
    "a page of no time": Case(
        lambda s: page(s, adata=_timed(s), model=s.timed),
        r"pass time=, for example (?P<arguments>time=[\d.]+)",
        lambda s, m: page(s, adata=_timed(s), model=s.timed, **arguments(m))),
    "targets that are none": Case(
        lambda s: page(s, targets="B"), "a dict of names and queries",
        lambda s, m: page(s, targets={"B": "perturbation == 'B'"})),
    "a target that is no query": Case(
        lambda s: page(s, targets={"t": "x =="}), r"write for example .*=\"(?P<query>[^\"]+)\"",
        lambda s, m: page(s, targets={"t": m["query"]})),
    "a target that is no mask": Case(
        lambda s: page(s, targets={"t": np.zeros(3)}), "for each of the (?P<n>[0-9]+) cells",
        lambda s, m: page(s, targets={"t": np.ones(int(m["n"]), dtype=bool)})),
    "a target without cells": Case(
        lambda s: page(s, targets={"t": "donor == 'd11'"}), "widen it",
        lambda s, m: page(s, targets={"t": "donor == 'd1'"})),
    "a target of few cells": Case(
        lambda s: page(s, targets={"t": np.arange(s.adata.n_obs) < 10}), "leave it out of targets=",
        lambda s, m: page(s)),
    "a target of the terminal without a query": Case(
        lambda s: _explored(s, "--target", "B cells"), r"(?P<option>--target)",
        lambda s, m: _explored(s, m["option"], "B=perturbation == 'B'")),
    "next of a model without perturbations": Case(
        lambda s: following(s, model=controls_only(s)), "train it on some that were measured",
        lambda s, m: following(s)),
    "next of no candidate": Case(
        lambda s: following(s, candidates=None), r"pass candidates=\['A\+B', \.\.\.\]",
        lambda s, m: following(s)),
    "next of no cells": Case(
        lambda s: following(s, n_cells=0), "n_cells=0 must be above 0",
        lambda s, m: following(s, n_cells=50)),
    "next of the control": Case(
        lambda s: following(s, candidates=["control"]), "pass perturbations",
        lambda s, m: following(s)),
    "next of what was measured": Case(
        lambda s: following(s, candidates=["A", "A+C"]), "leave it out of candidates",
        lambda s, m: following(s, candidates=["A+C"])),
    "next about no gene": Case(
        lambda s: following(s, genes=[]), "leave it out for all", lambda s, m: following(s)),
    "next about a gene that is none": Case(
        lambda s: following(s, genes=["gene99"]), "Did you mean '(?P<name>[^']+)'",
        lambda s, m: following(s, genes=[m["name"]])),
    "next about a target that is missing": Case(
        lambda s: following(s, about="target"), r'such as target=(?P<name>"[^"]+")',
        lambda s, m: following(s, about="target", target="perturbation == 'A'")),
    "next about others with a target": Case(
        lambda s: following(s, about="others", target="perturbation == 'A'"), "goes without",
        lambda s, m: following(s, about="others")),
    "next about something else": Case(
        lambda s: following(s, about="othres"), "Did you mean '(?P<name>[^']+)'",
        lambda s, m: following(s, about=m["name"])),
    "next in the terminal with a target and no cells": Case(
        lambda s: _next_towards(s), "give both, or neither",
        lambda s, m: _next_towards(s, "--data", model_and_query(s)[1])),
    "next in a context that is none": Case(
        lambda s: following(s, contexts="d11"), "Did you mean '(?P<name>[^']+)'",
        lambda s, m: following(s, contexts=m["name"])),
    "next where nothing is shared": Case(
        lambda s: following(s, n_cells=1e-9), "teach next to nothing",
        lambda s, m: following(s, n_cells=100)),
}
# fmt: on


def _timed(s: Scope) -> ad.AnnData:
    adata = s.adata.copy()
    adata.obs["t"] = np.arange(adata.n_obs) // 6 % 2 * 2.0 + 1
    return s.setup(adata, time_key="t")


def _next_towards(s: Scope, *options: Any) -> str:
    towards = ("--target", "perturbation == 'A'")
    return terminal("next", model_and_query(s)[0], "-c", "A+C", "-c", "B+C", *towards, *options)


def _explored(s: Scope, *options: str) -> None:
    model, screen = s.folder / "model", s.folder / "screen.h5ad"
    if not model.exists():
        s.model.save(model)
        s.adata.write_h5ad(screen)
    terminal(
        "explore", model, screen, "-o", s.folder / "p.html", "--overwrite", "-p", "A", *options
    )
