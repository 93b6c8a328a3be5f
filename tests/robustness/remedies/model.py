"""Of models: making, training, tuning, predicting, generating, trajectories and interpolation."""

from __future__ import annotations

import warnings
from typing import Any

import anndata as ad
import scanpy as sc
from scipy import sparse

from celldit import CellDiT
from celldit.inference.maps.edit import EditConfig
from celldit.latent import LatentConfig
from celldit.nn.dit import DiTConfig
from celldit.pretrained import Pretrained
from celldit.tokenizers import GeneSets, Modules
from celldit.training import TrainingConfig

from .case import Case, Scope, arguments, with_times
from .data import quietly

FAST = TrainingConfig(new_cells=False, n_trials=1, flow_steps_per_epoch=1, flow_batch=16)


def made(s: Scope, *parts: Any, **options: Any) -> CellDiT:
    if not parts and "tokenizer" not in options:
        options["tokenizer"] = "modules"
    return CellDiT(s.adata, *parts, **options)


def trained(s: Scope, max_epochs: int | None = 0, **options: Any) -> CellDiT:
    model = CellDiT(s.adata[:90].copy(), "modules")
    model.train(max_epochs, **{"config": FAST, "enable_progress_bar": False, **options})
    return model


def loaded(s: Scope) -> CellDiT:
    folder = s.folder / "model"
    if not folder.exists():
        s.model.save(folder)
    return CellDiT.load(folder)


def tuned(s: Scope, adata: ad.AnnData | None = None, **options: Any) -> CellDiT:
    """A loaded model, tuned for no epoch."""
    asked = {"max_epochs": 0, "config": FAST, "enable_progress_bar": False, **options}
    return loaded(s).fine_tune(s.adata if adata is None else adata, **asked)


def predict(s: Scope, model: CellDiT | None = None, **options: Any) -> Any:
    asked = {"perturbations": "A", "n_steps": 1, **options}
    return (model or s.model).predict(s.few if model is None else None, **asked)


def generate(s: Scope, n: Any = 3, model: CellDiT | None = None, **options: Any) -> Any:
    return (model or s.model).generate(n, n_steps=1, **options)


def deeper(s: Scope, factor: float, equalise: Any = None) -> ad.AnnData:
    """Treated cells with so many times the counts of controls, all at one depth if asked for."""
    adata = s.adata.copy()
    counts = adata.X.toarray()
    counts[(adata.obs["perturbation"] != "control").to_numpy()] *= factor
    adata.X = sparse.csr_matrix(counts)
    if equalise is not None:
        equalise(adata, counts_per_cell=int(counts.sum(1).min()))
    return s.setup(adata)


def one_without_controls(s: Scope) -> ad.AnnData:
    """One donor has no controls left."""
    first = s.adata.obs["donor"].astype(str).min()
    of_first = (s.adata.obs["donor"] == first) & (s.adata.obs["perturbation"] == "control")
    return s.setup(s.adata[~of_first.to_numpy()].copy())


def one_time(adata: ad.AnnData) -> None:
    adata.obs["t"] = 1.0


def late_without_controls(s: Scope) -> ad.AnnData:
    """The later of two times has none."""
    with_times(s.adata)
    late = (s.adata.obs["t"] == 3) & (s.adata.obs["perturbation"] == "control")
    return s.setup(s.adata[~late.to_numpy()].copy(), time_key="t")


def without_warning(call: Any, of: str) -> Any:
    """What is made, if nothing warns of this; a very small training may warn of other things."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=f".*{of}")
        return call()


def only_new_cells_left_out(s: Scope) -> CellDiT:
    return s.once("no new cells", lambda: s.train_tiny(s.adata, config={"new_cells": False},
                                                       max_epochs=0))  # fmt: skip


def controls_only(s: Scope) -> CellDiT:
    def make() -> CellDiT:
        adata = s.adata[s.adata.obs["perturbation"] == "control"].copy()
        return s.train_tiny(adata, max_epochs=0)

    return s.once("controls only", make)


def path(s: Scope, times: Any, **options: Any) -> Any:
    with_times(s.few)
    return s.timed.trajectory(s.few, times=times, **options)


def no_conditions_dropped(s: Scope) -> Any:
    return s.once("drops", lambda: s.train_tiny(
        s.adata, config={"drop_condition": 0.1, "new_cells": False}, max_epochs=0))  # fmt: skip


def without_controls(s: Scope) -> ad.AnnData:
    return s.adata[s.adata.obs["perturbation"] != "control"].copy()


def shared(s: Scope, n: int) -> ad.AnnData:
    """Cells with some of the model's genes, and others of other names."""
    adata = s.adata.copy()
    adata.var_names = [g if i < n else f"other{i}" for i, g in enumerate(adata.var_names)]
    return s.setup(adata)


