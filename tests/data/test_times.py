"""Times that are joined."""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import celldit as cd
from celldit.data.fields import Fields
from celldit.data.labels.times import MAX_TIMES, MIN_CELLS, binned, find_bins
from celldit.errors import InputError


def minutes(seed: int = 0) -> np.ndarray:
    """Three collections of an embryo, each over some minutes."""
    rng = np.random.default_rng(seed)
    return np.concatenate([start + rng.integers(0, 40, 200) for start in (100, 300, 500)]) + 0.0


def test_few_times_and_times_of_many_cells_stay() -> None:
    assert find_bins(np.repeat([1.0, 2.0, 3.0], 4)) == ()
    assert find_bins(np.repeat(np.arange(30.0), MIN_CELLS)) == ()


def test_minutes_are_joined_within_gaps() -> None:
    times_N = minutes()
    bins = find_bins(times_N)
    joined_N = binned(times_N, bins)
    values, counts = np.unique(joined_N, return_counts=True)
    assert 3 <= len(values) <= MAX_TIMES
    assert counts.min() >= MIN_CELLS
    # No bin reaches over a gap, and times keep their order.
    assert np.abs(joined_N - times_N).max() < 40
    assert (np.diff(joined_N[np.argsort(times_N)]) >= 0).all()
    assert np.array_equal(binned(joined_N, bins), joined_N)
    assert binned(np.array([250.0]), bins) == [250.0]


def test_the_setup_says_which(tmp_path) -> None:
    times_N = minutes()
    counts = np.random.default_rng(0).poisson(2.0, (600, 10)) + 1
    names = [f"c{i}" for i in range(600)]
    adata = ad.AnnData(
        sparse.csr_matrix(counts.astype(np.float32)),
        obs=pd.DataFrame({"minute": times_N}, index=names),
    )
    with pytest.warns(UserWarning, match=r"'minute' holds \d+ times.*joined to \d+ \("):
        cd.CellDiT.setup_anndata(adata, time_key="minute")
    fields = Fields.from_anndata(adata)
    assert fields.time_bins == find_bins(times_N)
    assert Fields.from_dict(fields.to_dict()) == fields
    adata.write_h5ad(tmp_path / "cells.h5ad")
    with pytest.warns(UserWarning, match="joined"):
        store = cd.open_store(tmp_path / "cells.h5ad", time_key="minute")
    assert np.array_equal(store.times, binned(times_N, fields.time_bins))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = cd.open_store(tmp_path / "cells.h5ad")
    assert np.array_equal(again.times, store.times)


def test_times_of_few_cells_are_said(make_screen) -> None:
    adata = make_screen(n_cells=60)
    adata.obs["day"] = np.where(np.arange(60) < 40, 1.0, np.where(np.arange(60) < 58, 2.0, 3.5))
    with pytest.warns(UserWarning, match=r"fewer than 20 cells, .*: 2 \(18\), 3.5 \(2\)\."):
        cd.CellDiT.setup_anndata(adata, time_key="day")
    adata.obs["day"] = np.where(np.arange(60) < 40, 1.0, 2.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cd.CellDiT.setup_anndata(adata, time_key="day")


def test_dates_are_refused_with_how_to_write_them(make_screen) -> None:
    adata = make_screen()
    adata.obs["when"] = pd.Timestamp("2026-01-01") + pd.to_timedelta(adata.obs["batch"], "D")
    with pytest.raises(InputError, match="holds dates; write the time since the start"):
        cd.CellDiT.setup_anndata(adata, time_key="when")
    adata.obs["when"] = adata.obs["when"].astype(str)
    with pytest.raises(InputError, match="dates to hours since the first"):
        cd.CellDiT.setup_anndata(adata, time_key="when")


@pytest.mark.parametrize("start", [28_000_000.0, 1.7e9])
def test_minutes_and_seconds_since_1970_are_told_apart(start: float) -> None:
    times_N = start + minutes()
    bins = find_bins(times_N)
    joined_N = binned(times_N, bins)
    assert len(np.unique(joined_N)) == len(bins)
    assert np.abs(joined_N - times_N).max() < 40
