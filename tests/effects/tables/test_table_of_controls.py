from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import celldit as cd
from celldit import CellDiT
from celldit.errors import InputError, UnknownNameError


def cells(n: int = 2000) -> ad.AnnData:
    """Where gene 0 is high gene 1 is, and gene 2 is not; in another context all are higher."""
    rng = np.random.default_rng(0)
    state = rng.normal(size=n)
    log_rate = np.full((n, 12), 3.0)
    log_rate[:, 0] += state
    log_rate[:, 1] += 0.8 * state
    log_rate[:, 2] -= 0.8 * state
    where = np.where(np.arange(n) % 2, "x", "y")
    log_rate[where == "y"] += np.linspace(0, 1, 12)
    obs = pd.DataFrame(
        {"perturbation": "control", "place": where}, index=[f"c{i}" for i in range(n)]
    )
    var = pd.DataFrame(index=[f"g{i}" for i in range(12)])
    adata = ad.AnnData(sparse.csr_matrix(rng.poisson(np.exp(log_rate)).astype(np.int32)), obs, var)
    CellDiT.setup_anndata(adata, perturbation_key="perturbation", covariate_keys=["place"])
    return adata


def test_effects_lie_along_the_column_of_the_covariance() -> None:
    adata = cells()
    table = cd.pp.control_effects(adata)
    row = dict(
        zip(table.var_names, table.X[list(table.obs["perturbation"]).index("g0")], strict=True)
    )
    assert np.isnan(row["g0"])
    assert row["g1"] < -1
    assert row["g2"] > 1
    assert abs(row["g7"]) < 0.5 * abs(row["g1"])


def test_direction_is_of_each_perturbation() -> None:
    adata = cells()
    out, up = (
        cd.pp.control_effects(adata, direction=d) for d in ("knock-out", {"g0": "activation"})
    )
    assert list(up.obs["direction"][:2]) == ["activation", "knock-out"]
    assert np.sign(up.X[0, 1]) == -np.sign(out.X[0, 1])
    np.testing.assert_array_equal(up.X[1:], out.X[1:])
    with pytest.raises(UnknownNameError, match="direction"):
        cd.pp.control_effects(adata, direction="drug")


def test_few_controls_are_refused() -> None:
    with pytest.raises(InputError, match="it needs 50"):
        cd.pp.control_effects(cells(40))
