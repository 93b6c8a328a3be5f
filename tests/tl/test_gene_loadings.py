"""Loadings of the decoder in varm."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pytest
import torch

import celldit as cd
from celldit.errors import InputError


def test_a_step_in_the_latent_changes_the_log_expectation_by_the_loading(
    tiny_screen: ad.AnnData, tiny_model: Any
) -> None:
    order = np.random.default_rng(0).permutation(tiny_screen.n_vars)
    shuffled = tiny_screen[:, order].copy()
    cd.tl.gene_loadings(shuffled, tiny_model)
    loadings_GF = shuffled.varm["celldit_loadings"]
    decoder = tiny_model.trained.autoencoder.decoder
    linear = decoder.log_rate(torch.zeros(1, 6)) - decoder.log_rate(torch.eye(6) * -1)
    if decoder.residual is not None:
        linear = linear - decoder.residual(torch.zeros(1, 6)) + decoder.residual(-torch.eye(6))
    size_F = tiny_model.trained.autoencoder.scale.repeat_interleave(3)
    expected_GF = (linear / size_F[:, None]).detach().numpy().T[order]
    np.testing.assert_allclose(loadings_GF, expected_GF, atol=1e-4)
    assert list(shuffled.uns["celldit_loadings"]["names"]) == [
        f"{k}.{d}" for k in range(2) for d in range(3)
    ]


def test_genes_unknown_to_the_model_get_nan(tiny_screen: ad.AnnData, tiny_model: Any) -> None:
    other = tiny_screen[:, :1].copy()
    other.var_names = ["unknown"]
    wide = ad.concat([other, tiny_screen], axis=1)
    written = cd.tl.gene_loadings(wide, tiny_model, key_added="own", copy=True)
    assert written is not None
    assert "own" not in wide.varm
    assert np.isnan(written.varm["own"][0]).all()
    assert np.isfinite(written.varm["own"][1:]).all()


def test_missing_and_doubled_genes_are_refused(tiny_screen: ad.AnnData, tiny_model: Any) -> None:
    few = tiny_screen[:, 2:].copy()
    with pytest.raises(InputError, match="2 of the model's 40 genes"):
        cd.tl.gene_loadings(few, tiny_model)
    doubled = tiny_screen.copy()
    doubled.var_names = ["same"] * doubled.n_vars
    with pytest.raises(InputError, match="more than once"):
        cd.tl.gene_loadings(doubled, tiny_model)
    assert "celldit_loadings" not in few.varm
