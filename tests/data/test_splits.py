from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from celldit import datasets
from celldit.data import Cells, Fields, setup_anndata, split
from celldit.data.labels.labels import parts
from celldit.errors import CellditError, InputError, UnknownNameError

LABELS = ("control", "A", "B", "C", "D", "A+B", "B+C", "A+D", "A+B+C", "E+F")
seeds = st.integers(0, 10_000)
fractions = st.floats(0.05, 0.6)


@pytest.fixture
def screen(make_screen):
    adata = make_screen(n_cells=300, labels=LABELS)
    adata.obs["donor"] = [f"d{i // len(LABELS) % 5}" for i in range(300)]
    setup_anndata(adata, perturbation_key="perturbation", covariate_keys=["donor"])
    return adata


def sides(adata: ad.AnnData, key: str = "split") -> tuple[Cells, Cells]:
    column = adata.obs[key]
    assert list(column.cat.categories) == ["train", "test"]
    fields = Fields.from_anndata(adata)
    return tuple(Cells.from_anndata(adata[column == side], fields) for side in ("train", "test"))


def part_set(cells: Cells) -> set[str]:
    return {name for label in set(cells.perturbations) for name in parts(label)}


@given(seeds, fractions)
def test_held_out_perturbations_are_nowhere_in_training(screen, seed, fraction):
    split(screen, "perturbation", fraction=fraction, seed=seed)
    train, test = sides(screen)
    assert not test.is_control.any()
    held_out = part_set(test) - part_set(train)
    assert held_out
    assert all(held_out & set(parts(label)) for label in test.perturbations)


@given(seeds, fractions)
def test_held_out_combinations_leave_their_parts(screen, seed, fraction):
    split(screen, "combination", fraction=fraction, seed=seed)
    train, test = sides(screen)
    assert all(len(parts(label)) > 1 for label in test.perturbations)
    assert not set(test.perturbations) & set(train.perturbations)
    assert {"A", "B", "C", "D", "control"} <= set(train.perturbations)


@given(st.integers(0, 2), seeds)
def test_so_many_parts_are_seen_singly_as_asked(screen, n_seen, seed):
    split(screen, "combination", n_seen=n_seen, fraction=0.2, seed=seed)
    train, test = sides(screen)
    singles = set(train.perturbations)
    seen = [sum(p in singles for p in parts(label)) for label in set(test.perturbations)]
    assert n_seen in seen
    for label in set(test.perturbations):
        unseen = {part for part in parts(label) if part not in singles}
        if n_seen < 2 and len(parts(label)) > 1:
            assert not unseen & part_set(train)


def test_explicit_combinations_are_held_out_with_their_supersets(screen):
    split(screen, "combination", test=["B+A"])
    assert set(sides(screen)[1].perturbations) == {"A+B", "A+B+C"}


@given(seeds, fractions)
def test_held_out_contexts_are_trained_on_controls_only(screen, seed, fraction):
    split(screen, "context", fraction=fraction, seed=seed)
    train, test = sides(screen)
    assert not test.is_control.any()
    held_out = set(test.contexts)
    assert train.is_control[np.isin(train.contexts, list(held_out))].all()
    assert held_out <= set(train.contexts)


@given(seeds, fractions)
def test_held_out_pairs_stay_known_elsewhere(screen, seed, fraction):
    split(screen, "pair", fraction=fraction, seed=seed)
    train, test = sides(screen)
    pairs = [set(zip(side.perturbations, side.contexts, strict=True)) for side in (train, test)]
    assert not pairs[0] & pairs[1]
    assert set(test.perturbations) <= set(train.perturbations)
    assert not test.is_control.any()


@given(seeds, fractions)
def test_cells_are_held_out_in_every_stratum_alike(screen, seed, fraction):
    split(screen, "cells", fraction=fraction, seed=seed)
    frame = pd.DataFrame({"p": screen.obs["perturbation"], "d": screen.obs["donor"]})
    frame["test"] = screen.obs["split"] == "test"
    groups = frame.groupby(["p", "d"])["test"]
    assert ((groups.sum() - fraction * groups.size()).abs() <= 1).all()


@pytest.mark.parametrize("by", ["perturbation", "combination", "context", "pair", "cells"])
def test_the_seed_decides(screen, by):
    columns = []
    for seed in (1, 1, 2, 3, 4):
        split(screen, by, fraction=0.4, seed=seed, key_added=f"s{len(columns)}")
        columns.append(screen.obs[f"s{len(columns)}"].to_numpy() == "test")
    np.testing.assert_array_equal(columns[0], columns[1])
    assert any((columns[0] != other).any() for other in columns[2:])


@pytest.mark.parametrize("by", ["perturbation", "combination", "context", "pair", "cells"])
def test_a_split_does_not_depend_on_the_order_of_units(screen, by):
    split(screen, by, seed=5)
    turned = screen[::-1].copy()
    del turned.obs["split"]
    split(turned, by, seed=5)
    n_test = [(adata.obs["split"] == "test").sum() for adata in (screen, turned)]
    assert n_test[0] == n_test[1]
    if by != "cells":
        pd.testing.assert_series_equal(
            turned.obs["split"].loc[screen.obs_names], screen.obs["split"]
        )


