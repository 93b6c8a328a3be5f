"""A call with an argument of the wrong kind is refused in celldit's words, not in Python's."""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Callable
from typing import Any

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import celldit as cd
from celldit import CellDiT
from celldit.errors import CellditError, InputError
from celldit.evaluation.baselines import predict_baseline

# What somebody hands over who exchanged two arguments, or took the wrong variable.
STRAY: dict[str, Any] = {
    "a number": 3,
    "text": "text",
    "a function": len,
    "a table": pd.DataFrame({"x": [1]}),
    "an array": np.zeros(3),
    "an empty list": [],
    "an empty dict": {},
    "a strange AnnData": ad.AnnData(np.ones((3, 2), np.float32)),
}


@pytest.fixture(scope="module")
def calls(
    _tiny_screen: ad.AnnData, train_tiny: Callable[..., CellDiT], tmp_path_factory: Any
) -> dict[str, Any]:
    """Every function of tl, pl and pp with arguments that work, by name."""
    folder = tmp_path_factory.mktemp("calls")
    adata = _tiny_screen
    model = train_tiny(adata)
    predicted = model.predict(perturbations=["A"])
    effects = model.predict_effects(["A", "B"])
    probable = cd.tl.effects(adata.copy(), model, ["A", "B"], contexts="d1")
    scores = pd.DataFrame({"pearson": [0.5, 0.9]}, index=["celldit", "ceiling"])
    attention = pd.DataFrame(
        {
            "reader": ["s", "s"],
            "token": ["t", "u"],
            "perturbation": ["A", "A"],
            "attention": [0.4, 0.6],
            "difference": [0.1, -0.1],
        }
    )
    programs = pd.DataFrame(
        {"perturbation": ["A"], "context": ["d1"], "program": ["p"], "share": [1.0]}
    ).assign(effect_model=0.5, network=0.5)
    compared = cd.tl.compare(
        {"celldit": predicted}, adata, adata, baselines=True, equal_cells=True, n_repeats=1
    )
    fates = pd.DataFrame([[0.5, 0.5], [1.0, 0.0]], ["a", "b"], ["a", "b"])
    answered = adata.copy()
    cd.tl.responders(answered)
    cd.tl.interactions(answered)
    dosed = adata[adata.obs["perturbation"].isin(["control", "A"]).to_numpy()].copy()
    dosed.obs["um"] = np.where(dosed.obs["perturbation"] == "A", np.arange(dosed.n_obs) % 4 + 1, 0)
    CellDiT.setup_anndata(dosed, perturbation_key="perturbation", dose_key="um")
    found = {
        "report.explore": (adata, model, folder / "explore.html", ["A"]),
        "tl.attention": (adata, model, "A"),
        "tl.ceiling": (adata, adata),
        "tl.compare": ({"celldit": predicted}, adata, adata),
        "tl.counterfactual": (adata, model, "A"),
        "tl.detectable": (adata, adata),
        "tl.dose_response": (dosed,),
        "tl.dynamic_range": (adata, adata),
        "tl.effects": (adata, model, ["A"]),
        "tl.embed": (adata, model),
        "tl.evaluate": (predicted, adata, adata),
        "tl.fate_map": (adata, model),
        "tl.gene_loadings": (adata, model),
        "tl.headroom": (compared, "celldit", "mean shift"),
        "tl.interactions": (adata,),
        "tl.intervals": (predicted, adata, adata),
        "tl.next_perturbations": (adata, model, ["A+C", "B+C"]),
        "tl.paired": (compared, "celldit", "mean shift"),
        "tl.programs": (adata, model, "A"),
        "tl.rank_perturbations": (adata, model),
        "tl.ranked_genes": (probable,),
        "tl.report": (predicted, adata, adata),
        "tl.responders": (adata, ["A"]),
        "tl.token_activity": (adata, model),
        "pl.attention": (attention, "A"),
        "pl.attention_network": (attention, "A"),
        "pl.calibration": (adata, effects),
        "pl.distributions": (adata, predicted, ["gene1"]),
        "pl.dose_response": (effects, ["gene1"]),
        "pl.effect": (adata, predicted, "A"),
        "pl.effect_heatmap": (effects, ["gene1"]),
        "pl.embedding": (adata, predicted),
        "pl.fate_map": (fates,),
        "pl.interactions": (answered, "A+B"),
        "pl.programs": (programs,),
        "pl.responders": (answered, "A"),
        "pl.scores": (scores, "pearson"),
        "pl.training_curves": (model,),
        "pl.trajectory": (effects, ["gene1"]),
        "pl.volcano": (probable, "A"),
        "pp.drug_features": ({"A": "CCO"},),
        "pp.control_effects": (adata,),
        "pp.effect_table": (adata,),
        "pp.gene_features": (adata,),
        "pp.merge_guides": (adata, "perturbation"),
    }
    return {**found, "model": model, "adata": adata}


NAMES = [f"{part}.{name}" for part in ("tl", "pl") for name in getattr(cd, part).__all__]
NAMES += [
    "pp.control_effects",
    "pp.drug_features",
    "pp.effect_table",
    "pp.gene_features",
    "pp.merge_guides",
    "report.explore",
]


