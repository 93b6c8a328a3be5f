"""What a model says of itself in four sentences is so."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import anndata as ad
import numpy as np
import pytest

from celldit import CellDiT
from celldit.conditions.extrapolation import Extrapolation
from celldit.errors import NotTrainedError
from celldit.inference.effects.summary import _trust, findings, summary
from celldit.latent import LatentConfig

LABELS = ("control", "control", "A", "B", "C", "D")


def model_of(adata: ad.AnnData) -> CellDiT:
    CellDiT.setup_anndata(
        adata, perturbation_key="perturbation", control="control", covariate_keys=["donor"]
    )
    model = CellDiT(adata, "modules", LatentConfig(n_dims=16, token_dim=4))
    model.train(0, enable_progress_bar=False)
    return model


@pytest.fixture(scope="module")
def shared(simulate_screen: Callable[..., ad.AnnData]) -> CellDiT:
    """Perturbations that do the same in every donor."""
    return model_of(simulate_screen(n_cells=2400, n_genes=60, labels=LABELS))


@pytest.fixture(scope="module")
def own(simulate_screen: Callable[..., ad.AnnData]) -> CellDiT:
    """Perturbations that do something else in every donor."""
    parts = {
        name: simulate_screen(n_cells=800, n_genes=60, labels=LABELS, donors=(name,), seed=seed)
        for seed, name in enumerate(("d1", "d2", "d3"))
    }
    return model_of(ad.concat(parts, index_unique="-"))


def test_what_carries_over_is_called_reliable_and_what_does_not_a_guess(
    shared: CellDiT, own: CellDiT
) -> None:
    known = findings(shared.trained).explained[Extrapolation.CONTEXT]
    unknown = findings(own.trained).explained[Extrapolation.CONTEXT]
    assert known > 0.8
    assert unknown < 0.2
    assert f"are reliable ({known:.0%})" in shared.summary()
    assert "are little more than a guess" in own.summary()


def test_four_sentences_with_the_numbers_of_training(shared: CellDiT) -> None:
    said = shared.summary().splitlines()
    assert len(said) == 4
    assert all(line.endswith(".") for line in said)
    assert "4 perturbations do in 3 contexts, from 1,600 perturbed and 800 control cells" in said[0]
    assert "was not trained" in said[2]
    # The largest is that which moved the mean latent most.
    found = findings(shared.trained)
    assert re.search(f"those of {found.strongest[0]}", said[0])
    assert found.noise_share < 0.5


def test_the_weight_of_the_network_is_said(shared: CellDiT) -> None:
    weight = {**shared.trained.flow_weight, Extrapolation.SEEN: 0.5}
    said = summary(replace(shared.trained, flow_weight=weight))
    assert "50% for seen, and 0 for the other kinds" in said
    # Nothing has a time here.
    weight |= {Extrapolation.BETWEEN: 0.5, Extrapolation.BEYOND: 0.5}
    assert "times" not in summary(replace(shared.trained, flow_weight=weight))


def test_noise_asks_for_cells(simulate_screen: Callable[..., ad.AnnData]) -> None:
    rng = np.random.default_rng(0)
    adata = simulate_screen(n_cells=240, n_genes=60, labels=LABELS)
    # Labels that mean nothing: all that differs is noise.
    adata.obs["perturbation"] = rng.permutation(adata.obs["perturbation"].to_numpy())
    model = model_of(adata)
    assert findings(model.trained).noise_share > 0.7
    assert "more cells per condition" in model.summary()
    assert "no effect stands out from sampling noise" in model.summary()


def test_advice_is_about_what_is_lacking(simulate_screen: Callable[..., ad.AnnData]) -> None:
    # About as many controls as perturbed cells is no lack of them.
    labels = ("control", "A")
    balanced = simulate_screen(n_cells=480, n_genes=60, labels=labels, donors=("d1", "d2", "d3"))
    control = (balanced.obs["perturbation"] == "control").to_numpy()
    some = np.flatnonzero(control & (np.arange(len(control)) % 5 > 0))
    balanced = balanced[np.sort(np.r_[np.flatnonzero(~control), some])].copy()
    said = model_of(balanced).summary()
    assert "more control cells" not in said
    # Three donors, but perturbed cells in two: these tell how effects differ.
    there = (
        (balanced.obs["donor"] != "d3") | (balanced.obs["perturbation"] == "control")
    ).to_numpy()
    assert (
        "more contexts with perturbed cells (from two" in model_of(balanced[there].copy()).summary()
    )
    assert "more contexts" not in said


def test_of_one_perturbation_nothing_can_be_left_out(
    simulate_screen: Callable[..., ad.AnnData],
) -> None:
    said = model_of(
        simulate_screen(n_cells=480, n_genes=60, labels=("control", "A"), donors=("d1",))
    ).summary()
    assert "too few conditions to tell" in said
    assert "more perturbations, or more contexts" in said
    assert "no single lack" not in said


def test_without_perturbations_there_is_one_sentence(
    tiny_screen: ad.AnnData, train_tiny: Callable[..., Any]
) -> None:
    controls = tiny_screen[(tiny_screen.obs["perturbation"] == "control").to_numpy()].copy()
    said = train_tiny(controls, max_epochs=0).summary()
    assert "no perturbation was in training" in said
    with pytest.raises(NotTrainedError):
        CellDiT(tiny_screen).summary()


def test_training_ends_with_it(tiny_screen: ad.AnnData, capsys: pytest.CaptureFixture[str]) -> None:
    model = CellDiT(tiny_screen, "modules", LatentConfig(n_dims=6, token_dim=3))
    model.train(0)
    assert capsys.readouterr().out.rstrip().endswith(model.summary())


def test_what_was_tried_twice_only_is_not_called_reliable(shared: CellDiT) -> None:
    found = replace(findings(shared.trained), n_left_out={Extrapolation.CONTEXT: 2})
    found = replace(found, explained={Extrapolation.CONTEXT: 0.9})
    assert "were tried twice only (90%)" in _trust(found)
    assert "reliable" not in _trust(found)
