"""Of tools, plots, scores, reports and the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from typer.testing import CliRunner

import celldit as cd
from celldit.cli.app import app
from celldit.errors import CellditError

from .case import ARGUMENTS, Case, Scope, arguments, dense, with_times
from .data import backed, quietly
from .model import controls_only, path

QUIET = {"show": False}
METHODS = ("mine", "other")
FEW = {"n_repeats": 2, "metrics": ["pearson"]}


def tool(name: str, s: Scope, *given: Any, **options: Any) -> Any:
    adata = options.pop("adata", s.adata)
    return getattr(cd.tl, name)(adata, options.pop("model", s.model), *given, **options)


def draw(name: str, *given: Any, **options: Any) -> Any:
    axes = getattr(cd.pl, name)(*given, **{**QUIET, **options})
    plt.close("all")
    return axes


def pair(s: Scope) -> tuple[ad.AnnData, ad.AnnData]:
    return s.adata, s.predicted


def score(s: Scope, name: str = "evaluate", **options: Any) -> Any:
    predicted = options.pop("predicted", None)
    truth, control = options.pop("truth", None), options.pop("control", None)
    return getattr(cd.tl, name)(
        s.predicted if predicted is None else predicted, s.adata if truth is None else truth,
        control, **options,
    )  # fmt: skip


def attention(s: Scope, names: Any = "A") -> pd.DataFrame:
    return s.once(f"attention {names}", lambda: tool("attention", s, names, max_cells=20)).copy()


def programs(s: Scope, names: Any = "A") -> pd.DataFrame:
    return s.once(f"programs {names}", lambda: tool("programs", s, names, max_cells=20)).copy()


def dosed_effects(s: Scope, dose: Any) -> pd.DataFrame:
    s.adata.obs["d"] = 1.0
    return cd.tl.effects(s.adata, s.dosed, "A", dose=dose)


def only(s: Scope, *labels: str) -> ad.AnnData:
    return s.adata[s.adata.obs["perturbation"].isin(labels)].copy()


def one_donor(s: Scope) -> ad.AnnData:
    return s.adata[s.adata.obs["donor"] == "d1"].copy()


def with_obs(adata: ad.AnnData, **columns: Any) -> ad.AnnData:
    for name, values in columns.items():
        adata.obs[name] = values
    return adata


def of_counts(s: Scope) -> ad.AnnData:
    predicted = s.predicted
    predicted.X = predicted.layers["counts"].copy()
    del predicted.layers["counts"]
    return predicted


def with_layer(s: Scope) -> ad.AnnData:
    """The same, with the counts in a layer of the name that was told."""
    s.predicted.layers["counts"] = s.predicted.X.copy()
    return s.predicted


def holes(s: Scope) -> ad.AnnData:
    predicted = s.predicted
    predicted.X = predicted.X.toarray()
    predicted.X[0, 0] = np.nan
    del predicted.layers["counts"]
    return predicted


def report(s: Scope, name: str = "r.html", **options: Any) -> Any:
    few = {"n_perturbations": 0, "n_repeats": 1, "n_resamples": 0, "metrics": ["pearson"]}
    chosen = {**few, "baselines": False, **options}
    return cd.tl.report(s.predicted, s.adata, path=s.folder / name, **chosen)


class InTheTerminal(CellditError):
    """What the terminal said."""


def terminal(*arguments_: Any) -> str:
    """Run a command; what it refuses is raised, so that it is told from what it prints."""
    ran = CliRunner().invoke(app, [str(a) for a in arguments_])
    if ran.exit_code:
        raise InTheTerminal(" ".join(ran.output.split()))
    return ran.output


def model_and_query(s: Scope) -> tuple[Path, Path]:
    if not (s.folder / "m").exists():
        s.model.save(s.folder / "m")
    s.few.write_h5ad(s.folder / "q.h5ad")
    return s.folder / "m", s.folder / "q.h5ad"


def predict(s: Scope, *more: Any) -> str:
    return terminal("predict", *model_and_query(s), "-p", "A", "-o", s.folder / "o.h5ad", *more)


# fmt: off
CASES: dict[str, Case] = {
    # --- tools
    "arguments exchanged": Case(
        lambda s: cd.tl.embed(s.model, s.adata), r"AnnData",
        lambda s, m: tool("embed", s)),
    "no model": Case(
        lambda s: cd.tl.embed(s.adata, 3), r"the AnnData comes first: cd\.tl\.name\(adata, model\)",
        lambda s, m: tool("embed", s)),
    "results without a name": Case(
        lambda s: tool("embed", s, key_added=""), r"such as (?P<arguments>key_added='\w+')",
        lambda s, m: tool("embed", s, **arguments(m))),
    "results into a backed AnnData": Case(
        lambda s: tool("embed", s, adata=backed(s)), "pass (?P<arguments>copy=True)",
        lambda s, m: tool("embed", s, adata=backed(s), **arguments(m))),
    "results into a backed AnnData, brought in": Case(
        lambda s: tool("embed", s, adata=backed(s)),
        r"memory with (?P<code>adata = adata\.to_memory\(\))",
        lambda s, m: tool("embed", s, adata=s.run(m, adata=backed(s))["adata"])),
    "a table into a backed AnnData, of a tool without copy=": Case(
        lambda s: cd.tl.effects(backed(s), s.model, "A"),
        r"written; bring it into memory with (?P<code>adata = adata\.to_memory\(\))",
        lambda s, m: cd.tl.effects(s.run(m, adata=backed(s))["adata"], s.model, "A")),
    "several counterfactuals": Case(
        lambda s: tool("counterfactual", s, ["A", "B"]),
        r"for several call model\.predict\(adata, perturbations=",
        lambda s, m: s.model.predict(s.few, perturbations=["A", "B"])),
    "counterfactuals without controls": Case(
        lambda s: tool("counterfactual", s, "A", adata=only(s, "A")),
        "start from control cells, so add some", lambda s, m: tool("counterfactual", s, "A")),
    "genes that the model does not know": Case(
        lambda s: tool("counterfactual", s, "A", adata=_wider(s)),
        "they keep their observed counts",
        lambda s, m: tool("counterfactual", s, "A")),
    "loadings of other genes": Case(
        lambda s: tool("gene_loadings", s, adata=s.adata[:, 3:].copy()),
        "pass an AnnData with the genes", lambda s, m: tool("gene_loadings", s)),
    "attention to no cell": Case(
        lambda s: tool("attention", s, "A", max_cells=0), "of at least (?P<n>1)",
        lambda s, m: tool("attention", s, "A", max_cells=int(m["n"]))),
    "effects at no time": Case(
        lambda s: tool("effects", s, "A", time=[]), "or leave it out",
        lambda s, m: tool("effects", s, "A")),
    "programmes of no cell": Case(
        lambda s: tool("programs", s, "A", max_cells=0), "of at least (?P<n>1)",
        lambda s, m: tool("programs", s, "A", max_cells=int(m["n"]))),
    "programmes by a column that is none": Case(
        lambda s: tool("programs", s, "A", groupby="doner"), "Did you mean '(?P<name>[^']+)'",
        lambda s, m: tool("programs", s, "A", groupby=m["name"], max_cells=20)),
    "programmes without controls": Case(
        lambda s: tool("programs", s, "A", adata=only(s, "A")),
        "start from control cells, so add some", lambda s, m: programs(s)),
    "tokens that are genes": Case(
        lambda s: tool("token_activity", s, model=s.once("genes", lambda: s.train_tiny(
            s.adata, tokenizer="genes", max_epochs=0))),
        r'with tokenizer="gene_sets" or (?P<name>"modules")',
        lambda s, m: tool("token_activity", s)),
    "a source that selects nothing": Case(
        lambda s: tool("rank_perturbations", s, source="donor == 'd9'", target="donor == 'd2'"),
        "selects no cell of adata; widen it",
        lambda s, m: tool("rank_perturbations", s, source="donor == 'd1'",
                          target="donor == 'd2'", max_cells=10)),
    "a source that is no query": Case(
        lambda s: tool("rank_perturbations", s, source="doner ==", target="donor == 'd2'"),
        r'write for example source="(?P<like>[^"]+)"',
        lambda s, m: tool("rank_perturbations", s, source=m["like"].replace(
            "cell_type", "donor").replace("'B'", "'d1'"), target="donor == 'd2'", max_cells=10)),
    "a source of another length": Case(
        lambda s: tool("rank_perturbations", s, source=[True], target="donor == 'd2'"),
        "a boolean mask with one entry for each of the 480 cells",
        lambda s, m: tool("rank_perturbations", s, source=np.arange(480) < 60,
                          target="donor == 'd2'", max_cells=10)),
    "a source without controls": Case(
        lambda s: tool("rank_perturbations", s, source="perturbation == 'A'",
                       target="donor == 'd2'"), "so let source= select some",
        lambda s, m: tool("rank_perturbations", s, source="perturbation == 'control'",
                          target="donor == 'd2'", max_cells=10)),
    "a ranking of no cell": Case(
        lambda s: tool("rank_perturbations", s, source="donor == 'd1'", target="donor == 'd2'",
                       max_cells=0), "must be a whole number of at least 1",
        lambda s, m: tool("rank_perturbations", s, source="donor == 'd1'",
                          target="donor == 'd2'", max_cells=10)),
    "a ranking of nothing": Case(
        lambda s: tool("rank_perturbations", s, source="donor == 'd1'", target="donor == 'd2'",
                       model=controls_only(s)), "train it on perturbed cells",
        lambda s, m: tool("rank_perturbations", s, source="donor == 'd1'",
                          target="donor == 'd2'", max_cells=10)),
    # --- scores
    "a prediction of other genes": Case(
        lambda s: score(s, predicted=s.predicted[:, 2:].copy()),
        r"shared = (?P<code>truth\.var_names\.intersection\(predicted\.var_names\)), with \[:, sha",
        lambda s, m: _shared(s, m["code"])),
    "a metric that is none": Case(
        lambda s: score(s, metrics="pearso"), "Did you mean '(?P<name>[^']+)'",
        lambda s, m: score(s, metrics=m["name"])),
    "no metric": Case(
        lambda s: score(s, metrics=[]), r"give some of (?P<name>\w+)",
        lambda s, m: score(s, metrics=m["name"])),
    "a preset that is none": Case(
        lambda s: score(s, preset="vcc2025"), "known: '(?P<name>[^']+)'",
        lambda s, m: None),
    "a preset and metrics": Case(
        lambda s: score(s, preset="vcc2026", metrics="pearson"), "preset= or metrics=, not both",
        lambda s, m: score(s, metrics="pearson")),
    "a truth without perturbations": Case(
        lambda s: score(s, truth=s.setup(perturbation_key=None)),
        r"call celldit\.CellDiT\.setup_anndata\(truth, perturbation_key=",
        lambda s, m: score(s, truth=s.setup(), metrics="pearson")),
    "a truth of controls": Case(
        lambda s: score(s, truth=only(s, "control")), "pass the measured cells of the perturbat",
        lambda s, m: score(s, metrics="pearson")),
    "a truth without controls": Case(
        lambda s: score(s, truth=only(s, "A", "B", "C", "A+B"), metrics="pearson"),
        "pass the measured control cells as control",
        lambda s, m: score(s, truth=only(s, "A", "B", "C", "A+B"), control=only(s, "control"),
                           metrics="pearson")),
    "a control without controls": Case(
        lambda s: score(s, control=only(s, "A"), metrics="pearson"),
        "pass the measured control cells as control",
        lambda s, m: score(s, control=only(s, "control"), metrics="pearson")),
    "a prediction of controls": Case(
        lambda s: score(s, predicted=with_obs(s.predicted, perturbation="control")),
        "pass the cells that were predicted for",
        lambda s, m: (s.again(), score(s, metrics="pearson"))),
    "contexts without controls": Case(
        lambda s: score(s, truth=only(s, "A", "B", "C", "A+B"), control=one_donor(s),
                        metrics="pearson"),
        "pass measured control cells of the same donor as control",
        lambda s, m: score(s, truth=only(s, "A", "B", "C", "A+B"), control=only(s, "control"),
                           metrics="pearson")),
    "a prediction without columns": Case(
        lambda s: score(s, predicted=_without_obs(s, "donor")), "rename its columns",
        lambda s, m: (s.again(), score(s, metrics="pearson"))),
    "a prediction with holes": Case(
        lambda s: score(s, predicted=holes(s)), "find out where they come from",
        lambda s, m: (s.again(), score(s, metrics="pearson"))),
    "a prediction of counts in X": Case(
        lambda s: score(s, predicted=of_counts(s), metrics="pearson"),
        r"store them in predicted\.layers\['counts'\]",
        lambda s, m: score(s, predicted=with_layer(s), metrics="pearson")),
    "a prediction without X": Case(
        lambda s: score(s, predicted=_empty(s)), "store log expression in it",
        lambda s, m: (s.again(), score(s, metrics="pearson"))),
    "genes in another order": Case(
        lambda s: score(s, predicted=s.predicted[:, ::-1].copy(), metrics="pearson"),
        "they are matched by name", lambda s, m: score(s, metrics="pearson")),
    "too few cells for a score": Case(
        lambda s: score(s, min_cells=9999, metrics="pearson"), "are not scored",
        lambda s, m: score(s, min_cells=5, metrics="pearson")),
    "predictions that are none": Case(
        lambda s: cd.tl.compare(3, s.adata), r"as (?P<like>\{'celldit': predicted\})",
        lambda s, m: cd.tl.compare(eval(m["like"], {"predicted": s.predicted}), s.adata, **FEW)),
    "no predictions": Case(
        lambda s: cd.tl.compare({}, s.adata), "needs at least one prediction",
        lambda s, m: cd.tl.compare({"mine": s.predicted}, s.adata, **FEW)),
    "a prediction named as a baseline": Case(
        lambda s: cd.tl.compare({"no change": s.predicted}, s.adata, baselines=True, **FEW),
        "give it another name", lambda s, m: quietly(lambda: cd.tl.compare(
            {"mine": _of_a(s)}, s.adata, baselines=True, **FEW))),
    "baselines of nothing": Case(
        lambda s: cd.tl.compare({"mine": s.predicted}, s.adata, baselines=True, **FEW),
        "pass cells of other conditions, or",
        lambda s, m: quietly(lambda: cd.tl.compare(
            {"mine": _of_a(s)}, only(s, "control", "A"), baselines=only(s, "control", "B", "C"),
            **FEW))),
    "a baseline that is none": Case(
        lambda s: cd.tl.compare({"mine": s.predicted}, s.adata, baseline="min", **FEW),
        "Did you mean '(?P<name>[^']+)'|known: '(?P<other>[^']+)'",
        lambda s, m: cd.tl.compare({"mine": s.predicted, "a": s.predicted}, s.adata,
                                   baseline="mine", **FEW)),
    "no repeats": Case(
        lambda s: cd.tl.compare({"mine": s.predicted}, s.adata, n_repeats=0),
        "n_repeats=0 must be a whole number of at least 1",
        lambda s, m: cd.tl.compare({"mine": s.predicted}, s.adata, **FEW)),
    "intervals of numbers of cells": Case(
        lambda s: cd.tl.intervals(s.predicted, s.adata, metrics="n_predicted"),
        "give some of (?P<name>[^,]+),",
        lambda s, m: cd.tl.intervals(s.predicted, s.adata, metrics=m["name"], n_resamples=2)),
    "a ceiling without repeats": Case(
        lambda s: cd.tl.ceiling(s.adata, n_repeats=0), "of at least 1",
        lambda s, m: cd.tl.ceiling(s.adata, **FEW)),
    "a range of one repeat": Case(
        lambda s: cd.tl.dynamic_range(s.adata, n_repeats=1), "of at least 2",
        lambda s, m: cd.tl.dynamic_range(s.adata, **FEW)),
    "no permutations": Case(
        lambda s: cd.tl.detectable(s.adata, n_permutations=0), "of at least 1",
        lambda s, m: cd.tl.detectable(s.adata, n_permutations=5)),
    "an interval of nothing": Case(
        lambda s: score(s, "intervals", n_resamples=1), "a whole number of at least (?P<n>2)",
        lambda s, m: score(s, "intervals", n_resamples=int(m["n"]), metrics="pearson")),
    "an interval in per cent": Case(
        lambda s: score(s, "intervals", level=90), "must lie between 0 and (?P<most>1)",
        lambda s, m: score(s, "intervals", level=0.9 * int(m["most"]), metrics="pearson",
                           n_resamples=2)),
    "one method paired": Case(
        lambda s: cd.tl.paired(s.compared, "prediction", "prediction"), "compares two methods",
        lambda s, m: cd.tl.paired(s.compared, *METHODS)),
    "a method that is none": Case(
        lambda s: cd.tl.paired(s.compared, "predicton", "x"), "known: '(?P<name>[^']+)'",
        lambda s, m: cd.tl.paired(s.compared, *METHODS)),
    "a table of something else": Case(
        lambda s: cd.tl.paired(pd.DataFrame({"a": [1]}), "x", "y"),
        r"pass what cd\.tl\.compare returned", lambda s, m: cd.tl.paired(s.compared, *METHODS)),
    # --- reports
    "a report of another ending": Case(
        lambda s: report(s, "r.txt"), "such as '(?P<name>[^']+)'",
        lambda s, m: report(s, m["name"])),
    "a report in the way": Case(
        lambda s: (report(s), report(s)), "replace with " + ARGUMENTS,
        lambda s, m: report(s, **arguments(m))),
    "a report along a basis that is none": Case(
        lambda s: report(s, basis="pcaa"), "Did you mean '(?P<name>[^']+)'",
        lambda s, m: report(s, basis=m["name"])),
    "a report of no repeats": Case(
        lambda s: report(s, n_repeats=0), "n_repeats=0 must be", lambda s, m: report(s)),
    "a report with one resample": Case(
        lambda s: report(s, n_resamples=1), "use (?P<n>0) for none",
        lambda s, m: report(s, n_resamples=int(m["n"]))),
    "a report named as a row of its own": Case(
        lambda s: report(s, name_="x") if False else cd.tl.report(
            s.predicted, s.adata, path=s.folder / "r.html", name="no change", baselines=False),
        "names of their own", lambda s, m: report(s)),
    # --- plots
    "a table of no attention": Case(
        lambda s: draw("attention", pd.DataFrame()), r"must be what cd\.tl\.attention returns",
        lambda s, m: draw("attention", attention(s))),
    "attention to no token": Case(
        lambda s: draw("attention", attention(s), n_tokens=0), "of at least (?P<n>1)",
        lambda s, m: draw("attention", attention(s), n_tokens=int(m["n"]))),
    "attention of several": Case(
        lambda s: draw("attention", attention(s, ["A", "B"])), "such as " + ARGUMENTS,
        lambda s, m: draw("attention", attention(s, ["A", "B"]), **arguments(m))),
    "attention of one that is none": Case(
        lambda s: draw("attention", attention(s), "Z"), "known: '(?P<name>[^']+)'",
        lambda s, m: draw("attention", attention(s), m["name"])),
    "attention without controls": Case(
        lambda s: draw("attention", _no_control_rows(attention(s)), "A"),
        "pass (?P<arguments>difference=False)",
        lambda s, m: draw("attention", _no_control_rows(attention(s)), "A", **arguments(m))),
    "a network of few tokens": Case(
        lambda s: draw("attention_network", attention(s), n_tokens=1), "must be at least (?P<n>3)",
        lambda s, m: draw("attention_network", attention(s), n_tokens=int(m["n"]))),
    "a table of no programmes": Case(
        lambda s: draw("programs", pd.DataFrame()), r"must be what cd\.tl\.programs returns",
        lambda s, m: draw("programs", programs(s))),
    "no programmes": Case(
        lambda s: draw("programs", programs(s), n_programs=0), "of at least (?P<n>1)",
        lambda s, m: draw("programs", programs(s), n_programs=int(m["n"]))),
    "programmes of several": Case(
        lambda s: draw("programs", programs(s, ["A", "B"])), "such as " + ARGUMENTS,
        lambda s, m: draw("programs", programs(s, ["A", "B"]), **arguments(m))),
    "programmes of one that is none": Case(
        lambda s: draw("programs", programs(s), "Z"), "known: '(?P<name>[^']+)'",
        lambda s, m: draw("programs", programs(s), m["name"])),
    "a course of one dose": Case(
        lambda s: draw("dose_response", s.effects),
        r"make it with cd\.tl\.effects\(adata, model, 'NAME', dose=\[",
        lambda s, m: draw("dose_response", _along(s))),
    "a course of words": Case(
        lambda s: draw("dose_response", _along(s).assign(dose=["a", "b"] * (len(_along(s)) // 2))),
        "values that are not numbers", lambda s, m: draw("dose_response", _along(s))),
    "a course of no gene": Case(
        lambda s: draw("dose_response", _along(s), n_genes=0), "must be between (?P<n>1) and",
        lambda s, m: draw("dose_response", _along(s), n_genes=int(m["n"]))),
    "a course of an empty list": Case(
        lambda s: draw("dose_response", _along(s), []), "leave it out",
        lambda s, m: draw("dose_response", _along(s))),
    "a course of too many genes": Case(
        lambda s: draw("dose_response", _along(s), [f"gene{i}" for i in range(30)]),
        r"draw at most (?P<n>\d+)",
        lambda s, m: draw("dose_response", _along(s), [f"gene{i}" for i in range(int(m["n"]))])),
    "a course of a gene that is none": Case(
        lambda s: draw("dose_response", _along(s), "gene99"), "Did you mean '(?P<name>[^']+)'",
        lambda s, m: draw("dose_response", _along(s), m["name"])),
    "distributions of several": Case(
        lambda s: draw("distributions", *pair(s)), "such as " + ARGUMENTS,
        lambda s, m: draw("distributions", *pair(s), **arguments(m))),
    "distributions of no gene": Case(
        lambda s: draw("distributions", *pair(s), [], "A"), "leave it out",
        lambda s, m: draw("distributions", *pair(s), perturbation="A")),
    "distributions of too few genes": Case(
        lambda s: draw("distributions", *pair(s), None, "A", n_genes=0),
        "of at least (?P<n>1)",
        lambda s, m: draw("distributions", *pair(s), None, "A", n_genes=int(m["n"]))),
    "distributions of a gene that is none": Case(
        lambda s: draw("distributions", *pair(s), "gene99", "A"), "Did you mean '(?P<name>[^']+)'",
        lambda s, m: draw("distributions", *pair(s), m["name"], "A")),
    "effects drawn of none": Case(
        lambda s: draw("effect", *pair(s), []), "leave it out to draw all of them",
        lambda s, m: draw("effect", *pair(s))),
    "effects drawn of one that is none": Case(
        lambda s: draw("effect", *pair(s), "Z"), "known: '(?P<name>[^']+)'",
        lambda s, m: draw("effect", *pair(s), m["name"])),
    "effects that nobody measured": Case(
        lambda s: draw("effect", only(s, "control", "B"), s.predicted, "A"),
        "has no measured cell", lambda s, m: draw("effect", *pair(s), "A")),
    "effects of which none was measured": Case(
        lambda s: draw("effect", only(s, "control", "C"),
                       _of_a(s)),
        "pass the measured cells of one of them", lambda s, m: draw("effect", *pair(s))),
    "effects without controls": Case(
        lambda s: draw("effect", _apart(s), s.predicted, "A"), "controls of the same contexts",
        lambda s, m: draw("effect", *pair(s), "A")),
    "effects of cells set up without perturbations": Case(
        lambda s: draw("effect", s.setup(perturbation_key=None), s.predicted),
        r"call CellDiT\.setup_anndata\(adata, perturbation_key=",
        lambda s, m: draw("effect", s.setup(), s.predicted)),
    "effects of fewer than no gene": Case(
        lambda s: draw("effect", *pair(s), n_genes=-1), "of at least (?P<n>0)",
        lambda s, m: draw("effect", *pair(s), n_genes=int(m["n"]))),
    "a heatmap of something else": Case(
        lambda s: draw("effect_heatmap", 3), r"the table that cd\.tl\.effects returns",
        lambda s, m: draw("effect_heatmap", s.effects)),
    "a heatmap of other columns": Case(
        lambda s: draw("effect_heatmap", s.effects[["gene"]]), r"pass what cd\.tl\.effects returns",
        lambda s, m: draw("effect_heatmap", s.effects)),
    "a heatmap of no row": Case(
        lambda s: draw("effect_heatmap", s.effects[:0]), r"pass what cd\.tl\.effects returns",
        lambda s, m: draw("effect_heatmap", s.effects)),
    "a heatmap of several doses": Case(
        lambda s: draw("effect_heatmap", _along(s)),
        r"draw these with (?P<code>cd\.pl\.dose_response)",
        lambda s, m: (eval(m["code"], {"cd": cd})(_along(s), **QUIET),
                      draw("effect_heatmap", _along(s)[lambda t: t["dose"] == 1]))),
    "a heatmap of no gene": Case(
        lambda s: draw("effect_heatmap", s.effects, []), "leave it out",
        lambda s, m: draw("effect_heatmap", s.effects)),
    "a heatmap of too few genes": Case(
        lambda s: draw("effect_heatmap", s.effects, n_genes=0), "of at least (?P<n>1)",
        lambda s, m: draw("effect_heatmap", s.effects, n_genes=int(m["n"]))),
    "a heatmap of a gene that is none": Case(
        lambda s: draw("effect_heatmap", s.effects, ["gene99"]), "Did you mean '(?P<name>[^']+)'",
        lambda s, m: draw("effect_heatmap", s.effects, [m["name"]])),
    "an embedding that is none": Case(
        lambda s: draw("embedding", *pair(s), basis="pcaa"), "Did you mean '(?P<name>[^']+)'",
        lambda s, m: draw("embedding", *pair(s), basis=m["name"])),
    "an embedding of one cell": Case(
        lambda s: draw("embedding", *pair(s), max_cells=1), "of at least (?P<n>2)",
        lambda s, m: draw("embedding", *pair(s), max_cells=30)),
    "a calibration of nothing": Case(
        lambda s: draw("calibration", only(s, "control"), s.effects),
        "adata needs the perturbations and contexts of effects",
        lambda s, m: draw("calibration", s.adata, s.effects)),
    "scores of something else": Case(
        lambda s: draw("scores", pd.DataFrame()), r"must be what cd\.tl\.compare returns",
        lambda s, m: draw("scores", s.compared)),
    "scores of no column": Case(
        lambda s: draw("scores", s.compared, []), "leave it out",
        lambda s, m: draw("scores", s.compared)),
    "scores of a column that is none": Case(
        lambda s: draw("scores", s.compared, "pearso"), "Did you mean '(?P<name>[^']+)'",
        lambda s, m: draw("scores", s.compared, m["name"])),
    "scores with a method that is none": Case(
        lambda s: draw("scores", s.compared, highlight="zzz"), "known: '(?P<name>[^']+)'",
        lambda s, m: draw("scores", s.compared, highlight=m["name"])),
    "scores of the ceiling alone": Case(
        lambda s: draw("scores", s.compared.loc[["ceiling"]]), "pass predictions to compare",
        lambda s, m: draw("scores", s.compared)),
    "axes that do not fit": Case(
        lambda s: draw("effect_heatmap", s.effects, ax=[1, 2, 3]), "leave it out for a new figure",
        lambda s, m: draw("effect_heatmap", s.effects)),
    "a figure of another ending": Case(
        lambda s: draw("effect_heatmap", s.effects, save=s.folder / "f.xyz"),
        "such as '(?P<name>[^']+)'",
        lambda s, m: draw("effect_heatmap", s.effects, save=s.folder / m["name"])),
    "a figure where no folder is": Case(
        lambda s: ((s.folder / "f").write_text(""),
                   draw("effect_heatmap", s.effects, save=s.folder / "f" / "g.pdf")),
        "Cannot write the figure",
        lambda s, m: draw("effect_heatmap", s.effects, save=s.folder / "g.pdf")),
    "the course of no training": Case(
        lambda s: draw("training_curves", s.timed), r"call model\.train\(\) without max_epochs=0",
        lambda s, m: draw("training_curves", s.model)),
    "the course of something else": Case(
        lambda s: draw("training_curves", 3), "model must be a CellDiT",
        lambda s, m: draw("training_curves", s.model)),
    "a trajectory without times": Case(
        lambda s: draw("trajectory", s.adata), "was set up without time_key",
        lambda s, m: draw("trajectory", _path(s, [1.0, 3.0]))),
    "a trajectory of one time": Case(
        lambda s: draw("trajectory", _path(s, [1.0])), r"give more to model\.trajectory\(\)",
        lambda s, m: draw("trajectory", _path(s, [1.0, 3.0]))),
    "fates without times": Case(
        lambda s: tool("fate_map", s, groupby="donor", start=1, end=3), "set up with time_key=",
        lambda s, m: _fates(s)),
    "fates of no column": Case(
        lambda s: _fates(s, groupby="kind"), "Did you mean|known", lambda s, m: _fates(s)),
    "fates of no cells": Case(
        lambda s: _fates(s, max_cells=0), "of at least (?P<n>1)",
        lambda s, m: _fates(s, max_cells=int(m["n"]))),
    "fates of another time": Case(
        lambda s: _fates(s, end=9), r"its times are 1, (?P<end>3)\.",
        lambda s, m: _fates(s, end=float(m["end"]))),
    "fates of something else": Case(
        lambda s: draw("fate_map", s.effects), r"the table that cd\.tl\.fate_map returns",
        lambda s, m: draw("fate_map", _fates(s))),
    "a trajectory of effects beside cells": Case(
        lambda s: draw("trajectory", s.effects, measured=s.adata), "goes with the cells of",
        lambda s, m: draw("trajectory", _path(s, [1.0, 3.0]))),
    # --- the terminal
    "counts of a query in a layer": Case(
        lambda s: (_in_a_layer(s.few), predict(s)),
        "pass (?P<option>--counts-layer) (?P<layer>\\w+)",
        lambda s, m: predict(s, m["option"], m["layer"])),
    "an output in the way": Case(
        lambda s: (predict(s), predict(s)), "(?P<option>--overwrite)",
        lambda s, m: predict(s, m["option"])),
    "a model that is not there": Case(
        lambda s: terminal("info", s.folder / "gone"), "check the path",
        lambda s, m: terminal("info", model_and_query(s)[0])),
    "a report of the terminal of another ending": Case(
        lambda s: _evaluated(s, "--report", s.folder / "r.txt"),
        r"such as '(?P<name>report\.html)'",
        lambda s, m: None),
    "cells of the terminal of another ending": Case(
        lambda s: terminal("embed", *model_and_query(s), "-o", s.folder / "e.csv"),
        r"must end in (?P<end>\.h5ad)",
        lambda s, m: terminal("embed", *model_and_query(s), "-o", s.folder / f"e{m['end']}")),
    "training into a folder that is there": Case(
        lambda s: _trained(s, s.folder / "m2", before=True), "pass (?P<option>--overwrite)",
        lambda s, m: _trained(s, s.folder / "m2", m["option"])),
    "training where something else is": Case(
        lambda s: ((s.folder / "m3").mkdir(), (s.folder / "m3" / "x").write_text(""),
                   _trained(s, s.folder / "m3", "--overwrite")), "is not a celldit model",
        lambda s, m: _trained(s, s.folder / "m4")),
    "features that are no file": Case(
        lambda s: _trained(s, s.folder / "m5", "--features", s.folder / "f.csv"), "check the path",
        lambda s, m: ((s.folder / "f.csv").write_text("p,x,y\nA,1,2\nB,2,1\nC,1,1\n"),
                      _trained(s, s.folder / "m5", "--features", s.folder / "f.csv"))),
    "features that are no table": Case(
        lambda s: ((s.folder / "f.csv").write_bytes(b"\xff\xfe\x00"),
                   _trained(s, s.folder / "m5", "--features", s.folder / "f.csv")),
        "cannot be read as .csv",
        lambda s, m: ((s.folder / "f.csv").write_text("p,x,y\nA,1,2\nB,2,1\nC,1,1\n"),
                      _trained(s, s.folder / "m5", "--features", s.folder / "f.csv"))),
}
# fmt: on


def _wider(s: Scope) -> ad.AnnData:
    counts = np.hstack([dense(s.few), np.ones((s.few.n_obs, 1))])
    query = ad.AnnData(counts, obs=s.few.obs.copy())
    query.var_names = [*s.few.var_names, "other"]
    return s.setup(query)


def _shared(s: Scope, code: str) -> Any:
    predicted, truth = s.predicted[:, 2:].copy(), s.adata
    shared = eval(code, {"truth": truth, "predicted": predicted})
    truth.obs["n"] = truth.X.sum(axis=1).A1
    s.setup(truth, size_factor_key="n")
    return score(s, predicted=predicted[:, shared].copy(), truth=truth[:, shared].copy(),
                 metrics="pearson")  # fmt: skip


def _without_obs(s: Scope, name: str) -> ad.AnnData:
    predicted = s.predicted
    del predicted.obs[name]
    return predicted


def _empty(s: Scope) -> ad.AnnData:
    predicted = s.predicted
    del predicted.layers["counts"]
    predicted.X = None
    return predicted


def _no_control_rows(table: pd.DataFrame) -> pd.DataFrame:
    """As of cells without controls."""
    return table[table["perturbation"] != "control"].assign(difference=np.nan)


def _along(s: Scope) -> pd.DataFrame:
    one = s.effects
    return pd.concat([one.assign(dose=1.0), one.assign(dose=2.0)], ignore_index=True)


def _apart(s: Scope) -> ad.AnnData:
    """Controls of one donor, perturbed cells of the others."""
    control = (s.adata.obs["perturbation"] == "control").to_numpy()
    return s.adata[control == (s.adata.obs["donor"] == "d1").to_numpy()].copy()


def _path(s: Scope, times: list[float]) -> ad.AnnData:
    return s.once(f"path {times}", lambda: path(s, times))


def _fates(s: Scope, **options: Any) -> pd.DataFrame:
    with_times(s.few)
    asked = {"groupby": "donor", "start": 1, "end": 3, "max_cells": 20, **options}
    return cd.tl.fate_map(s.few, s.timed, **asked)


def _of_a(s: Scope) -> ad.AnnData:
    return s.predicted[s.predicted.obs["perturbation"] == "A"].copy()


def _in_a_layer(adata: ad.AnnData) -> None:
    adata.layers["umis"] = adata.X.copy()
    adata.X = np.log1p(dense(adata))


def _evaluated(s: Scope, *more: Any) -> str:
    s.predicted.write_h5ad(s.folder / "p.h5ad")
    s.adata.write_h5ad(s.folder / "t.h5ad")
    return terminal("evaluate", s.folder / "p.h5ad", s.folder / "t.h5ad", *more)


def _trained(s: Scope, output: Path, *more: Any, before: bool = False) -> str:
    s.adata.write_h5ad(s.folder / "t.h5ad")
    if before:
        s.model.save(output)
    return terminal("train", s.folder / "t.h5ad", "-o", output, "--tokenizer", "modules",
                    "--max-epochs", "0", *more)  # fmt: skip
