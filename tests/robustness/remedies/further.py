"""Of leaks, submissions, damaged checkpoints, and of what is reached less often."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pytest
import torch
from scipy import sparse

import celldit as cd
from celldit import CellDiT
from celldit.data import check_no_leak
from celldit.evaluation.challenge.submission import check_submission, submission
from celldit.io.locks import sole_writer
from celldit.tokenizers import GeneSets, Modules
from celldit.training.saving.checkpoints import SUFFIX

from .case import Case, Scope, dense
from .data import quietly
from .files import again, opened, saved, text, train, written
from .model import loaded
from .tools import _of_a, draw, model_and_query, only, pair, report, score, terminal, with_obs


def halves(s: Scope) -> tuple[ad.AnnData, ad.AnnData]:
    first = np.arange(s.adata.n_obs) < 240
    return s.adata[first].copy(), s.adata[~first].copy()


def components(s: Scope, rows: np.ndarray) -> ad.AnnData:
    """Cells whose principal components were fitted on some rows, and are those of all."""
    log = np.log1p(dense(s.adata))
    mean = log[rows].mean(axis=0)
    axes = np.linalg.svd(log[rows] - mean, full_matrices=False)[2][:5]
    s.adata.obsm["X_pca"] = (log - mean) @ axes.T
    return s.adata


def copied(s: Scope) -> tuple[ad.AnnData, ad.AnnData]:
    one, two = halves(s)
    two = ad.concat([two, one[one.obs["perturbation"] == "A"][:2]])
    two.obs_names = [f"test{i}" for i in range(two.n_obs)]
    return one, two


def submitted(s: Scope, **change: Any) -> ad.AnnData:
    asked = {"predicted": s.predicted, "genes": list(s.adata.var_names), "control": s.adata}
    return submission(**{**asked, **change})


def checked(s: Scope, change: Any) -> None:
    made = submitted(s)
    changed = change(made)
    check_submission(made if changed is None else changed, list(s.adata.var_names))


def panel(s: Scope, **options: Any) -> Any:
    return score(s, preset="vcc2026", engine="celldit", **options)


def damaged_checkpoint(s: Scope, content: bytes) -> Any:
    train(s, max_epochs=1)
    for path in (s.folder / "steps").rglob(f"*{SUFFIX}"):
        path.write_bytes(content)
    return train(s, max_epochs=1)


def fitted(s: Scope, make: Any) -> Any:
    cells = opened(written(s))
    return make().fit(cells), cells


def _on_a_gpu(s: Scope) -> Any:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    return train(s, accelerator="gpu")


GIVEN = {"ONE": [f"gene{i}" for i in range(12)]}


def tokens(s: Scope, change: Any, make: Any = Modules) -> Any:
    """What a tokenizer fitted on some cells says of others."""
    tokenizer, _ = fitted(s, make)
    other = Scope(change(s.adata.copy()), s.model, s.folder, s.train_tiny)
    return tokenizer(opened(written(other)))


def held(s: Scope) -> Any:
    """A model written while another thread writes there."""
    import threading

    ready, done = threading.Event(), threading.Event()

    def hold() -> None:
        with sole_writer(s.folder / "model"):
            ready.set()
            done.wait(20)

    other = threading.Thread(target=hold)
    other.start()
    ready.wait(20)
    try:
        s.model.save(s.folder / "model")
    finally:
        done.set()
        other.join()


def damaged_rows(file: h5py.File) -> None:
    file["X/indptr"][3] = 10**6


# fmt: off
CASES: dict[str, Case] = {
    # --- leaks
    "cells on both sides": Case(
        lambda s: check_no_leak(s.adata, s.adata), "split again",
        lambda s, m: check_no_leak(*halves(s))),
    "copies under another name": Case(
        lambda s: check_no_leak(*copied(s)), "so drop them",
        lambda s, m: check_no_leak(*halves(s))),
    "components that know the test cells": Case(
        lambda s: (components(s, np.ones(480, bool)), check_no_leak(*halves(s))),
        "or delete it if nothing depends on it",
        lambda s, m: (s.adata.obsm.pop("X_pca"), check_no_leak(*halves(s)))),
    "components of other cells": Case(
        lambda s: (components(s, np.arange(480) % 3 == 0), check_no_leak(*halves(s))),
        "or delete it", lambda s, m: (s.adata.obsm.pop("X_pca"), check_no_leak(*halves(s)))),
    # --- stores
    "rows of a store that point outside": Case(
        lambda s: opened(written(s, damaged_rows)), "write it again from the data",
        lambda s, m: again(s)),
    "a backed file of another shape": Case(
        lambda s: _shrunk(s), "write it again", lambda s, m: again(s)),
    # --- features and splits
    "expression of cells on disk": Case(
        lambda s: cd.pp.gene_features(s.adata, "expression", n_components=0), "at least 1",
        lambda s, m: quietly(lambda: cd.pp.gene_features(
            s.adata, "expression", n_components=2, allow_missing=True))),
    "a combination that cannot be held out": Case(
        lambda s: cd.pp.split(s.setup(_without_singles(s)), "combination", test=["A+B"], n_seen=2),
        "too few of them occur as single perturbations",
        lambda s, m: cd.pp.split(s.adata, "combination", test=["A+B"], n_seen=1)),
    # --- scores
    "more genes than the truth's": Case(
        lambda s: score(s, truth=s.adata[:, :30].copy(), metrics="pearson"),
        r"align it with (?P<code>predicted = predicted\[:, truth\.var_names\]\.copy\(\))",
        lambda s, m: quietly(lambda: score(
            s, truth=s.adata[:, :30].copy(), metrics="pearson", predicted=s.run(
                m, predicted=s.predicted, truth=s.adata[:, :30])["predicted"]))),
    "a prediction without library sizes": Case(
        lambda s: score(s, truth=_sized(s), predicted=_unsized(s), metrics="pearson"),
        r"add predicted\.obs\['(?P<name>\w+)'\], the library sizes",
        lambda s, m: score(s, truth=_sized(s), metrics="pearson", predicted=with_obs(
            _unsized(s), **{m["name"]: 100.0}))),
    "a panel of few perturbations": Case(
        lambda s: panel(s, predicted=_of_a(s)), "so use metrics= for single ones",
        lambda s, m: score(s, metrics="pearson")),
    "a panel of log expression": Case(
        lambda s: panel(s, predicted=_without_counts(s)), "give counts, as CellDiT.predict",
        lambda s, m: quietly(lambda: panel(s))),
    "a panel of few controls": Case(
        lambda s: panel(s, control=only(s, "control")[:20].copy()),
        "pass more of them as control",
        lambda s, m: quietly(lambda: panel(s, control=only(s, "control")))),
    "a panel with an engine that is none": Case(
        lambda s: score(s, preset="vcc2026", engine="cell-eval"), "Did you mean '(?P<name>[^']+)'",
        lambda s, m: score(s, metrics="pearson", engine=m["name"])),
    "a panel of a truth without perturbations": Case(
        lambda s: panel(s, truth=s.setup(perturbation_key=None)),
        r"call celldit\.CellDiT\.setup_anndata\(truth, perturbation_key=",
        lambda s, m: score(s, truth=s.setup(), metrics="pearson")),
    "scores of the metric that is none": Case(
        lambda s: cd.tl.headroom(s.compared, "mine", "other", metric="pearso"),
        "Did you mean '(?P<name>[^']+)'",
        lambda s, m: cd.tl.headroom(s.compared, "mine", "other", metric=m["name"])),
    "a report of nothing that can be scored": Case(
        lambda s: report(s, min_cells=9999), "lower min_cells, or add cells",
        lambda s, m: report(s, min_cells=5)),
    # --- submissions
    "a submission without controls": Case(
        lambda s: submitted(s, control=only(s, "A")), "pass measured ones, or name their label",
        lambda s, m: submitted(s)),
    "a submission of genes in another order": Case(
        lambda s: checked(s, lambda a: a[:, ::-1].copy()), "make it with celldit submission",
        lambda s, m: _submitted_in_the_terminal(s)),
    "a submission without labels": Case(
        lambda s: checked(s, lambda a: a.obs.__delitem__("target")), r"has no obs\['target'\]",
        lambda s, m: checked(s, lambda a: None)),
    "a submission of logarithms": Case(
        lambda s: checked(s, lambda a: setattr(a, "X", a.X.log1p())), "write the counts that were",
        lambda s, m: checked(s, lambda a: None)),
    "a submission of empty cells": Case(
        lambda s: checked(s, lambda a: setattr(a, "X", a.X * 0)), "leave them out or draw them",
        lambda s, m: checked(s, lambda a: None)),
    "a list of genes that is none": Case(
        lambda s: _submitted_in_the_terminal(s, "--panel", text(s, b"\xff", "genes.txt")),
        "cannot be read", lambda s, m: _submitted_in_the_terminal(s)),
    # --- tokenizers
    "a tokenizer that was not fitted": Case(
        lambda s: Modules()(opened(written(s))), r"call \.fit\(cells\)",
        lambda s, m: (lambda made: made[0](made[1]))(fitted(s, Modules))),
    "a tokenizer and fewer genes": Case(
        lambda s: tokens(s, lambda a: a[:, 2:].copy()), "give cells that have them all",
        lambda s, m: tokens(s, lambda a: a)),
    "a tokenizer and more genes": Case(
        lambda s: tokens(s, _with_one_gene_more), "was not fitted on",
        lambda s, m: tokens(s, lambda a: a)),
    "a tokenizer and genes in another order": Case(
        lambda s: tokens(s, lambda a: a[:, ::-1].copy()), "in another order",
        lambda s, m: tokens(s, lambda a: a)),
    "a tokenizer of no value": Case(
        lambda s: Modules(n_values=0), "whole number of at least 1",
        lambda s, m: Modules(n_values=1)),
    "gene sets that cover little": Case(
        lambda s: fitted(s, lambda: GeneSets(GIVEN, min_size=1, min_overlap=1)),
        "Give sets that cover more",
        lambda s, m: fitted(s, lambda: GeneSets({"ALL": list(s.adata.var_names)}))),
    # --- training and models
    "a checkpoint that is damaged": Case(
        lambda s: damaged_checkpoint(s, b"x" * 200), "delete it to start this part",
        lambda s, m: (shutil.rmtree(s.folder / "steps"), train(s, max_epochs=1))),
    "a lock that is held": Case(held, "wait until it has finished",
                                lambda s, m: s.model.save(s.folder / "model")),
    "a GPU that is not there": Case(
        _on_a_gpu, '(?P<name>accelerator="cpu")',
        lambda s, m: train(s, "other", accelerator="cpu")),
    "genes of an autoencoder that are new": Case(
        lambda s: CellDiT(_with_one_gene_more(s.adata[:, 3:].copy(), s), autoencoder=s.model),
        "Missing genes count as lying at their mean",
        lambda s, m: CellDiT(s.adata, autoencoder=s.model)),
    "a combination of covariates that does not occur": Case(
        lambda s: _two_covariates(s).generate(2, covariates={"donor": "d1", "lane": "b"}),
        "ask for a combination of covariates that occurs",
        lambda s, m: _two_covariates(s).generate(2, covariates={"donor": "d1", "lane": "a"})),
    "a model that cannot be used": Case(
        lambda s: CellDiT.load(saved(s, _without_contexts)), "copy (the model again|or train it)",
        lambda s, m: (shutil.rmtree(s.folder / "model"), loaded(s))),
    # --- plots
    "an embedding of one gene": Case(
        lambda s: draw("embedding", s.adata[:, :1].copy(), s.predicted[:, :1].copy()),
        "at least two measured cells and two genes", lambda s, m: draw("embedding", *pair(s),
                                                                       max_cells=50)),
    # --- the terminal
    "a report's effects that are none": Case(
        lambda s: _reported(s, "--predicted-effects", text(s, b"\xff", "e.csv")),
        "cannot be read from",
        lambda s, m: (s.model.predict_effects(["A"]).to_csv(s.folder / "e.csv"),
                      _reported(s, "--predicted-effects", s.folder / "e.csv"))),
    "an output below a file": Case(
        lambda s: (text(s, "", "f"), terminal("predict", *model_and_query(s), "-p", "A", "-o",
                                              s.folder / "f" / "b.h5ad")), "Cannot make the folder",
        lambda s, m: terminal("predict", *model_and_query(s), "-p", "A", "-o",
                              s.folder / "g" / "b.h5ad")),
}
# fmt: on


def _shrunk(s: Scope) -> Any:
    """A backed AnnData whose file holds fewer cells than it said when it was opened."""
    written(s)
    seen = ad.read_h5ad(s.folder / "a.h5ad", backed="r")
    seen.file.close()
    s.adata[:100].copy().write_h5ad(s.folder / "a.h5ad")
    return CellDiT(seen, "modules")


def _without_singles(s: Scope) -> ad.AnnData:
    return s.adata[s.adata.obs["perturbation"] != "A"].copy()


def _sized(s: Scope) -> ad.AnnData:
    s.adata.obs["n"] = s.adata.X.sum(axis=1).A1
    return s.setup(size_factor_key="n")


def _unsized(s: Scope) -> ad.AnnData:
    predicted = s.predicted.copy()
    del predicted.obs["size_factor"]
    return predicted


def _submitted_in_the_terminal(s: Scope, *more: Any) -> str:
    s.predicted.write_h5ad(s.folder / "p.h5ad")
    return terminal("submission", s.folder / "p.h5ad", written(s), "-o", s.folder / "s.h5ad", *more)


def _with_one_gene_more(adata: ad.AnnData, s: Scope | None = None) -> ad.AnnData:
    counts = sparse.hstack([adata.X, np.ones((adata.n_obs, 1))]).tocsr()
    wider = ad.AnnData(counts, obs=adata.obs.copy(), uns=adata.uns.copy())
    wider.var_names = [*adata.var_names, "other"]
    return wider


def _without_counts(s: Scope) -> ad.AnnData:
    predicted = s.predicted.copy()
    predicted.layers.clear()
    return predicted


def _two_covariates(s: Scope) -> CellDiT:
    def change(adata: ad.AnnData) -> None:
        adata.obs["lane"] = np.where(adata.obs["donor"] == "d1", "a", "b")

    return s.other("two covariates", change, covariate_keys=["donor", "lane"])


def _without_contexts(folder: Path) -> None:
    import json

    path = folder / "config.json"
    content = json.loads(path.read_text())
    content["population"] = {}
    path.write_text(json.dumps(content))


def _reported(s: Scope, *more: Any) -> str:
    s.predicted.write_h5ad(s.folder / "p.h5ad")
    return terminal("evaluate", s.folder / "p.h5ad", written(s), "--report", s.folder / "r.html",
                    "--overwrite", *more)  # fmt: skip
