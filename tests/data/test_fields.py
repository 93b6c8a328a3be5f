from __future__ import annotations

import copy
import dataclasses
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from celldit.data import Fields, setup_anndata
from celldit.data.labels import columns
from celldit.errors import CellditError, InputError, UnknownNameError

text = st.text("abc é/+._", min_size=1, max_size=8)
optional = st.none() | text
any_fields = st.builds(
    Fields,
    perturbation_key=optional,
    control=text,
    covariate_keys=st.lists(text, max_size=3, unique=True).map(tuple),
    size_factor_key=optional,
    counts_layer=optional,
    dose_key=optional,
    time_key=optional,
    perturbation_sep=text,
)


@given(any_fields)
def test_fields_survive_a_file(tmp_path_factory, fields):
    adata = ad.AnnData(np.ones((2, 2)), uns={"celldit": {"setup": fields.to_dict()}})
    assert Fields.from_anndata(adata) == fields
    path = tmp_path_factory.mktemp("fields") / "a.h5ad"
    adata.write_h5ad(path)
    assert Fields.from_anndata(ad.read_h5ad(path)) == fields


@pytest.mark.parametrize("keys", [(), ("donor",), ("donor", "cell type")])
def test_fields_survive_zarr(tmp_path, keys):
    fields = Fields(perturbation_key="p", covariate_keys=keys, time_key="day")
    adata = ad.AnnData(np.ones((2, 2)), uns={"celldit": {"setup": fields.to_dict()}})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zarr's own, about consolidated metadata
        adata.write_zarr(tmp_path / "a.zarr")
        read = ad.read_zarr(tmp_path / "a.zarr")
    assert Fields.from_anndata(read) == fields


def test_fields_are_frozen_and_unknown_entries_refused():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Fields().control = "ctrl"
    with pytest.raises(InputError, match="'colour'"):
        Fields.from_dict({"colour": "red"})


def test_setup_writes_only_its_entry(make_screen):
    adata = make_screen()
    adata.uns["celldit"] = {"other": 1}
    before = snapshot(adata)
    fields = setup_anndata(
        adata,
        perturbation_key="perturbation",
        covariate_keys=["donor", "batch"],
        size_factor_key="umis",
        time_key="day",
    )
    assert fields.covariate_keys == ("donor", "batch")
    assert Fields.from_anndata(adata) == fields
    assert adata.uns["celldit"].pop("setup")["time_key"] == "day"
    assert_same(adata, before)


def test_one_covariate_may_be_plain_text(make_screen):
    assert setup_anndata(make_screen(), covariate_keys="donor").covariate_keys == ("donor",)


def test_without_setup_the_error_names_the_call():
    for uns in ({}, {"celldit": {}}, {"celldit": "?"}):
        with pytest.raises(InputError, match=r"celldit\.CellDiT\.setup_anndata\(adata"):
            Fields.from_anndata(ad.AnnData(np.ones((2, 2)), uns=uns))


@pytest.mark.parametrize(
    ("column", "control"),
    [
        ([0, 1, 2, 0], 0),
        ([0, 1, 2, 0], "0"),
        ([0.0, 1.0, 2.0, 0.0], 0),
        ([False, True, True, False], False),
        (pd.array([0, 1, 1, 0], dtype="Int64"), 0),
        (pd.Categorical(["c", "A", "B", "c"], categories=["c", "A", "B", "unused"]), "c"),
        (pd.Categorical([0, 1, 1, 0]), 0),
        (pd.array(["c", "A", "B", "c"], dtype="string"), "c"),
        ([" c ", "A", "B+A", "A + B"], "c"),
        (["A+c", "c", "c+c", "A"], "c"),
    ],
)
def test_any_kind_of_label_column_works(column, control):
    adata = ad.AnnData(np.ones((4, 2), dtype=int))
    adata.obs["p"] = column
    fields = setup_anndata(adata, perturbation_key="p", control=control)
    assert fields.control == str(control)


