"""Conditions, the table of them, their kinds, and what is known of perturbations from elsewhere."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from celldit.conditions import Condition, ConditionTable
from celldit.conditions.extrapolation import Extrapolation, Known
from celldit.data.cells import Cells
from celldit.data.fields import Fields
from celldit.effects.features.features import from_arrays, read_features, to_arrays
from celldit.errors import InputError

names = st.sets(st.sampled_from(["A", "B", "C"]), max_size=3).map(lambda s: tuple(sorted(s)))
FIELDS = Fields(perturbation_key="perturbation", covariate_keys=("donor",))


def cells_of(adata: ad.AnnData, **changes: object) -> Cells:
    return replace(Cells.from_anndata(adata, FIELDS), **changes)


@given(names, st.floats(0, 1e3), st.sampled_from(["", "x | y"]), st.none() | st.floats(-5, 5))
def test_conditions_survive_json(
    parts: tuple[str, ...], dose: float, context: str, time: float | None
) -> None:
    for doses in (None, (dose,) * len(parts)):
        condition = Condition(parts, doses, context, time)
        again = Condition.from_list(json.loads(json.dumps(condition.to_list())))
        assert again == condition
        assert hash(again) == hash(condition)


def test_labels_and_controls() -> None:
    condition = Condition(("A", "B"), (1.0, 2.0), "x", 3.0)
    assert condition.label("+", "ctrl") == "A+B"
    assert condition.control().is_control
    assert condition.control().stratum == condition.stratum
    assert condition.control().label("+", "ctrl") == "ctrl"


def test_table_finds_the_condition_of_every_cell(tiny_screen: ad.AnnData) -> None:
    cells = cells_of(tiny_screen)
    table = ConditionTable.from_cells(cells, "+")
    assert len(table) == 15
    assert len(set(table.conditions)) == 15
    assert table.counts.sum() == cells.n_cells
    for i in range(cells.n_cells):
        condition = table.conditions[table.index[i]]
        assert condition.label("+", "control") == cells.perturbations[i]
        assert condition.context == cells.contexts[i]
        assert (condition.doses, condition.time) == (None, None)
    assert np.array_equal(np.sort(np.concatenate([table.cells_of(i) for i in range(15)])),
                          np.arange(cells.n_cells))  # fmt: skip


def test_table_does_not_depend_on_the_order_of_cells(tiny_screen: ad.AnnData) -> None:
    cells, order = cells_of(tiny_screen), np.random.default_rng(0).permutation(480)
    one, two = (ConditionTable.from_cells(c, "+") for c in (cells, cells.take(order)))
    assert one.conditions == two.conditions
    assert np.array_equal(one.index[order], two.index)


def test_doses_make_conditions_but_not_of_controls(tiny_screen: ad.AnnData) -> None:
    cells = cells_of(tiny_screen)
    doses = np.where(np.arange(480) % 7 < 3, 1.0, 2.0)
    table = ConditionTable.from_cells(replace(cells, doses=doses), "+")
    controls = [c for c in table.conditions if c.is_control]
    assert controls == [Condition(context=donor) for donor in ("d1", "d2", "d3")]
    assert {c.control() for c in table.conditions} == set(controls)
    assert {c.doses for c in table.conditions if c.parts == ("A", "B")} == {(1.0, 1.0), (2.0, 2.0)}
    assert len(table) == 3 + 2 * 12


def test_doses_of_each_part(tiny_screen: ad.AnnData) -> None:
    cells = cells_of(tiny_screen)
    doses = np.where(cells.perturbations == "A+B", "0.5+2", "1").astype(object)
    table = ConditionTable.from_cells(replace(cells, doses=doses), "+")
    assert {c.doses for c in table.conditions} == {None, (1.0,), (0.5, 2.0)}


def test_times_make_conditions(tiny_screen: ad.AnnData) -> None:
    times = np.where(np.arange(480) < 240, 1.5, 2.0)
    table = ConditionTable.from_cells(replace(cells_of(tiny_screen), times=times), "+")
    assert len(table) == 30
    assert {c.time for c in table.conditions} == {1.5, 2.0}


TRAINED = [
    Condition(),
    Condition(("A",), None, "x"),
    Condition(("B",), None, "x"),
    Condition(("A",), None, "y"),
    Condition(("C", "D"), None, "x"),
]


@pytest.mark.parametrize(
    ("parts", "context", "kind"),
    [
        ((), "nowhere", Extrapolation.SEEN),
        (("A",), "x", Extrapolation.SEEN),
        (("B",), "y", Extrapolation.CONTEXT),
        (("A",), "nowhere", Extrapolation.CONTEXT),
        (("A", "B"), "x", Extrapolation.COMBINATION),
        (("C",), "x", Extrapolation.COMBINATION),
        (("F",), "x", Extrapolation.UNSEEN),
        (("A", "F"), "x", Extrapolation.UNSEEN),
        (("Z",), "x", Extrapolation.UNKNOWN),
        (("F", "Z"), "x", Extrapolation.UNKNOWN),
    ],
)
def test_kinds(parts: tuple[str, ...], context: str, kind: Extrapolation) -> None:
    assert Known(TRAINED, frozenset("F")).classify(Condition(parts, None, context)) is kind


conditions = st.builds(
    Condition,
    st.sampled_from([("A",), ("B",), ("A", "B"), ("A", "C")]),
    st.none() | st.sampled_from([(1.0,), (2.0,)]),
    st.sampled_from("xy"),
    st.none() | st.sampled_from([1.0, 2.0, 3.0]),
)


@given(st.sets(conditions, min_size=1, max_size=6))
def test_a_condition_left_out_is_classified_by_the_others(trained: set[Condition]) -> None:
    known = Known(trained)
    for condition in trained:
        by_others = Known(trained - {condition}).classify(condition)
        assert known.classify(condition, left_out=True) is by_others


def test_thousands_of_conditions_are_left_out_at_once() -> None:
    trained = [Condition((f"p{i}",), None, where) for i in range(10_000) for where in "xy"]
    known, start = Known(trained), time.perf_counter()
    assert {known.classify(c, left_out=True) for c in trained} == {Extrapolation.CONTEXT}
    assert time.perf_counter() - start < 5


def test_features_become_correlations() -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(3, 2, (6, 5)), index=list("ABCDEF"))
    (features,) = read_features(table).values()
    assert features[0] == tuple("ABCDEF")
    centred = table - table.mean()
    expected = centred.div(np.sqrt((centred**2).sum(axis=1)), axis=0)
    np.testing.assert_allclose(features[1], expected)


def test_memberships_keep_their_lengths_and_unknown_genes_drop_out() -> None:
    rows = pd.DataFrame({"a": [3.0, 0.0, 0.0], "b": [0.0, 4.0, 0.0]}, index=list("ABC"))
    ((names, matrix),) = read_features(rows.astype(pd.SparseDtype(float, 0.0))).values()
    assert names == ("A", "B")
    assert sparse.issparse(matrix)
    expected = [[3 / 12.5**0.5, 0], [0, 4 / 12.5**0.5]]
    np.testing.assert_allclose(matrix.toarray(), expected, rtol=1e-6)
    again = from_arrays({"one": names}, to_arrays({"one": (names, matrix)}))["one"]
    assert again[0] == names
    np.testing.assert_array_equal(again[1].toarray(), matrix.toarray())


@pytest.mark.parametrize(
    ("value", "message"),
    [(0.0, "zero for every"), (np.nan, "missing values for 1"), (np.inf, "missing values for 1")],
)
def test_memberships_that_cannot_be_used(value: float, message: str) -> None:
    table = pd.DataFrame({"a": [value, 0.0]}, index=list("AB")).astype(pd.SparseDtype(float, 0.0))
    with pytest.raises(InputError, match=message):
        read_features(table)


def test_several_sources_and_none() -> None:
    table = pd.DataFrame(np.eye(3), index=list("ABC"))
    assert list(read_features({"one": table, "two": table})) == ["one", "two"]
    assert read_features(None) == {}


def test_a_constant_row_stays_finite() -> None:
    (features,) = read_features(pd.DataFrame(np.ones((3, 2)), index=list("ABC"))).values()
    assert (features[1] == 0).all()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (np.eye(3), r"features\['features'\] must be a DataFrame .* not ndarray"),
        (pd.DataFrame(np.eye(2), index=["A", "A"]), "name a perturbation twice"),
        (pd.DataFrame({"f": ["1", "much"]}, index=["A", "B"]), "not numbers"),
        (pd.DataFrame({"f": [1.0, np.nan]}, index=["A", "B"]), "missing values for 1 .*'B'"),
        (pd.DataFrame({"f": [1.0, np.inf]}, index=["A", "B"]), "missing values for 1 .*'B'"),
    ],
    ids=["array", "twice", "text", "nan", "inf"],
)
def test_features_that_cannot_be_used(table: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_features(table)