def test_explicit_units(screen):
    split(screen, "perturbation", test=["C"])
    assert set(sides(screen)[1].perturbations) == {"C", "B+C", "A+B+C"}
    split(screen, "context", test=["d1"])
    assert set(sides(screen)[1].contexts) == {"d1"}
    split(screen, "pair", test=[("B+A", "d2"), ("C", "d0")])
    test = sides(screen)[1]
    assert set(zip(test.perturbations, test.contexts, strict=True)) == {("A+B", "d2"), ("C", "d0")}
    split(screen, "cells", test=["cell3", "cell0"], key_added="mine")
    assert list(sides(screen, "mine")[1].names) == ["cell0", "cell3"]


def test_real_screens_are_split_as_the_field_does():
    kang = datasets.kang()
    setup_anndata(kang, perturbation_key="condition", covariate_keys=["cell_type"])
    split(kang, "pair", test=[("IFNB", "CD14 Mono")])
    held = kang[kang.obs["split"] == "test"].obs
    assert set(held["cell_type"]) == {"CD14 Mono"}
    assert set(held["condition"]) == {"IFNB"}

    norman = datasets.norman()
    setup_anndata(norman, perturbation_key="perturbation", size_factor_key="total_umis")
    split(norman, "combination", n_seen=2, fraction=0.9)
    assert set(sides(norman)[1].perturbations) == {
        "KLF1+MAP2K6",
        "MAP2K3+MAP2K6",
        "MAP2K3+SLC38A2",
    }


def test_a_view_becomes_its_own(screen):
    view = screen[:200]
    split(view, "perturbation", test=["A"])
    assert "split" in view.obs
    assert "split" not in screen.obs


BAD = {
    "unknown way": ({"by": "gene"}, UnknownNameError, "'pair', 'cells'"),
    "unknown perturbation": ({"test": ["AA"]}, UnknownNameError, "Unknown perturbation 'AA'"),
    "control held out": ({"test": ["control"]}, UnknownNameError, "perturbation 'control'"),
    "single as combination": ({"by": "combination", "test": ["A"]}, UnknownNameError, "'A.B'"),
    "unknown context": ({"by": "context", "test": ["D1"]}, UnknownNameError, "mean 'd1'"),
    "unknown pair": ({"by": "pair", "test": [("A", "d9")]}, UnknownNameError, "'A in d9'"),
    "pair of one": ({"by": "pair", "test": ["AB"]}, InputError, "is .perturbation, context."),
    "unknown cell": ({"by": "cells", "test": ["cell999"]}, UnknownNameError, "cell 'cell999'"),
    "text for a list": ({"test": "A"}, InputError, r"\['A'\]"),
    "empty list": ({"test": []}, InputError, "test is empty"),
    "fraction": ({"fraction": 1.0}, InputError, "between 0 and 1"),
    "n_seen elsewhere": ({"n_seen": 1}, InputError, "goes with by=.combination."),
    "n_seen too high": ({"by": "combination", "n_seen": 3}, InputError, "0, 1 or 2"),
    "parts not seen": (
        {"by": "combination", "n_seen": 2, "test": ["E+F"]},
        InputError,
        "too few of them occur as single",
    ),
    "nothing left": (
        {"by": "context", "test": ["d0", "d1", "d2", "d3", "d4"]},
        InputError,
        "no perturbed cell to train on",
    ),
    "own column": ({"key_added": "donor"}, InputError, "would overwrite"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_requests_are_refused_and_leave_no_column(case, screen):
    arguments, kind, message = BAD[case]
    before = screen.obs.copy()
    with pytest.raises(kind, match=message):
        split(screen, **arguments)
    pd.testing.assert_frame_equal(screen.obs, before)


def test_what_the_data_lack_is_named(make_screen):
    adata = make_screen(labels=("control", "A", "B"))
    with pytest.raises(CellditError, match="setup_anndata"):
        split(adata)
    setup_anndata(adata)
    with pytest.raises(InputError, match='by="cells"'):
        split(adata, "perturbation")
    setup_anndata(adata, perturbation_key="perturbation")
    with pytest.raises(InputError, match="covariate_keys"):
        split(adata, "context")
    with pytest.raises(InputError, match="there is no combination"):
        split(adata, "combination")
    adata.obs["own"] = adata.obs["perturbation"]
    setup_anndata(adata, perturbation_key="perturbation", covariate_keys=["own"])
    with pytest.raises(InputError, match="one context only"):
        split(adata, "pair")


@pytest.mark.parametrize("by", ["perturbation", "combination", "context", "pair", "cells"])
@pytest.mark.parametrize("test", [5, 3.5, [3], [None]])
def test_a_test_of_another_kind(by, test, screen):
    with pytest.raises(CellditError):
        split(screen, by, test=test)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "seed=-1"),
        ({"seed": "a"}, "seed='a'"),
        ({"fraction": "a"}, "fraction='a'"),
        ({"fraction": None}, "fraction=None"),
        ({"key_added": 3}, "key_added=3 must be"),
        ({"key_added": ""}, "key_added='' must be"),
    ],
)
def test_options_of_another_kind(options, message, screen):
    with pytest.raises(InputError, match=message):
        split(screen, **options)
