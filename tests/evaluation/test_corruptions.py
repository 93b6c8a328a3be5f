"""The default table sees every way of being wrong that one measure alone is blind to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from celldit.data import Cells
from celldit.evaluation import DEFAULT, METRICS, evaluate

from .conftest import mean_over_conditions

Block = np.ndarray


def shuffle_genes(x: Block) -> Block:
    return np.random.default_rng(0).permuted(x, axis=0)


def mean_only(x: Block) -> Block:
    return np.repeat(x.mean(axis=0, keepdims=True), len(x), axis=0)


def double_variance(x: Block) -> Block:
    return x.mean(axis=0) + np.sqrt(2.0) * (x - x.mean(axis=0))


def corrupt(predicted: ad.AnnData, change: Callable[[Block], Block]) -> ad.AnnData:
    result = predicted.copy()
    groups = result.obs.groupby(["perturbation", "replicate"], observed=True).indices
    for rows in groups.values():
        result.X[rows] = change(result.X[rows])
    return result


def mix_up(predicted: ad.AnnData) -> ad.AnnData:
    result = predicted.copy()
    names = sorted(set(result.obs["perturbation"]))
    turned = dict(zip(names, np.roll(names, 1), strict=True))
    result.obs["perturbation"] = result.obs["perturbation"].astype(str).map(turned)
    return result


@pytest.fixture(scope="module")
def replicate_losses(papalexi: Any) -> pd.Series:
    return losses(papalexi.log_replicate(), papalexi)


def losses(predicted: ad.AnnData, halves: Any) -> pd.Series:
    table = evaluate(predicted, halves.truth, halves.control)
    means = mean_over_conditions(table)
    return pd.Series({name: METRICS[name].loss(means[name]) for name in DEFAULT})


@pytest.mark.parametrize(
    ("change", "seen_by", "blind"),
    [
        (shuffle_genes, ["correlation_error", "energy"], ["pearson", "nmse", "variance_ratio"]),
        (mean_only, ["variance_ratio", "correlation_error", "energy"], ["pearson", "nmse"]),
        (double_variance, ["variance_ratio", "energy"], ["pearson", "nmse"]),
    ],
)
def test_corrupted_cells_rank_below_the_replicate(
    change: Callable[[Block], Block],
    seen_by: list[str],
    blind: list[str],
    papalexi: Any,
    replicate_losses: pd.Series,
) -> None:
    found = losses(corrupt(papalexi.log_replicate(), change), papalexi)
    for name in seen_by:
        assert found[name] > replicate_losses[name], name
    # The point of having several measures: these cannot tell.
    for name in blind:
        assert found[name] == pytest.approx(replicate_losses[name], abs=1e-4), name


def test_mixed_up_labels_rank_below_the_replicate(
    papalexi: Any, replicate_losses: pd.Series
) -> None:
    found = losses(mix_up(papalexi.log_replicate()), papalexi)
    for name in ("pearson", "pearson_centroid", "nmse", "energy", "discrimination"):
        assert found[name] > replicate_losses[name], name


def test_shuffled_labels_score_at_chance(norman: Any) -> None:
    found = []
    for seed in range(8):
        shuffled = norman.log_replicate()
        names = sorted(set(shuffled.obs["perturbation"]))
        others = np.random.default_rng(seed).permutation(names)
        renamed = (
            shuffled.obs["perturbation"].astype(str).map(dict(zip(names, others, strict=True)))
        )
        shuffled.obs["perturbation"] = renamed
        table = evaluate(shuffled, norman.truth, norman.control, metrics=["discrimination"])
        found.append(float(table["value"].mean()))
    assert np.mean(found) == pytest.approx(0.0, abs=0.1)


def test_an_empty_prediction_ranks_below_the_replicate_and_discriminates_nothing(
    papalexi: Any, replicate_losses: pd.Series
) -> None:
    control = papalexi.control
    copies = []
    for name in sorted(set(papalexi.truth.obs["perturbation"])):
        one = ad.AnnData(
            Cells.from_anndata(control, papalexi.fields).log_normalized(), obs=control.obs.copy()
        )
        one.var_names = control.var_names
        one.obs["perturbation"] = name
        copies.append(one)
    empty = ad.concat(copies, index_unique="-")
    found = losses(empty, papalexi)
    assert found["discrimination"] == pytest.approx(1.0, abs=0.02)
    for name in ("pearson", "pearson_centroid", "nmse", "energy", "discrimination", "de_overlap"):
        assert found[name] > replicate_losses[name], name