def test_views_and_backed_files_work(make_screen, tmp_path):
    adata = make_screen()
    view = adata[::2]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        setup_anndata(view, perturbation_key="perturbation")
    assert "celldit" in view.uns
    assert "celldit" not in adata.uns

    adata.write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    setup_anndata(backed, perturbation_key="perturbation", size_factor_key="umis")
    assert Fields.from_anndata(backed).size_factor_key == "umis"
    with pytest.raises(InputError, match="to_memory"):
        setup_anndata(backed[:20], perturbation_key="perturbation")
    backed.file.close()


def test_harmless_surprises_pass(make_screen):
    adata = make_screen()
    adata.obs_names = ["same"] * adata.n_obs
    counts = adata.X.toarray().astype(np.float64)
    counts[:, 3] = 0  # a gene nobody expresses
    adata.X = sparse.csc_matrix(counts)
    setup_anndata(adata, perturbation_key="perturbation")


def spoil(column, value):
    def change(adata):
        adata.obs[column] = adata.obs[column].astype(object)
        adata.obs.loc[adata.obs_names[:2], column] = value

    return change


def replace_counts(function):
    def change(adata):
        adata.X = function(adata.X)

    return change


def empty_cells(adata):
    dense = adata.X.toarray()
    dense[:3] = 0
    adata.X = sparse.csr_matrix(dense)


def double_genes(adata):
    adata.var_names = ["g0", "g0", "g1", "g1", "g2", "g2", "g3", "g3", "g4", "g5", "g6", "g7"]


def double_column(adata):
    adata.obs = pd.concat([adata.obs, adata.obs[["donor"]]], axis=1)


def as_it_is(adata):
    pass


