"""Of setting up, of counts, labels, guides, splits and features."""

from __future__ import annotations

import warnings
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

import celldit as cd

from .case import ARGUMENTS, Case, Scope, arguments, dense, logged

CODE = r"(?P<code>(?:adata|spelt|sc)\b.*[)\]])"


def changed(s: Scope, **obs: Any) -> ad.AnnData:
    for name, values in obs.items():
        s.adata.obs[name] = values
    return s.adata


def label(s: Scope, **names: str) -> ad.AnnData:
    return changed(s, perturbation=s.adata.obs["perturbation"].astype(str).replace(names))


def first(s: Scope, value: Any, name: str = "perturbation") -> ad.AnnData:
    values = s.adata.obs[name].to_numpy(dtype=object)
    values[3] = value
    return changed(s, **{name: values})


def matrix(s: Scope, values: Any) -> ad.AnnData:
    s.adata.X = values
    return s.adata


def with_value(s: Scope, value: float) -> Any:
    table = dense(s.adata)
    table[0, 0] = value
    return table


def in_a_layer(s: Scope) -> None:
    s.adata.layers["umis"] = s.adata.X.copy()
    s.adata.X = logged(s.adata)


def in_raw(s: Scope) -> None:
    s.adata.raw = s.adata.copy()
    s.adata.X = logged(s.adata)


def wrong_layer(s: Scope) -> None:
    s.adata.layers["logs"] = logged(s.adata)


def backed(s: Scope) -> ad.AnnData:
    s.adata.write_h5ad(s.folder / "a.h5ad")
    return ad.read_h5ad(s.folder / "a.h5ad", backed="r")


def no_counts_in(s: Scope, n: int) -> ad.AnnData:
    table = dense(s.adata)
    table[:n] = 0
    return matrix(s, sparse.csr_matrix(table))


def without_counts_in_genes(s: Scope) -> ad.AnnData:
    """Cells with counts in one gene only, which the model does not know."""
    table = dense(s.adata)
    table[:2] = 0
    extra = np.zeros((s.adata.n_obs, 1))
    extra[:2] = 5
    query = ad.AnnData(sparse.csr_matrix(np.hstack([table, extra])), obs=s.adata.obs.copy())
    query.var_names = [*s.adata.var_names, "other"]
    return query


def features(s: Scope) -> pd.DataFrame:
    return pd.DataFrame(np.random.default_rng(0).normal(size=(3, 4)), index=["A", "B", "C"])


def guides(s: Scope, *names: str, genes: bool = True) -> ad.AnnData:
    s.adata.obs["guide"] = [names[i % len(names)] for i in range(s.adata.n_obs)]
    return s.adata


