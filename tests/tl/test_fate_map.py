"""Who becomes whom between two times."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest

import celldit as cd
from celldit.errors import InputError


@pytest.fixture(scope="module")
def timed(simulate_screen, train_tiny):
    """Two kinds of cells that stay what they are while one gene rises in both."""
    adata = simulate_screen(240, labels=("control",), donors=("d1",))
    rng, counts = np.random.default_rng(0), adata.X.toarray()
    adata.obs["kind"] = np.where(np.arange(240) % 2, "a", "b")
    adata.obs["day"] = np.repeat([1.0, 2.0], 120)
    counts[:, :12] = rng.poisson(np.where(adata.obs["kind"] == "a", 90, 1)[:, None], (240, 12))
    counts[:, 10] = rng.poisson(5 * adata.obs["day"].to_numpy() ** 2)
    adata.X = type(adata.X)(counts)
    cd.CellDiT.setup_anndata(adata, covariate_keys=(), time_key="day")
    return train_tiny(adata), adata


@pytest.mark.parametrize(("start", "end"), [(1, 2), (2, 1)])
def test_kinds_that_stay_become_themselves(timed, start, end):
    model, adata = timed
    before = adata.X.copy()
    fates = cd.tl.fate_map(adata, model, groupby="kind", start=start, end=end, max_cells=80)
    np.testing.assert_allclose(fates.sum(axis=1), 1)
    assert fates.loc["a", "a"] > 0.85
    assert fates.loc["b", "b"] > 0.85
    assert fates.index.name == f"kind at {start}"
    assert adata.uns["fate_map"].equals(fates.rename_axis(index=None, columns=None))
    assert (before != adata.X).nnz == 0


def test_streams_are_as_thick_as_shares(timed, tmp_path):
    model, adata = timed
    fates = cd.tl.fate_map(adata, model, groupby="kind", start=1, end=2, max_cells=40)
    ax = cd.pl.fate_map(fates, save=tmp_path / "fates.png")
    assert (tmp_path / "fates.png").exists()
    n_streams = int((fates.to_numpy() > 0).sum())
    assert len(ax.patches) == n_streams + 4
    plt.close("all")
    with pytest.raises(InputError, match="rows are shares"):
        cd.pl.fate_map(fates * 2)
