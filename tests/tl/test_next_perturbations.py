"""The next batch is what teaches most of the others, and says when nothing does."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import celldit as cd
from celldit.conditions import Condition
from celldit.data import Cells
from celldit.effects.experiments import evenly_described, joint_covariance
from celldit.errors import InputError, OutOfMemoryError, UnknownNameError

tool = importlib.import_module("celldit.tl.next_perturbations")


@pytest.fixture(scope="module")
def grouped(simulate_screen: Callable[..., ad.AnnData], train_tiny: Callable[..., Any]) -> Any:
    """A model with features of perturbations that were not measured, in two groups."""
    labels = ("control", "control", *"ABCDEFGH")
    adata = simulate_screen(n_cells=1200, labels=labels, donors=("d1",))
    # The first four do one thing, the others another.
    donor = adata.obs["perturbation"].map(
        {name: "A" if name in "ABCD" else "E" for name in "ABCDEFGH"}
    )
    doubles = {"A": adata[(adata.obs["perturbation"] == "A").to_numpy()].X.toarray(),
               "E": adata[(adata.obs["perturbation"] == "E").to_numpy()].X.toarray()}  # fmt: skip
    counts, rng = adata.X.toarray(), np.random.default_rng(0)
    for name, one in doubles.items():
        rows = np.flatnonzero((donor == name).to_numpy())
        counts[rows] = one[rng.integers(0, len(one), len(rows))]
    adata.X = adata.X.__class__(counts)
    cd.CellDiT.setup_anndata(adata, perturbation_key="perturbation", control="control")
    names = [*"ABCDEFGH", "new1", "new2", "new3", "new4"]
    group = np.array([0] * 4 + [1] * 4 + [0, 0, 0, 1])
    features = pd.DataFrame(np.eye(2)[group], index=names) + 1e-3
    return adata, train_tiny(adata, max_epochs=0, features=features)


def test_candidates_are_what_has_features_and_was_not_measured(grouped: Any) -> None:
    adata, model = grouped
    table = cd.tl.next_perturbations(adata.copy(), model, n=4)
    assert sorted(table["perturbation"]) == ["new1", "new2", "new3", "new4"]
    # Three are alike, so one of them comes first.
    assert table["perturbation"].iloc[0] != "new4"
    assert table["left"].is_monotonic_decreasing
    assert table["left"].iloc[-1] == 0
    assert set(table["n_cells"]) == {100}


def test_more_candidates_than_memory_holds_are_refused_before_the_work(
    tiny_screen: ad.AnnData, tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = ["A+C", "B+C", "A+B+C"]
    monkeypatch.setattr(tool, "joint_covariance", lambda *_: pytest.fail("started nevertheless"))
    monkeypatch.setattr(tool, "bound", lambda: (10_000.0, "the memory of this machine"))
    told = r"3 candidates in 3 contexts .* GB.*pass candidates=\[\.\.\.\] of at most (\d+)"
    with pytest.raises(OutOfMemoryError, match=told) as caught:
        cd.tl.next_perturbations(tiny_screen, tiny_model, pairs)
    assert "next_perturbations" not in tiny_screen.uns
    assert 1 <= int(re.search(told, str(caught.value))[1]) < 3


def test_cells_make_a_measurement_tell_more(tiny_screen: ad.AnnData, tiny_model: Any) -> None:
    pairs = ["A+C", "B+C"]
    few, many = (
        cd.tl.next_perturbations(tiny_screen, tiny_model, pairs, n=1, n_cells=n) for n in (5, 500)
    )
    assert many["of_others"].iloc[0] > few["of_others"].iloc[0] > 0
    assert tiny_screen.uns["next_perturbations"] is many
    one = cd.tl.next_perturbations(tiny_screen, tiny_model, pairs, contexts="d1", genes=["gene3"])
    assert set(one["n_cells"]) == {100}
    assert len(one) == 2


def test_a_target_state_counts_what_goes_its_way(grouped: Any) -> None:
    adata, model = grouped
    candidates, target = ["new1", "new2"], "perturbation == 'E'"

    def gains(**options: Any) -> pd.Series:
        table = cd.tl.next_perturbations(adata.copy(), model, candidates, n=2, **options)
        return table.set_index("perturbation")["gain"]

    alone, others = gains(target=target, about="target"), gains()
    # By hand: the variance of the shift along the way to the target, from the joint covariance.
    trained = model.trained
    prior, decoder = trained.population.prior, trained.autoencoder.decoder
    conditions = [Condition((name,), None, "") for name in candidates]
    covariance_FQQ = joint_covariance(evenly_described(prior), conditions)
    cells = Cells.from_anndata(adata, trained.fields)
    z_NF = trained.autoencoder.encode(cells).flatten(1).double().numpy()
    means_F = [z_NF[(adata.obs["perturbation"] == n).to_numpy()].mean(0) for n in ("control", "E")]
    loadings_FG = decoder.loadings.detach().double().numpy()
    way_G = (means_F[1] - means_F[0]) @ loadings_FG
    along_F = (np.linalg.inv(prior.rotation) @ loadings_FG @ way_G) ** 2
    variance_Q = np.einsum("f,fqq->q", along_F, covariance_FQQ)
    cross = covariance_FQQ[:, 0, 1]
    noise = 1 / 100 + 1 / int((adata.obs["perturbation"] == "control").sum())
    taken = along_F @ (cross**2 / (covariance_FQQ[:, 0, 0] + noise))
    assert alone.index[0] == "new1"
    assert alone.iloc[0] == pytest.approx((variance_Q[0] + taken) / variance_Q.sum(), rel=1e-4)
    both = gains(target=target)
    assert both.iloc[0] == pytest.approx((alone["new1"] + others["new1"]) / 2, rel=1e-6)
    mask = (adata.obs["perturbation"] == "E").to_numpy()
    assert gains(target=mask, about="both").equals(both)
    assert abs(alone - others).max() > 1e-4


def test_what_cannot_be_chosen_from_is_refused(tiny_screen: ad.AnnData, tiny_model: Any) -> None:
    def choose(*given: Any, **options: Any) -> None:
        cd.tl.next_perturbations(tiny_screen, tiny_model, *given, **options)

    with pytest.raises(InputError, match="no features"):
        choose()
    with pytest.raises(InputError, match="measured in every context"):
        choose(["A"])
    with pytest.raises(InputError, match="nothing but the control"):
        choose(["control"])
    with pytest.raises(UnknownNameError, match="nothing is known"):
        choose(["Z"])
    with pytest.raises(UnknownNameError, match="d9"):
        choose(["A+C"], contexts="d9")
    with pytest.raises(UnknownNameError, match="gene99"):
        choose(["A+C"], genes=["gene99"])
    with pytest.raises(InputError, match="names no gene"):
        choose(["A+C"], genes=[])
    with pytest.raises(InputError, match="n=0"):
        choose(["A+C"], n=0)
    with pytest.raises(InputError, match="'target' goes with target="):
        choose(["A+C"], about="target")
    with pytest.raises(InputError, match="'others' goes without target="):
        choose(["A+C"], about="others", target="perturbation == 'B'")
    with pytest.raises(UnknownNameError, match="value of about"):
        choose(["A+C"], about="genes")
    with pytest.raises(InputError, match="target selects no cell"):
        choose(["A+C"], target="perturbation == 'Q'")


def test_where_nothing_is_shared_it_is_said(tiny_screen: ad.AnnData, tiny_model: Any) -> None:
    with pytest.warns(UserWarning, match="next to nothing"):
        cd.tl.next_perturbations(tiny_screen, tiny_model, ["A+C", "B+C"], n_cells=1e-9)