DEVICE = "this machine has|finds no such device"
# fmt: off
CASES: dict[str, Case] = {
    # --- making
    "a tokenizer that is none": Case(
        lambda s: made(s, "modulse"), "use one of (?P<names>.*)", lambda s, m: made(s, "modules")),
    "a tokenizer of another kind": Case(
        lambda s: made(s, 3), "must be one of .* or a tokenizer object",
        lambda s, m: made(s, Modules())),
    "gene sets of other genes": Case(
        lambda s: made(s, "gene_sets").train(0, enable_progress_bar=False),
        r"or choose (?P<arguments>tokenizer=\"modules\")",
        lambda s, m: made(s, **arguments(m))),
    "gene sets of few common genes": Case(
        lambda s: s.train_tiny(s.adata, tokenizer=GeneSets({"A": ["gene1", "gene2", "x", "y"]},
                                                          min_size=1), max_epochs=0),
        r"lower (?P<arguments>min_overlap)=",
        lambda s, m: quietly(lambda: s.train_tiny(s.adata, tokenizer=GeneSets(
            {"A": ["gene1", "gene2", "x", "y"]}, min_size=1, min_overlap=1), max_epochs=0))),
    "gene sets of other sizes": Case(
        lambda s: s.train_tiny(s.adata, tokenizer=GeneSets({"A": ["gene1", "gene2"]}, min_size=9),
                               max_epochs=0), "widen these bounds",
        lambda s, m: quietly(lambda: s.train_tiny(s.adata, tokenizer=GeneSets(
            {"A": ["gene1", "gene2"]}, min_size=1, min_overlap=1), max_epochs=0))),
    "no sets by default": Case(
        lambda s: made(s, None), r"pass (?P<arguments>tokenizer='modules')",
        lambda s, m: CellDiT(s.adata, **arguments(m))),
    "sets of no size": Case(
        lambda s: GeneSets(min_size=5, max_size=2), "is above max_size",
        lambda s, m: GeneSets(min_size=2, max_size=5)),
    "a latent that is none": Case(
        lambda s: made(s, "modules", "pcaa"), "use '(?P<kind>pca)'",
        lambda s, m: made(s, "modules", m["kind"])),
    "a latent of another kind": Case(
        lambda s: made(s, "modules", 3), "must be '(?P<kind>pca)'",
        lambda s, m: made(s, "modules", m["kind"])),
    "a latent of no dimension": Case(
        lambda s: LatentConfig(n_dims=0), "of at least (?P<n>1)",
        lambda s, m: LatentConfig(n_dims=int(m["n"]))),
    "a likelihood of earlier versions": Case(
        lambda s: LatentConfig(likelihood="zinb"), "leave", lambda s, m: LatentConfig()),
    "a decoder of earlier versions": Case(
        lambda s: LatentConfig(decoder="cross_attention"), "leave", lambda s, m: LatentConfig()),
    "a size that is none": Case(
        lambda s: made(s, dit="SS"), "known: '(?P<name>[^']+)'",
        lambda s, m: made(s, dit=m["name"])),
    "a network of another kind": Case(
        lambda s: made(s, dit=3), "a name such as '(?P<name>[^']+)'",
        lambda s, m: made(s, dit=m["name"])),
    "tokens that are none": Case(
        lambda s: DiTConfig(tokens="view"), "Did you mean '(?P<name>[^']+)'",
        lambda s, m: DiTConfig(tokens=m["name"])),
    "more tokens than there are": Case(
        lambda s: s.train_tiny(s.adata, tokenizer=Modules(n_modules=400), max_epochs=0),
        r"ask for at most (?P<arguments>n_modules=\d+)",
        lambda s, m: s.train_tiny(s.adata, tokenizer=Modules(**arguments(m)), max_epochs=0)),
    "an autoencoder that is none": Case(
        lambda s: made(s, None, autoencoder=3), "a trained CellDiT, the folder of a saved one",
        lambda s, m: made(s, None, autoencoder=s.model)),
    "an autoencoder and a tokenizer": Case(
        lambda s: made(s, "genes", autoencoder=s.model), "leave tokenizer= out",
        lambda s, m: made(s, None, autoencoder=s.model)),
    "an autoencoder and another latent": Case(
        lambda s: made(s, None, LatentConfig(n_dims=4), autoencoder=s.model),
        "leave latent= out", lambda s, m: made(s, None, autoencoder=s.model)),
    "an overlap that is none": Case(
        lambda s: made(s, None, autoencoder=Pretrained(s.model, min_overlap=2)),
        "a number between 0 and 1",
        lambda s, m: made(s, None, autoencoder=Pretrained(s.model, min_overlap=0.2))),
    "an autoencoder of other genes": Case(
        lambda s: CellDiT(shared(s, 10), autoencoder=s.model), "or pass a smaller min_overlap",
        lambda s, m: quietly(lambda: CellDiT(
            shared(s, 10), autoencoder=Pretrained(s.model, min_overlap=0.2)))),
    # --- training
    "controls less deep than treated cells": Case(
        lambda s: s.train_tiny(deeper(s, 3)), "sc.pp.(?P<name>downsample_counts)",
        lambda s, m: without_warning(
            lambda: s.train_tiny(deeper(s, 3, getattr(sc.pp, m["name"]))), "library sizes")),
    "a time without controls": Case(
        lambda s: s.train_tiny(late_without_controls(s), max_epochs=0),
        r"no controls of the same time \(.*3.*\)\..*Add controls of these times",
        lambda s, m: without_warning(lambda: s.timed, "no controls of the same time")),
    "a context without controls": Case(
        lambda s: s.train_tiny(one_without_controls(s)), "control cells of each context",
        lambda s, m: without_warning(lambda: s.train_tiny(s.setup()), "control cells")),
    "not trained": Case(
        lambda s: predict(s, made(s)), r"call model\.train\(\) first",
        lambda s, m: predict(s, trained(s))),
    "epochs that are none": Case(
        lambda s: trained(s, -1), "whole number of at least (?P<n>0)",
        lambda s, m: trained(s, int(m["n"]))),
    "a seed that is none": Case(
        lambda s: trained(s, seed=-1), "whole number of at least (?P<n>0)",
        lambda s, m: trained(s, seed=int(m["n"]))),
    "a seed too large": Case(
        lambda s: trained(s, seed=2**64), r"must be below 2\^63",
        lambda s, m: trained(s, seed=2**63 - 1)),
    "settings of another kind": Case(
        lambda s: trained(s, config=3), "must be a TrainingConfig",
        lambda s, m: trained(s, config=FAST)),
    "an argument that no trainer has": Case(
        lambda s: trained(s, max_epoch=1), "did you mean '(?P<name>[^']+)'",
        lambda s, m: trained(s, **{m["name"]: 0})),
    "more devices than there are": Case(
        lambda s: trained(s, accelerator="cpu", devices=99999),
        r"use devices=(?P<n>\d+) or less|asks for",
        lambda s, m: trained(s, accelerator="cpu", devices=1)),
    "devices that are none": Case(
        lambda s: trained(s, accelerator="cpu", devices="both"), "use devices=(?P<n>1), or 'auto'",
        lambda s, m: trained(s, accelerator="cpu", devices=int(m["n"]))),
    "no machine": Case(
        lambda s: trained(s, num_nodes=0), "must be a whole number of at least (?P<n>1)",
        lambda s, m: trained(s, accelerator="cpu", num_nodes=int(m["n"]))),
    "an accelerator that is none": Case(
        lambda s: trained(s, accelerator="gpuu"), "use accelerator='(?P<name>[^']+)'|use",
        lambda s, m: trained(s, accelerator="cpu")),
    "a strategy that is none": Case(
        lambda s: trained(s, strategy="ddpp"), "use ", lambda s, m: trained(s, strategy="auto")),
    "a strategy that cannot be": Case(
        lambda s: trained(s, strategy="deepspeed"), 'or (?P<arguments>strategy="ddp")',
        lambda s, m: trained(s, strategy="auto")),
    "a setting below what it can be": Case(
        lambda s: TrainingConfig(flow_batch=0), "whole number of at least (?P<n>1)",
        lambda s, m: TrainingConfig(flow_batch=int(m["n"]))),
    "a negative setting": Case(
        lambda s: TrainingConfig(noise_epochs=-1), "whole number of at least (?P<n>0)",
        lambda s, m: TrainingConfig(noise_epochs=int(m["n"]))),
    "growth that is no yes or no": Case(
        lambda s: TrainingConfig(growth=3), "must be (?P<yes>True) or False",
        lambda s, m: TrainingConfig(growth=m["yes"] == "True")),
    "a share above 1": Case(
        lambda s: TrainingConfig(held_out_cells=2), "a number between 0 and 1",
        lambda s, m: TrainingConfig(held_out_cells=0.5)),
    "all held out": Case(
        lambda s: TrainingConfig(held_out_cells=1), "use less than 1",
        lambda s, m: TrainingConfig(held_out_cells=0.99)),
    "new cells by a word": Case(
        lambda s: TrainingConfig(new_cells="no"), "must be True or (?P<value>False)",
        lambda s, m: TrainingConfig(new_cells=eval(m["value"]))),
    "compiled by a word": Case(
        lambda s: TrainingConfig(compile="yes"), "must be 'auto', '(?P<value>on)'",
        lambda s, m: TrainingConfig(compile=m["value"])),
    "a coupling that is none": Case(
        lambda s: trained(s, 1, config=TrainingConfig(coupling="oot")), "known: .*'(?P<n>ot)'",
        lambda s, m: TrainingConfig(coupling=m["n"])),
    # --- tuning
    "tuning with fewer covariates": Case(
        lambda s: tuned(s, s.setup(covariate_keys=[])), "set them up with as many, in the same",
        lambda s, m: tuned(s, s.setup())),
    "tuning with times": Case(
        lambda s: (with_times(s.adata), tuned(s, s.setup(time_key="t"))), "set them up alike",
        lambda s, m: tuned(s, s.setup())),
    "tuning with an overlap that is none": Case(
        lambda s: tuned(s, s.setup(), min_overlap=2), "a number between 0 and 1",
        lambda s, m: tuned(s, s.setup(), min_overlap=0.2)),
    "tuning with other genes": Case(
        lambda s: tuned(s, shared(s, 10)), "or pass a smaller min_overlap",
        lambda s, m: tuned(s, shared(s, 10), min_overlap=0.2)),
    "training without cells": Case(
        lambda s: loaded(s).train(0), r"set up a new (?P<code>CellDiT\(adata\))",
        lambda s, m: trained(s)),
    "predicting without cells": Case(
        lambda s: loaded(s).predict(perturbations="A"), "needs some: pass adata",
        lambda s, m: loaded(s).predict(s.few, perturbations="A")),
    # --- predicting
    "nothing asked for": Case(
        lambda s: predict(s, perturbations=[]), r'pass perturbations=\["NAME", \.\.\.\]',
        lambda s, m: predict(s, perturbations=["A"])),
    "perturbations of another kind": Case(
        lambda s: predict(s, perturbations=3), "a name, or a list of names",
        lambda s, m: predict(s, perturbations=["A"])),
    "a perturbation that is not known": Case(
        lambda s: predict(s, perturbations="Z"), r"Ask for a known one, or train with features",
        lambda s, m: predict(s, perturbations="A")),
    "a combination joined otherwise": Case(
        lambda s: predict(s, perturbations="A_C"), "asked for as '(?P<name>[^']+)'",
        lambda s, m: predict(s, perturbations=m["name"])),
    "a model of no perturbation": Case(
        lambda s: predict(s, controls_only(s)), "train on data with a perturbation_key",
        lambda s, m: predict(s)),
    "no controls": Case(
        lambda s: s.model.predict(without_controls(s), perturbations="A"),
        "start from controls, so add control cells", lambda s, m: predict(s)),
    "guidance without dropped conditions": Case(
        lambda s: predict(s, guidance=2), "or use (?P<arguments>guidance=1)",
        lambda s, m: predict(s, **arguments(m))),
    "guidance with a model that can": Case(
        lambda s: predict(s, guidance=2),
        r"train with config=(?P<config>TrainingConfig\(drop_condition=0\.1\))",
        lambda s, m: predict(s, no_conditions_dropped(s), guidance=2)),
    "guidance that is none": Case(
        lambda s: predict(s, no_conditions_dropped(s), guidance=-1), "at least 0",
        lambda s, m: predict(s, no_conditions_dropped(s), guidance=0)),
    "guidance at no time": Case(
        lambda s: predict(s, no_conditions_dropped(s), guidance_interval=(2, 1)),
        r"such as (?P<pair>\(0\.2, 0\.8\))",
        lambda s, m: predict(s, no_conditions_dropped(s), guidance_interval=eval(m["pair"]))),
    "a sampler that is none": Case(
        lambda s: predict(s, sampler="transpart"), "Did you mean '(?P<name>[^']+)'",
        lambda s, m: predict(s, sampler=m["name"])),
    "averages of another sampler": Case(
        lambda s: predict(s, edit=EditConfig()), "leave it out", lambda s, m: predict(s)),
    "an edit with other steps": Case(
        lambda s: predict(s, sampler="edit", solver="heun"), r'use (?P<arguments>solver="euler")',
        lambda s, m: predict(s, sampler="edit", **arguments(m))),
    "stirring on the way back": Case(
        lambda s: predict(s, solver="sde"), 'use "(?P<name>heun)", or generate',
        lambda s, m: (predict(s, solver=m["name"]), generate(s, solver="sde"))),
    "a solver that is none": Case(
        lambda s: predict(s, solver="huen"), "Did you mean '(?P<name>[^']+)'",
        lambda s, m: predict(s, solver=m["name"])),
    "a grid that is none": Case(
        lambda s: predict(s, grid="uniformm"), "Did you mean '(?P<name>[^']+)'",
        lambda s, m: predict(s, grid=m["name"])),
    "no steps": Case(
        lambda s: predict(s, n_steps=0), "whole number of at least 1|positive integer",
        lambda s, m: predict(s, n_steps=1)),
    "no batch": Case(
        lambda s: predict(s, batch_size=0), "whole number of at least (?P<n>1)",
        lambda s, m: predict(s, batch_size=int(m["n"]) + 20)),
    "an edit from no time": Case(
        lambda s: EditConfig(t_start=2), r"must be in \[0, 1\)",
        lambda s, m: EditConfig(t_start=0.2)),
    "a dose of a model without": Case(
        lambda s: predict(s, dose=1.0), "trained without dose_key",
        lambda s, m: (predict(s), predict(s, s.dosed, dose=1.0))),
    "no dose of a model with": Case(
        lambda s: predict(s, s.dosed), r"is given: (?P<arguments>dose=1\.0)",
        lambda s, m: predict(s, s.dosed, **arguments(m))),
    "a dose beyond training": Case(
        lambda s: predict(s, s.dosed, dose=99.0), "an extrapolation",
        lambda s, m: predict(s, s.dosed, dose=2.0)),
    "a time of a model without": Case(
        lambda s: predict(s, time=1.0), "time_key",
        lambda s, m: (predict(s), predict(s, s.timed, time=1.0))),
    "a time that is none": Case(
        lambda s: predict(s, s.timed, time="soon"), "is not a finite number",
        lambda s, m: predict(s, s.timed, time=3.0)),
    "effects at no dose": Case(
        lambda s: s.dosed.predict_effects("A"), r"(?P<arguments>dose=1\.0)",
        lambda s, m: s.dosed.predict_effects("A", **arguments(m))),
    "a weight above 1": Case(
        lambda s: s.model.weighted(2), "a number between 0 and 1",
        lambda s, m: s.model.weighted(1)),
    "a weight below 0": Case(
        lambda s: s.model.weighted(-1), "a number between 0 and 1",
        lambda s, m: s.model.weighted(0)),
    "a device that is none": Case(
        lambda s: s.model.to("gpu"), "use '(?P<name>cpu)'", lambda s, m: s.model.to(m["name"])),
    "a device that is not there": Case(
        lambda s: s.model.to("cuda:77"), "use '(?P<name>[^']+)'",
        lambda s, m: s.model.to(m["name"])),
    # --- generating
    "no number of cells": Case(
        lambda s: generate(s, 0), "whole number of at least (?P<n>1)",
        lambda s, m: generate(s, int(m["n"]))),
    "like and conditions": Case(
        lambda s: generate(s, like=s.few, perturbation="A"), "leave out the other conditions",
        lambda s, m: generate(s, like=s.few)),
    "a covariate that is none": Case(
        lambda s: generate(s, covariates={"doner": "d1"}), "Did you mean '(?P<name>[^']+)'",
        lambda s, m: generate(s, covariates={m["name"]: "d1"})),
    "a value that is none": Case(
        lambda s: generate(s, covariates={"donor": "d9"}), "known: '(?P<name>[^']+)'",
        lambda s, m: generate(s, covariates={"donor": m["name"]})),
    "covariates of another kind": Case(
        lambda s: generate(s, covariates=3), r'such as (?P<such>\{"cell_type": "B"\})',
        lambda s, m: generate(s, covariates={"donor": "d1"})),
    "new cells of a model without": Case(
        lambda s: generate(s, 3, only_new_cells_left_out(s)),
        "train with (?P<arguments>new_cells=True)",
        lambda s, m: (TrainingConfig(**arguments(m)), generate(s))),
    "generated at a dose of nothing": Case(
        lambda s: generate(s, 3, s.dosed, dose=1.0), 'with (?P<arguments>perturbation="NAME")',
        lambda s, m: generate(s, 3, s.dosed, perturbation="A", dose=1.0)),
    "generated at a dose of a model without": Case(
        lambda s: generate(s, dose=1.0), "trained without dose_key", lambda s, m: generate(s)),
    # --- on the way
    "a trajectory without times": Case(
        lambda s: s.model.trajectory(times=[1, 2]), "set up with time_key=",
        lambda s, m: path(s, [1, 2])),
    "another time where there is one": Case(
        lambda s: predict(s, s.other("one time", one_time, time_key="t"), time=2.0),
        "train on cells of two times or more", lambda s, m: predict(s, s.timed, time=2.0)),
    "times that are none": Case(
        lambda s: s.timed.trajectory(times=[]), r"such as (?P<times>\[[^\]]+\])",
        lambda s, m: quietly(lambda: path(s, eval(m["times"])))),
    "an interpolation between several": Case(
        lambda s: s.model.interpolate(start=["A", "B"], end="B"),
        "start must be the label of one condition",
        lambda s, m: s.model.interpolate(start="A", end="B")),
    "a prediction of None": Case(
        lambda s: predict(s, perturbations=None), "must be a name, or a list of names",
        lambda s, m: predict(s, perturbations="A")),
    "shares that are none": Case(
        lambda s: s.model.interpolate(start="A", end="B", shares=[2]),
        r"such as (?P<shares>\[[^\]]+\])",
        lambda s, m: s.model.interpolate(start="A", end="B", shares=eval(m["shares"]))),
    "cells that do not pair up": Case(
        lambda s: s.model.interpolate_cells(start=["cell0", "cell1"],
                                            end=["cell2", "cell3", "cell4"]),
        "name as many, or one alone",
        lambda s, m: s.model.interpolate_cells(start=["cell0"], end=["cell2", "cell3"])),
    "a cell that is none": Case(
        lambda s: s.model.interpolate_cells(start="cel1", end="cell2"),
        "Did you mean '(?P<name>[^']+)'",
        lambda s, m: s.model.interpolate_cells(start=m["name"], end="cell2")),
    "a name of several cells": Case(
        lambda s: (setattr(s.few, "obs_names", ["cell"] * 2 + list(s.few.obs_names[2:])),
                   s.model.interpolate_cells(s.few, start="cell", end="cell4")),
        r"call (?P<code>adata\.obs_names_make_unique\(\)) and pass adata",
        lambda s, m: (s.run(m, adata=s.few),
                      s.model.interpolate_cells(s.few, start="cell", end="cell4"))),
    "a way asked for twice": Case(
        lambda s: s.model.interpolate_cells(start=["cell0", "cell0"], end=["cell2", "cell2"]),
        "is asked for twice",
        lambda s, m: s.model.interpolate_cells(start=["cell0"], end=["cell2"])),
}
# fmt: on
