"""What cannot be drawn is refused with what to pass instead, before a figure is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import anndata as ad
import matplotlib as mpl
import pandas as pd
import pytest

mpl.use("Agg")

import matplotlib.pyplot as plt

import celldit as cd
from celldit.errors import InputError, UnknownNameError


@pytest.fixture(autouse=True)
def _no_figure_is_made() -> Iterator[None]:
    plt.close("all")
    yield
    assert not plt.get_fignums()


@pytest.fixture
def predicted(tiny_screen: ad.AnnData, tiny_model: Any) -> ad.AnnData:
    return tiny_model.predict(tiny_screen, perturbations=["A", "A+B"])


@pytest.fixture
def effects() -> pd.DataFrame:
    """One gene at two doses."""
    return pd.DataFrame(
        {
            "perturbation": "A",
            "context": "d1",
            "gene": "G1",
            "dose": [1.0, 2.0],
            "log_fold_change": [0.1, 0.2],
            "sd": 0.1,
        }
    )


ATTENTION = pd.DataFrame(
    {
        "reader": "s",
        "context": "d1",
        "token": ["t", "u"],
        "perturbation": "A",
        "attention": [0.4, 0.6],
        "difference": float("nan"),
    }
)


def test_attention_without_controls_has_no_difference() -> None:
    with pytest.raises(InputError, match=r"no control cells in the contexts of 'A'.*difference="):
        cd.pl.attention(ATTENTION, "A", difference=True)
    with pytest.raises(InputError, match="n_tokens=0 must be a whole number of at least 1"):
        cd.pl.attention(ATTENTION, n_tokens=0)


def test_effects_of_other_cells(tiny_screen: ad.AnnData, effects: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="No effect was measured: adata needs"):
        cd.pl.calibration(tiny_screen, effects.assign(context="elsewhere"))
    with pytest.raises(InputError, match=r"effects has no row; pass what cd\.tl\.effects"):
        cd.pl.effect_heatmap(effects.iloc[:0])
    with pytest.raises(InputError, match="n_genes=0 must be a whole number of at least 1"):
        cd.pl.effect_heatmap(effects, n_genes=0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n_genes": 0}, "n_genes=0 must be between 1 and"),
        ({"genes": []}, "names no gene; leave it out"),
        ({"genes": [f"G{i}" for i in range(40)]}, "40 genes cannot be told apart"),
    ],
)
def test_genes_of_a_course(effects: pd.DataFrame, change: dict[str, Any], said: str) -> None:
    many = pd.concat([effects.assign(gene=f"G{i}") for i in range(40)])
    with pytest.raises(InputError, match=said):
        cd.pl.dose_response(many, **change)


def test_doses_that_are_words(effects: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="column 'dose' of effects holds values that are not num"):
        cd.pl.dose_response(effects.assign(dose=["low", "high"]))


@pytest.mark.parametrize(
    ("draw", "options", "said"),
    [
        (cd.pl.distributions, {"n_genes": 0}, "n_genes=0 must be a whole number of at least 1"),
        (cd.pl.effect, {"n_genes": -1}, "n_genes=-1 must be a whole number of at least 0"),
        (cd.pl.embedding, {"max_cells": 1}, "max_cells=1 must be a whole number of at least 2"),
    ],
)
def test_numbers(
    draw: Callable[..., Any], options: dict[str, int], said: str, tiny_screen: Any, predicted: Any
) -> None:
    with pytest.raises(InputError, match=said):
        draw(tiny_screen, predicted, perturbation="A", **options)


def test_a_single_gene_has_no_plane(tiny_screen: ad.AnnData, predicted: ad.AnnData) -> None:
    with pytest.raises(InputError, match="at least two measured cells and two genes"):
        cd.pl.embedding(tiny_screen[:, :1].copy(), predicted[:, :1].copy(), perturbation="A")


def test_genes_in_another_order_are_matched(tiny_screen: ad.AnnData, predicted: ad.AnnData) -> None:
    as_it_is, turned = predicted, predicted[:, ::-1].copy()
    points = [cd.pl.effect(tiny_screen, as_it_is, "A").collections[0].get_offsets()]
    with pytest.warns(UserWarning, match="another order.*matched by name"):
        points.append(cd.pl.effect(tiny_screen, turned, "A").collections[0].get_offsets())
    plt.close("all")
    assert (points[0] == points[1]).all()
    more = predicted.copy()[:, [*range(predicted.n_vars), 0]].copy()
    more.var_names = [*predicted.var_names, "new"]
    with pytest.raises(InputError, match="has 1 more genes"):
        cd.pl.effect(tiny_screen, more, "A")


def test_what_was_not_measured(tiny_screen: ad.AnnData, predicted: ad.AnnData) -> None:
    label = tiny_screen.obs["perturbation"].astype(str)
    others = tiny_screen[~label.isin(["A", "A+B"])].copy()
    with pytest.raises(InputError, match=r"None of the predicted perturbations .'A', 'A.B'. was"):
        cd.pl.effect(others, predicted)
    with pytest.raises(InputError, match="adata has no measured cell with the perturbation 'A'"):
        cd.pl.effect(others, predicted, "A")
    bare = tiny_screen[label != "control"].copy()
    with pytest.raises(InputError, match="No context has predicted, measured and control cells"):
        cd.pl.effect(bare, predicted, "A")
    unlabelled = tiny_screen.copy()
    unlabelled.uns.pop("celldit")
    cd.CellDiT.setup_anndata(unlabelled, covariate_keys=["donor"])
    with pytest.raises(InputError, match=r"set up without perturbation_key.*setup_anndata"):
        cd.pl.effect(unlabelled, predicted, "A")


def test_a_method_that_is_not_in_the_table() -> None:
    table = pd.DataFrame({"pearson": [0.5]}, index=["celldit"])
    with pytest.raises(UnknownNameError, match=r"method in the table 'celdit'.*Did you mean"):
        cd.pl.scores(table, highlight="celdit")


def test_effects_have_no_measured_cells(effects: pd.DataFrame, tiny_screen: ad.AnnData) -> None:
    with pytest.raises(InputError, match=r"measured= goes with the cells of model\.trajectory"):
        cd.pl.trajectory(effects, measured=tiny_screen)


@pytest.mark.parametrize("axes", [[1, 2, 3], 3, "x"])
def test_axes_that_are_none(axes: object, tiny_model: Any, tiny_screen: ad.AnnData) -> None:
    effects = cd.tl.effects(tiny_screen, tiny_model, ["A"])
    attention = cd.tl.attention(tiny_screen, tiny_model, "A", max_cells=10)
    programs = cd.tl.programs(tiny_screen, tiny_model, "A", max_cells=10)
    for draw, table in (
        (cd.pl.effect_heatmap, effects),
        (cd.pl.attention, attention),
        (cd.pl.attention_network, attention),
        (cd.pl.programs, programs),
    ):
        with pytest.raises(InputError, match="leave it out for a new figure"):
            draw(table, ax=axes, show=False)


def test_other_genes_are_told_by_the_names_of_the_arguments(
    tiny_screen: ad.AnnData, predicted: ad.AnnData
) -> None:
    with pytest.raises(InputError, match=r"predicted are not those of adata.*adata\.var_names\."):
        cd.pl.effect(tiny_screen, predicted[:, 1:].copy(), "A")
    with pytest.raises(InputError, match=r"generated are not those of adata"):
        cd.pl.embedding(tiny_screen, predicted, predicted[:, 1:].copy(), "A")
    bare = predicted.copy()
    bare.X = None
    del bare.layers["counts"]
    with pytest.raises(InputError, match=r"generated\.X is empty"):
        cd.pl.embedding(tiny_screen, predicted, bare, "A")
