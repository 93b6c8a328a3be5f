"""The next batch is what teaches most of the others, and says when nothing does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import celldit as cd
from celldit.errors import InputError, UnknownNameError


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
    # Three are alike, so one of them comes first; the lone one teaches nothing of the others.
    assert table["perturbation"].iloc[0] != "new4"
    assert table["left"].is_monotonic_decreasing
    assert table["left"].iloc[-1] == 0
    assert set(table["n_cells"]) == {100}


def test_cells_make_a_measurement_tell_more(tiny_screen: ad.AnnData, tiny_model: Any) -> None:
    pairs = ["A+C", "B+C"]
    few, many = (
        cd.tl.next_perturbations(tiny_screen, tiny_model, pairs, n=1, n_cells=n) for n in (5, 500)
    )
    assert many["gain"].iloc[0] > few["gain"].iloc[0] > 0
    assert tiny_screen.uns["next_perturbations"] is many
    one = cd.tl.next_perturbations(tiny_screen, tiny_model, pairs, contexts="d1", genes=["gene3"])
    assert set(one["n_cells"]) == {100}
    assert len(one) == 2


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


def test_where_nothing_is_shared_it_is_said(tiny_screen: ad.AnnData, tiny_model: Any) -> None:
    with pytest.warns(UserWarning, match="next to nothing"):
        cd.tl.next_perturbations(tiny_screen, tiny_model, ["A+C", "B+C"], n_cells=1e-9)