SETUP = {"perturbation_key": "perturbation", "covariate_keys": ["donor"], "size_factor_key": "umis"}
BAD = {
    "no such column": (as_it_is, {"perturbation_key": "pertubation"}, "mean 'perturbation'"),
    "no such covariate": (as_it_is, {"covariate_keys": ["Donor"]}, "mean 'donor'"),
    "no such layer": (as_it_is, {"counts_layer": "counts"}, "none is known"),
    "no such control": (as_it_is, {"control": "Control"}, "pass control='control'"),
    "control far off": (as_it_is, {"control": "xyz"}, "'A', 'A.B', 'B' and 1 more.*'control'"),
    "empty control": (as_it_is, {"control": " "}, "control is empty"),
    "empty separator": (as_it_is, {"perturbation_sep": ""}, "perturbation_sep is empty"),
    "key that is no text": (as_it_is, {"time_key": 3}, "names of columns as text"),
    "covariate that is none": (
        as_it_is,
        {"covariate_keys": ["donor", None]},
        "covariate_keys takes names of columns as text, not None",
    ),
    "one column twice": (as_it_is, {"covariate_keys": ["perturbation"]}, "named twice"),
    "dose of nothing": (
        as_it_is,
        {"perturbation_key": None, "dose_key": "day"},
        "dose_key needs perturbation_key",
    ),
    "missing label": (spoil("perturbation", np.nan), {}, "2 missing values"),
    "missing covariate": (spoil("donor", None), {}, "2 missing values.*notna"),
    "empty label": (spoil("perturbation", ""), {}, "label '' is empty"),
    "empty part": (spoil("perturbation", "A+"), {}, "belongs to the names"),
    "zero size factor": (spoil("umis", 0), {}, "2 values of 0 or less"),
    "missing size factor": (spoil("umis", np.nan), {}, "2 missing values"),
    "infinite size factor": (spoil("umis", np.inf), {}, "finite numbers"),
    "time in words": (spoil("day", "day10"), {"time_key": "day"}, "holds 'day10'.*10.5"),
    "negative dose": (spoil("day", -1), {"dose_key": "day"}, "at least 0"),
    "doses for another label": (spoil("day", "1+2+3"), {"dose_key": "day"}, "3 numbers for"),
    "ambiguous contexts": (
        spoil("donor", "x | y"),
        {"covariate_keys": ["donor", "batch"]},
        "joins covariates",
    ),
    "column names twice": (double_column, {}, "2 columns named 'donor'"),
    "log-normalised": (replace_counts(lambda x: np.log1p(x)), {}, "raw counts"),
    "scaled": (replace_counts(lambda x: x.toarray() - 2.0), {}, "negative values"),
    "NaN": (replace_counts(lambda x: x * np.nan), {}, "NaN or infinite"),
    "words": (replace_counts(lambda x: x.toarray().astype(complex)), {}, "not numbers"),
    "empty cells": (empty_cells, {}, r"3 of 60 cells.*sc\.pp\.filter_cells"),
    "doubled genes": (double_genes, {}, "4 gene names.*'g0', 'g1', 'g2' and 1.*var_names_make"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_and_left_alone(case, make_screen):
    change, arguments, message = BAD[case]
    adata = make_screen()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        change(adata)
    adata.uns["celldit"] = {"setup": {"control": "as before"}}
    before = snapshot(adata)
    with pytest.raises(CellditError, match=message) as caught:
        setup_anndata(adata, **{**SETUP, **arguments})
    assert isinstance(caught.value, (InputError, UnknownNameError))
    assert_same(adata, before)


def test_labels_of_all_cells_are_parsed_once(make_screen, monkeypatch):
    """A million take a seventh of a second each time."""
    parsed = []
    parse = columns.canonical_array
    monkeypatch.setattr(columns, "canonical_array", lambda n, *a: parsed.append(n) or parse(n, *a))
    setup_anndata(make_screen(n_cells=60), perturbation_key="perturbation")
    assert [len(names) for names in parsed] == [60]


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_empty_anndata_is_refused(shape):
    with pytest.raises(InputError, match="has no"):
        setup_anndata(ad.AnnData(np.ones(shape)))


def test_what_is_no_anndata_is_refused():
    with pytest.raises(InputError, match="got DataFrame"):
        setup_anndata(pd.DataFrame({"a": [1]}))


def snapshot(adata):
    return copy.deepcopy((adata.X, adata.obs, adata.var, dict(adata.uns)))


def assert_same(adata, before):
    matrix, obs, var, uns = before
    np.testing.assert_array_equal(dense(adata.X), dense(matrix))
    assert adata.X.dtype == matrix.dtype
    pd.testing.assert_frame_equal(adata.obs, obs)
    pd.testing.assert_frame_equal(adata.var, var)
    assert dict(adata.uns) == uns


def dense(matrix):
    return matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)


@pytest.mark.parametrize(
    ("values", "warns"),
    [
        (np.linspace(0, 1, 4000), True),
        (np.linspace(0, 1, 21).repeat(300), True),  # 21 levels of a share, each of many cells
        (np.arange(4000) % 400, True),  # counts
        (np.arange(4000) % 40, False),  # plates by number, of 100 cells each
        (np.arange(4000) % 8 / 4, False),  # few levels
        ((np.arange(4000) % 400).astype(str), False),  # names, whose number is looked at later
    ],
)
def test_covariates_that_were_measured_are_named(values, warns):
    obs = pd.DataFrame({"p": ["control", "a"] * (len(values) // 2 + 1)})[: len(values)]
    obs["share"] = values
    obs.index = obs.index.astype(str)
    adata = ad.AnnData(sparse.csr_matrix(np.ones((len(values), 3))), obs=obs)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        setup_anndata(adata, perturbation_key="p", covariate_keys=["share"])
    said = [str(w.message) for w in caught if "named by covariate_keys" in str(w.message)]
    assert len(said) == warns
    if warns:
        assert (
            f"'share'], named by covariate_keys, holds numbers of {len(set(values)):,} levels"
            in said[0]
        )