def refused(what: Callable[..., Any], *arguments: Any, **options: Any) -> None:
    """Refused in celldit's words, or harmless; any other error goes through and fails the test."""
    with warnings.catch_warnings(), contextlib.suppress(CellditError):
        warnings.simplefilter("ignore")
        what(*arguments, **options)
    plt.close("all")


#: Options that a function cannot do without, beside what `calls` has.
NEEDED: dict[str, dict[str, Any]] = {
    "tl.rank_perturbations": {"source": {"donor": "d1"}, "target": {"donor": "d2"}},
    "tl.fate_map": {"groupby": "donor", "start": 1, "end": 2},
    "report.explore": {"overwrite": True, "max_cells": 5},
}


def function_of(name: str) -> Callable[..., Any]:
    part, _, last = name.partition(".")
    return getattr(getattr(cd, part), last)


WRITING = [name for name in NAMES if "key_added" in inspect.signature(function_of(name)).parameters]


@pytest.mark.parametrize("name", WRITING)
@pytest.mark.parametrize("key", ["", " ", None, 3])
def test_names_of_results_that_are_none(name: str, key: Any, calls: dict[str, Any]) -> None:
    adata = calls["adata"].copy()
    arguments = [adata if x is calls["adata"] else x for x in calls[name]]
    parts = [{*getattr(adata, part)} for part in ("obs", "obsm", "varm", "uns", "layers")]
    with pytest.raises(InputError, match="key_added"):
        function_of(name)(*arguments, **NEEDED.get(name, {}), key_added=key)
    assert [{*getattr(adata, part)} for part in ("obs", "obsm", "varm", "uns", "layers")] == parts


@pytest.mark.parametrize("name", NAMES)
def test_stray_arguments_of_functions(name: str, calls: dict[str, Any], tmp_path: Any) -> None:
    function, good = function_of(name), calls[name]
    options = {**NEEDED.get(name, {})}
    if name == "tl.report":
        options = {"path": tmp_path / "report.html"}
    for place in range(len(good)):
        for stray in (*STRAY.values(), calls["model"]):
            if isinstance(stray, CellDiT) and good[place] is stray:
                continue
            arguments = [*good[:place], stray, *good[place + 1 :]]
            refused(
                function, *(x.copy() if x is calls["adata"] else x for x in arguments), **options
            )


OPTIONS = {
    "predict": "adata perturbations dose time sampler solver n_steps grid guidance "
    "guidance_interval seed batch_size edit out shard",
    "generate": "n_cells perturbation covariates dose time like seed out",
    "predict_effects": "perturbations dose time out",
    "interpolate": "adata start end dose shares seed batch_size",
    "interpolate_cells": "adata start end shares seed batch_size",
}


@pytest.mark.parametrize(
    ("method", "option"), [(m, option) for m, names in OPTIONS.items() for option in names.split()]
)
def test_stray_options_of_methods(
    method: str, option: str, calls: dict[str, Any], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = calls["adata"].obs_names
    usual = {
        "generate": {"n_cells": 2},
        "interpolate": {"start": "A", "end": "B"},
        "interpolate_cells": {"start": names[0], "end": names[1]},
    }.get(method, {"perturbations": ["A"]})
    for stray in (*STRAY.values(), calls["model"]):
        refused(getattr(calls["model"], method), **{**usual, option: stray})


SETUP = ["perturbation_key", "covariate_keys", "size_factor_key", "counts_layer", "dose_key"]
SETUP += ["time_key", "perturbation_sep", "control"]


@pytest.mark.parametrize("option", SETUP)
def test_stray_options_of_setup(option: str, calls: dict[str, Any]) -> None:
    for stray in (*STRAY.values(), calls["model"]):
        adata = calls["adata"].copy()
        refused(CellDiT.setup_anndata, adata, **{"perturbation_key": "perturbation", option: stray})


@pytest.mark.parametrize("option", ["adata", "tokenizer", "latent", "dit", "features"])
def test_stray_options_of_a_new_model(option: str, calls: dict[str, Any]) -> None:
    for stray in (*STRAY.values(), calls["model"]):
        refused(CellDiT, **{"adata": calls["adata"], option: stray})


@pytest.mark.parametrize("option", ["max_epochs", "seed", "config", "checkpoint_dir"])
def test_stray_options_of_training(option: str, calls: dict[str, Any]) -> None:
    model = CellDiT(calls["adata"], "modules")
    for stray in (len, pd.DataFrame({"x": [1]}), np.zeros(3), [3], "three"):
        if option == "checkpoint_dir" and isinstance(stray, str):
            continue
        with pytest.raises(CellditError):
            model.train(**{option: stray})


@pytest.mark.parametrize("seed", [-1, 2**63, 1.5, True, float("nan")])
def test_seeds_that_no_generator_takes(seed: Any, calls: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="seed"):
        calls["model"].predict(perturbations=["A"], seed=seed)
    adata = calls["adata"]
    with pytest.raises(InputError, match="seed"):
        predict_baseline("nearest", adata, adata, ["A"], seed=seed)


def test_paths_that_are_none(calls: dict[str, Any]) -> None:
    for stray in (None, 3, b"bytes", [], calls["model"]):
        for action in (CellDiT.load, calls["model"].save):
            with pytest.raises(CellditError, match="A path is text"):
                action(stray)