def quietly(use: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return use()


def merged(s: Scope, **options: Any) -> Any:
    return cd.pp.merge_guides(s.adata, "guide", **options)


def genes_of(s: Scope, source: Any, **options: Any) -> Any:
    return cd.pp.gene_features(s.adata, source, **{"allow_missing": True, **options})


def described(s: Scope, **options: Any) -> Any:
    """Features of perturbations that are genes."""
    s.adata.obs["perturbation"] = s.adata.obs["perturbation"].replace(
        {"A": "STAT1", "B": "IRF1", "C": "JAK2", "A+B": "STAT1+IRF1"}
    )
    return cd.pp.gene_features(s.setup(), **{"source": "reactome", **options})


GENE_TABLE = pd.DataFrame({"x": [1.0, 2.0, 4.0]}, index=["A", "B", "C"])
# fmt: off
CASES: dict[str, Case] = {
    # --- arguments of the setup
    "not an AnnData": Case(
        lambda s: cd.CellDiT.setup_anndata(s.adata.to_df()), r"read one with scanpy\.read_h5ad\(",
        lambda s, m: (s.adata.write_h5ad(s.folder / "a.h5ad"),
                      s.setup(ad.read_h5ad(s.folder / "a.h5ad")))),
    "no AnnData to a model": Case(
        lambda s: cd.CellDiT(3), r"Expected an AnnData, a path, or what cd\.open_store\(\) gives",
        lambda s, m: (s.adata.write_h5ad(s.folder / "a.h5ad"), cd.CellDiT(s.folder / "a.h5ad",
                                                                          "modules"))),
    "a separator that is a number": Case(
        lambda s: s.setup(perturbation_sep=1), r"such as '(?P<sep>.)'",
        lambda s, m: s.setup(perturbation_sep=m["sep"])),
    "an empty separator": Case(
        lambda s: s.setup(perturbation_sep=""), "give the text between two perturbations",
        lambda s, m: s.setup(perturbation_sep="+")),
    "an empty control": Case(
        lambda s: s.setup(control=""), "give the label of unperturbed cells",
        lambda s, m: s.setup(control="control")),
    "no control named": Case(
        lambda s: s.setup(control=[]), "give that of unperturbed cells",
        lambda s, m: s.setup(control=["control"])),
    "a role as a number": Case(
        lambda s: s.setup(covariate_keys=[3]), "takes names of columns as text",
        lambda s, m: s.setup(covariate_keys=["donor"])),
    "covariates as a number": Case(
        lambda s: s.setup(covariate_keys=3), r"such as (?P<keys>\['donor'\])",
        lambda s, m: s.setup(covariate_keys=eval(m["keys"]))),
    "a column named twice": Case(
        lambda s: s.setup(covariate_keys=["perturbation"]), "one column has one meaning",
        lambda s, m: s.setup(covariate_keys=[])),
    "a dose of nothing": Case(
        lambda s: s.setup(perturbation_key=None, dose_key="d"), "dose_key needs perturbation_key",
        lambda s, m: (changed(s, d=1.0), s.setup(dose_key="d"))),
    "a column that is not there": Case(
        lambda s: s.setup(perturbation_key="perturbatoin"), "Did you mean '(?P<name>[^']+)'",
        lambda s, m: s.setup(perturbation_key=m["name"])),
    "a layer that is not there": Case(
        lambda s: (in_a_layer(s), s.setup(counts_layer="umi")), "Did you mean '(?P<name>[^']+)'",
        lambda s, m: s.setup(counts_layer=m["name"])),
    "a layer as a number": Case(
        lambda s: (in_a_layer(s), s.setup(counts_layer=1)), "takes the name of a layer as text",
        lambda s, m: s.setup(counts_layer="umis")),
    "columns of one name": Case(
        lambda s: (setattr(s.adata, "obs", pd.concat([s.adata.obs, s.adata.obs[["donor"]]],
                                                     axis=1)), s.setup()),
        "rename all but one",
        lambda s, m: (setattr(s.adata.obs, "columns", ["perturbation", "donor", "donor2"]),
                      s.setup())),
    "a view of a backed AnnData": Case(
        lambda s: s.setup(backed(s)[:200]), "memory first, with " + CODE,
        lambda s, m: s.setup(s.run(m, adata=ad.read_h5ad(s.folder / "a.h5ad",
                                                         backed="r")[:200])["adata"])),
    "not set up": Case(
        lambda s: (s.adata.uns.clear(), cd.CellDiT(s.adata)),
        r"call celldit\.CellDiT\.setup_anndata\(adata, perturbation_key=",
        lambda s, m: cd.CellDiT(s.setup(), "modules")),
    "a setup of a later version": Case(
        lambda s: (s.adata.uns["celldit"]["setup"].update(sex_key="sex"), cd.CellDiT(s.adata)),
        "entries that celldit does not know", lambda s, m: cd.CellDiT(s.setup(), "modules")),
    # --- columns
    "another control": Case(
        lambda s: s.setup(label(s, control="DMSO")), "pass " + ARGUMENTS,
        lambda s, m: s.setup(**arguments(m))),
    "a control of any name": Case(
        lambda s: s.setup(label(s, control="zzz")), "pass control=... with the label of the unpert",
        lambda s, m: s.setup(control="zzz")),
    "no control at all": Case(
        lambda s: s.setup(s.adata[s.adata.obs["perturbation"] == "A"].copy()), "or add such cells",
        lambda s, m: s.setup()),
    "missing labels": Case(
        lambda s: s.setup(first(s, None)), "drop those cells: " + CODE,
        lambda s, m: s.setup(s.run(m)["adata"])),
    "an empty label": Case(
        lambda s: s.setup(first(s, " ")), "name what was done to the cell",
        lambda s, m: s.setup(first(s, "A"))),
    "the separator in names": Case(
        lambda s: s.setup(label(s, **{"A+B": "(+)-AB", "C": "A"})), "pass " + ARGUMENTS,
        lambda s, m: s.setup(**arguments(m))),
    "no numbers": Case(
        lambda s: s.setup(changed(s, t="day10.5"), time_key="t"),
        r"convert the column, for example '(?P<old>\S+)' to (?P<new>\S+), and dates",
        lambda s, m: s.setup(changed(s, t=s.adata.obs["t"].replace({m["old"]: float(m["new"])})),
                             time_key="t")),
    "dates as times": Case(
        lambda s: s.setup(changed(s, t=pd.Timestamp("2026-01-01")
                                  + pd.to_timedelta(np.arange(s.adata.n_obs) % 2, "D")),
                          time_key="t"),
        r"such as (?P<code>adata\.obs.*'1h'\))\.",
        lambda s, m: s.setup(s.run(m, pd=pd)["adata"], time_key="hours")),
    "a time of few cells": Case(
        lambda s: s.setup(changed(s, t=(np.arange(s.adata.n_obs) < 5) * 1.0), time_key="t"),
        "a neighbouring time for these cells",
        lambda s, m: s.setup(changed(s, t=(np.arange(s.adata.n_obs) < 40) * 1.0), time_key="t")),
    "minutes as times": Case(
        lambda s: s.setup(changed(s, t=np.arange(s.adata.n_obs) * 1.0), time_key="t"),
        "write the times of your own choice into the column",
        lambda s, m: s.setup(changed(s, t=np.arange(s.adata.n_obs) // 240 * 1.0), time_key="t")),
    "sizes of 0": Case(
        lambda s: s.setup(changed(s, n=np.arange(s.adata.n_obs)), size_factor_key="n"),
        "drop those cells or name another column",
        lambda s, m: s.setup(s.adata[s.adata.obs["n"] > 0].copy(), size_factor_key="n")),
    "sizes of no cell": Case(
        lambda s: s.setup(changed(s, n=1e12), size_factor_key="n"),
        "name the column with the total counts of each cell",
        lambda s, m: s.setup(changed(s, n=s.adata.X.sum(axis=1).A1), size_factor_key="n")),
    "sizes relative to a typical cell": Case(
        lambda s: s.setup(changed(s, n=np.linspace(0.5, 2, s.adata.n_obs)), size_factor_key="n"),
        r"the mean total counts of a cell, in Python (?P<code>adata\.obs.*mean\(\))\.",
        lambda s, m: s.setup(s.run(m)["adata"], size_factor_key="n")),
    "values that hold the joiner": Case(
        lambda s: s.setup(changed(s, lane="a | b"), covariate_keys=["donor", "lane"]),
        "rename them",
        lambda s, m: s.setup(changed(s, lane="a-b"), covariate_keys=["donor", "lane"])),
    "a covariate that was measured": Case(
        lambda s: s.setup(changed(s, share=np.linspace(0, 1, s.adata.n_obs)),
                          covariate_keys=["donor", "share"]),
        r"into few bins, in Python (?P<code>adata\.obs.*astype\(str\))\.",
        lambda s, m: s.setup(s.run(m, pandas=pd)["adata"], covariate_keys=["donor", "share"])),
    "a dose of a combination": Case(
        lambda s: s.setup(changed(s, d="1+2+3"), dose_key="d"), "give one number, or one for each",
        lambda s, m: s.setup(changed(s, d="1"), dose_key="d")),
    "a cell without its dose": Case(
        lambda s: s.setup(changed(s, d=np.nan), dose_key="d"), "have none, so give it one",
        lambda s, m: s.setup(changed(s, d=np.where(s.adata.obs["perturbation"] == "control",
                                                   np.nan, 1.0)), dose_key="d")),
    "a dose that is none": Case(
        lambda s: s.setup(changed(s, d="high"), dose_key="d"), "a number of at least 0, nor sever",
        lambda s, m: s.setup(changed(s, d=2), dose_key="d")),
    "a part with two doses": Case(
        lambda s: (label(s, **{"A+B": "A+A"}), s.setup(changed(s, d=[
            "1+2" if p == "A+A" else "1" for p in s.adata.obs["perturbation"]]), dose_key="d")),
        "names 'A' twice with different doses",
        lambda s, m: s.setup(changed(s, d="1"), dose_key="d")),
    # --- warnings of labels
    "split into what is never a label": Case(
        lambda s: s.setup(label(s, **{"A+B": "X+Y"})), "pass " + ARGUMENTS,
        lambda s, m: s.setup(**arguments(m))),
    # --- counts
    "no cells": Case(
        lambda s: s.setup(s.adata[:0].copy()), "has no cells",
        lambda s, m: s.setup()),
    "an empty X": Case(
        lambda s: (in_a_layer(s), setattr(s.adata, "X", None), s.setup()),
        "name a layer that holds them with counts_layer=",
        lambda s, m: s.setup(counts_layer="umis")),
    "text in place of numbers": Case(
        lambda s: s.setup(ad.AnnData(s.adata.X.toarray().astype(str), obs=s.adata.obs)),
        "store raw counts", lambda s, m: s.setup()),
    "missing values": Case(
        lambda s: s.setup(matrix(s, with_value(s, np.nan))), "so replace or remove them",
        lambda s, m: s.setup(matrix(s, np.nan_to_num(s.adata.X)))),
    "negative values": Case(
        lambda s: (in_a_layer(s), s.setup(matrix(s, with_value(s, -1.0)))), "pass " + ARGUMENTS,
        lambda s, m: s.setup(**arguments(m))),
    "values of no molecules": Case(
        lambda s: (in_raw(s), s.setup(matrix(s, with_value(s, 1e9)))),
        r"pass (?P<code>adata\.raw\.to_adata\(\)) instead of adata",
        lambda s, m: s.setup(eval(m["code"], {"adata": s.adata}))),
    "logarithms beside a layer": Case(
        lambda s: (in_a_layer(s), s.setup()), "pass " + ARGUMENTS,
        lambda s, m: s.setup(**arguments(m))),
    "logarithms in the layer": Case(
        lambda s: (wrong_layer(s), s.setup(counts_layer="logs")), "leave counts_layer out",
        lambda s, m: s.setup()),
    "logarithms and nothing else": Case(
        lambda s: (setattr(s, "counts", s.adata.X), s.setup(matrix(s, logged(s.adata)))),
        r"Store them in a layer and pass counts_layer=\.\.\. to CellDiT\.setup_anndata",
        lambda s, m: (s.adata.layers.update(counts=s.counts), s.setup(counts_layer="counts"))),
    "corrected counts": Case(
        lambda s: s.setup(matrix(s, sparse.csr_matrix(dense(s.adata) * 0.93))),
        r"round them first: (?P<code>.*\.rint\(\)), and pass " + ARGUMENTS,
        lambda s, m: (s.run(m), s.setup(**arguments(m)))),
    "whole numbers that are no counts": Case(
        lambda s: (in_a_layer(s), s.setup(matrix(s, sparse.csr_matrix(np.rint(
            1e6 * dense(s.adata) / dense(s.adata).sum(axis=1, keepdims=True)))))),
        "pass " + ARGUMENTS, lambda s, m: s.setup(**arguments(m))),
    "cells without counts": Case(
        lambda s: s.setup(no_counts_in(s, 5)), "remove them with " + CODE,
        lambda s, m: s.setup(s.run(m)["adata"])),
    "cells without counts in these genes": Case(
        lambda s: s.model.predict(without_counts_in_genes(s), perturbations="A"),
        "remove them with sc.pp.filter_cells",
        lambda s, m: s.model.predict(without_counts_in_genes(s)[2:].copy(), perturbations="A")),
    "a matrix that points outside": Case(
        lambda s: (s.adata.X.indices.__setitem__(0, 99), s.setup()),
        "write it again from the data that it was made of",
        lambda s, m: (s.adata.X.indices.__setitem__(0, 0), s.setup())),
    # --- genes
    "doubled genes": Case(
        lambda s: (setattr(s.adata, "var_names", [f"g{i // 2}" for i in range(40)]), s.setup()),
        r"call (?P<code>adata\.var_names_make_unique\(\)) first",
        lambda s, m: (s.run(m), s.setup())),
    "antibodies among the genes": Case(
        lambda s: (s.adata.var.insert(0, "feature_types", ["Gene Expression"] * 38 +
                                      ["Antibody Capture"] * 2), s.setup()),
        "select the genes: " + CODE, lambda s, m: s.setup(s.run(m)["adata"])),
    "names of antibodies": Case(
        lambda s: (setattr(s.adata, "var_names", ["CD4_TotalSeqB", *s.adata.var_names[1:]]),
                   s.setup()),
        "select the genes: " + CODE, lambda s, m: s.setup(s.run(m)["adata"])),
    "genes spelt otherwise": Case(
        lambda s: (setattr(s.adata, "var_names", s.adata.var_names.str.upper()),
                   s.model.predict(s.adata, perturbations="A")),
        "as the model does: " + r"(?P<code>spelt = .*\])",
        lambda s, m: (s.run(m, model=s.model), s.model.predict(s.adata, perturbations="A"))),
    "genes that were not measured": Case(
        lambda s: s.model.predict(s.adata[:, 2:].copy(), perturbations="A"),
        r"let model\.predict\(\.\.\., (?P<arguments>missing=\"impute\")\) fill them in",
        lambda s, m: quietly(lambda: s.model.predict(
            s.adata[:, 2:].copy(), perturbations="A", **arguments(m)))),
    "most genes missing": Case(
        lambda s: s.model.predict(s.adata[:, :9].copy(), perturbations="A", missing="impute"),
        "give data with at least half of them",
        lambda s, m: quietly(lambda: s.model.predict(
            s.adata[:, :25].copy(), perturbations="A", missing="impute"))),
    "another way with missing genes": Case(
        lambda s: s.model.predict(s.adata, perturbations="A", missing="drop"),
        'must be "(?P<way>refuse)" or "impute"',
        lambda s, m: s.model.predict(s.adata, perturbations="A", missing=m["way"])),
    # --- guides
    "guides that are not there": Case(
        lambda s: cd.pp.merge_guides(s.adata, "guide", key_added="guide"), "known:",
        lambda s, m: (guides(s, "A_1", "NT_1"), merged(s))),
    "guides overwritten": Case(
        lambda s: (guides(s, "A_1", "NT_1"), merged(s, key_added="guide")),
        'give another name, such as "(?P<name>[^"]+)"',
        lambda s, m: merged(s, key_added=m["name"])),
    "guides joined otherwise": Case(
        lambda s: (guides(s, "STAT1_1;JAK2_1", "NT_1", "STAT1_2"), merged(s, sep="|")),
        "pass " + ARGUMENTS,
        lambda s, m: (merged(s, **arguments(m)), s.setup(perturbation_key="target"))),
    "a pattern without a target": Case(
        lambda s: (guides(s, "STAT1_sg1", "NT_1"), merged(s, pattern="(.+)_sg.*")),
        r'write it as "(?P<pattern>.*)"\.$', lambda s, m: merged(s, pattern=m["pattern"],
                                                                control_guides=["NT_1"])),
    "a pattern that is none": Case(
        lambda s: (guides(s, "STAT1_sg1", "NT_1"), merged(s, pattern="(")),
        "is not a regular expression", lambda s, m: merged(s, pattern="(?P<target>[^_]+)_.*")),
    "a pattern that finds nothing": Case(
        lambda s: (guides(s, "STAT1_sg1", "NT_1"), merged(s, pattern="(?P<target>)S.*")),
        "finds no target", lambda s, m: merged(s, pattern="(?P<target>[^_]+)_.*")),
    "a target with a plus": Case(
        lambda s: (guides(s, "a+b_1", "NT_1"), merged(s, sep=";", pattern="(?P<target>.+)_1")),
        "give a pattern= that finds a target without it",
        lambda s, m: merged(s, sep=";", pattern=r"(?P<target>\w).*_1")),
    "names that are no guides": Case(
        lambda s: (guides(s, "xyz_abc", "NT_1"), merged(s)),
        "pass pattern= that finds their target, and control_guides= with",
        lambda s, m: merged(s, pattern="(?P<target>[^_]+)_.*", control_guides=["NT_1"])),
    "guides half cut": Case(
        lambda s: (guides(s, "STAT1_KO_1", "NT_1"), merged(s)),
        "pass pattern= that finds their target, and control_guides= with",
        lambda s, m: merged(s, pattern="(?P<target>[^_]+)_.*", control_guides=["NT_1"])),
    # --- splits
    "a way to split that is none": Case(
        lambda s: cd.pp.split(s.adata, "perturbatoin"), "Did you mean '(?P<by>[^']+)'",
        lambda s, m: cd.pp.split(s.adata, m["by"])),
    "a split of cells without perturbations": Case(
        lambda s: cd.pp.split(s.setup(perturbation_key=None), "perturbation"),
        "use " + ARGUMENTS, lambda s, m: cd.pp.split(s.adata, **arguments(m))),
    "a split by contexts without any": Case(
        lambda s: cd.pp.split(s.setup(covariate_keys=[]), "context"),
        "name them in setup_anndata with covariate_keys",
        lambda s, m: cd.pp.split(s.setup(), "context")),
    "a number of parts without combinations": Case(
        lambda s: cd.pp.split(s.adata, "perturbation", n_seen=1),
        r"goes with (?P<arguments>by=\"\w+\")",
        lambda s, m: cd.pp.split(s.adata, n_seen=2, **arguments(m))),
    "a test as text": Case(
        lambda s: cd.pp.split(s.adata, test="A"), r"such as (?P<test>\['A'\])",
        lambda s, m: cd.pp.split(s.adata, test=eval(m["test"]))),
    "an empty test": Case(
        lambda s: cd.pp.split(s.adata, test=[]), "leave it out for a draw",
        lambda s, m: cd.pp.split(s.adata)),
    "a share that is none": Case(
        lambda s: cd.pp.split(s.adata, fraction=2), "must lie between 0 and 1",
        lambda s, m: cd.pp.split(s.adata, fraction=0.5)),
    "a split over a column of the setup": Case(
        lambda s: cd.pp.split(s.adata, key_added="donor"), "choose another name",
        lambda s, m: cd.pp.split(s.adata, key_added="half")),
    "all held out": Case(
        lambda s: cd.pp.split(s.adata, test=["A", "B", "C", "A+B"]), "hold out less",
        lambda s, m: cd.pp.split(s.adata, test=["A"])),
    "no combination to hold out": Case(
        lambda s: cd.pp.split(s.setup(label(s, **{"A+B": "D"})), "combination"),
        "use " + ARGUMENTS, lambda s, m: cd.pp.split(s.adata, **arguments(m))),
    "too many parts seen": Case(
        lambda s: cd.pp.split(s.setup(label(s, A="D", B="E")), "combination", n_seen=2),
        "choose a smaller n_seen, or None",
        lambda s, m: cd.pp.split(s.adata, "combination", n_seen=None)),
    "one side empty": Case(
        lambda s: cd.pp.split(s.adata, "cells", fraction=1e-9), "choose another fraction",
        lambda s, m: cd.pp.split(s.adata, "cells", fraction=0.3)),
    "a pair that is none": Case(
        lambda s: cd.pp.split(s.adata, "pair", test=["A"]), r"is \(perturbation, context\)",
        lambda s, m: cd.pp.split(s.adata, "pair", test=[("A", "d1")])),
    "a pair that no cell has": Case(
        lambda s: cd.pp.split(s.adata, "pair", test=[("A", "d9")]), r"known: (?P<known>.*)\)",
        lambda s, m: cd.pp.split(s.adata, "pair", test=[("A", "d1")])),
    "one context only": Case(
        lambda s: cd.pp.split(s.setup(s.adata[s.adata.obs["donor"] == "d1"].copy()), "pair"),
        "use " + ARGUMENTS, lambda s, m: cd.pp.split(s.adata, **arguments(m))),
    "a perturbation to hold out that is not there": Case(
        lambda s: cd.pp.split(s.adata, test=["AA"]), "known: 'A'",
        lambda s, m: cd.pp.split(s.adata, test=["A"])),
    # --- features of genes, and of perturbations
    "perturbations that no source describes": Case(
        lambda s: cd.pp.gene_features(s.adata, "hallmark"),
        r"pass (?P<arguments>allow_missing=True)",
        lambda s, m: quietly(lambda: cd.pp.gene_features(s.adata, "hallmark", **arguments(m)))),
    "perturbations in another case": Case(
        lambda s: cd.pp.gene_features(s.setup(label(s, A="Stat1", B="Irf1", C="Jak2",
                                                    **{"A+B": "Stat1+Irf1"})), "reactome"),
        r"Pass (?P<arguments>ignore_case=True)",
        lambda s, m: cd.pp.gene_features(s.adata, "reactome", **arguments(m))),
    "some perturbations without features": Case(
        lambda s: genes_of(s, GENE_TABLE[:2]),
        "they can be predicted only where they are in training",
        lambda s, m: s.model.predict_effects("C")),
    "a source that is none": Case(
        lambda s: cd.pp.gene_features(s.adata, "reactom"), "Did you mean '(?P<name>[^']+)'",
        lambda s, m: described(s, source=m["name"])),
    "a source of another kind": Case(
        lambda s: cd.pp.gene_features(s.adata, 3), "or a mapping from set names to genes",
        lambda s, m: genes_of(s, {"one": ["A", "B", "C"], "two": ["A", "B", "gene1"]})),
    "no source": Case(
        lambda s: cd.pp.gene_features(s.adata, []), r"pass (?P<arguments>source=\[[^\]]+\])",
        lambda s, m: described(s, **arguments(m))),
    "sets of no use": Case(
        lambda s: genes_of(s, {"one": ["A"]}), "between 3 and 500 genes; give others",
        lambda s, m: genes_of(s, {"one": ["A", "B", "C"]})),
    "too few controls": Case(
        lambda s: genes_of(s.__class__(s.setup(s.adata[[0, 1, *range(2, 480, 6)]].copy()), s.model,
                                       s.folder, s.train_tiny), "expression"),
        'use another source, such as "(?P<name>[^"]+)"',
        lambda s, m: described(s, source=m["name"])),
    "a table with a gene twice": Case(
        lambda s: genes_of(s, GENE_TABLE.loc[["A", "A", "B"]]), "drop the duplicates",
        lambda s, m: genes_of(s, GENE_TABLE)),
    "a table with holes": Case(
        lambda s: genes_of(s, GENE_TABLE.replace(1.0, np.nan)), "fill or drop rows",
        lambda s, m: quietly(lambda: genes_of(s, GENE_TABLE.replace(1.0, np.nan).dropna()))),
    "a table of text": Case(
        lambda s: genes_of(s, GENE_TABLE.astype(str) + "x"), "values that are not numbers",
        lambda s, m: genes_of(s, GENE_TABLE)),
    "a table that tells nothing": Case(
        lambda s: genes_of(s, GENE_TABLE * 0 + 1), "give another source",
        lambda s, m: genes_of(s, GENE_TABLE)),
    "features of a backed AnnData": Case(
        lambda s: cd.pp.gene_features(backed(s)), r"memory with (?P<code>adata\.to_memory\(\))",
        lambda s, m: quietly(lambda: cd.pp.gene_features(
            eval(m["code"], {"adata": backed(s)}), "hallmark", allow_missing=True))),
    "features that are no table": Case(
        lambda s: cd.CellDiT(s.adata, "modules", features=3), "one row per perturbation",
        lambda s, m: cd.CellDiT(s.adata, "modules", features=features(s))),
    "features of one twice": Case(
        lambda s: cd.CellDiT(s.adata, "modules", features=features(s).loc[["A", "A", "B", "C"]]),
        "drop duplicates", lambda s, m: cd.CellDiT(s.adata, "modules", features=features(s))),
    "features with holes": Case(
        lambda s: cd.CellDiT(s.adata, "modules", features=features(s).replace(
            features(s).iloc[0, 0], np.nan)), "fill or drop these rows",
        lambda s, m: quietly(lambda: cd.CellDiT(s.adata, "modules", features=features(s)[1:]))),
    "features of text": Case(
        lambda s: cd.CellDiT(s.adata, "modules", features=features(s).astype(str) + "x"),
        "values that are not numbers",
        lambda s, m: cd.CellDiT(s.adata, "modules", features=features(s))),
    "features of nothing": Case(
        lambda s: cd.CellDiT(s.adata, "modules", features=(features(s) * 0)
                             .astype(pd.SparseDtype("float", 0.0))),
        "are zero for every perturbation",
        lambda s, m: cd.CellDiT(s.adata, "modules", features=features(s))),
    "perturbations without features": Case(
        lambda s: cd.CellDiT(s.adata, "modules", features=features(s)[1:]), "so they are used",
        lambda s, m: cd.CellDiT(s.adata, "modules", features=features(s))),
    "drugs that cannot be read": Case(
        lambda s: cd.pp.drug_features({"x": "C", "y": "((("}), "correct or drop them",
        lambda s, m: cd.pp.drug_features({"x": "C", "y": "CCO"})),
    "no drugs": Case(
        lambda s: cd.pp.drug_features({}), r"pass (?P<smiles>\{[^.]*), \.\.\.\}",
        lambda s, m: cd.pp.drug_features(eval(m["smiles"] + "}"))),
    # --- bundled data
    "a data set that is none": Case(
        lambda s: cd.datasets.load("kung"), "Did you mean '(?P<name>[^']+)'",
        lambda s, m: cd.datasets.load(m["name"])),
    "a gene-set file that is none": Case(
        lambda s: cd.datasets.gene_set_file("hallmarks"), "Did you mean '(?P<name>[^']+)'",
        lambda s, m: cd.datasets.gene_set_file(m["name"])),
}
# fmt: on
