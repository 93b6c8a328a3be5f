"""From counts to the table: ranks and distances as scipy and scikit-learn give them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.decomposition import PCA
from sklearn.metrics import pairwise_distances

from celldit.data import Cells
from celldit.data.labels.labels import parts
from celldit.evaluation import evaluate
from celldit.evaluation.task import Task

EXACT = 1e-6


METRIC = {"discrimination": "cosine", "discrimination_l1": "manhattan"}


@pytest.mark.parametrize("name", METRIC)
@pytest.mark.parametrize("screen", ["norman", "papalexi"])
def test_ranks_are_those_of_scipy_among_distances_of_sklearn(
    screen: str, name: str, request: pytest.FixtureRequest
) -> None:
    halves = request.getfixturevalue(screen)
    task = Task.prepare(halves.truth, halves.control)
    predicted, genes = task.read(halves.replicate), np.array(task.truth.genes)
    table = evaluate(halves.replicate, halves.truth, halves.control, metrics=[name])
    n_targets, different = 0, set()
    for context, control in task.control.by_context().items():
        keys = [key for key in task.truth.conditions() if key[1] == context]
        start = task.control.dense(control).mean(axis=0, dtype=np.float64)
        u_PG, v_PG = (
            np.stack(
                [
                    side.dense(side.conditions()[k]).mean(axis=0, dtype=np.float64) - start
                    for k in keys
                ]
            )
            for side in (predicted, task.truth)
        )
        listed = table[table["context"] == context].set_index("perturbation")["value"]
        kept = ~np.isin(genes, [part for k in keys for part in parts(k[0], "+", "control")])
        n_targets += int((~kept).sum())
        for p, (label, _) in enumerate(keys):
            distances = pairwise_distances(
                v_PG[:, kept], u_PG[p : p + 1, kept], metric=METRIC[name]
            )
            rank = stats.rankdata(distances[:, 0], method="average")[p]
            different.add(rank)
            assert listed[label] == pytest.approx(1 - 2 * (rank - 1) / (len(keys) - 1), abs=EXACT)
    assert n_targets >= {"norman": 1, "papalexi": 6}[screen]
    assert len(different) > 1


def test_the_table_looks_through_the_components_of_sklearn(norman: Any) -> None:
    """Components, log expression and the choice of cells, too, from counts to the value."""
    one = norman.truth.obs["perturbation"] == "KLF1"
    other = norman.replicate.obs["perturbation"] == "KLF1"

    def log(adata: Any) -> np.ndarray:
        counts = Cells.from_anndata(adata, norman.fields).counts.toarray().astype(np.float64)
        return np.log1p(1e4 * counts / adata.obs["total_umis"].to_numpy()[:, None])

    pca = PCA(50, svd_solver="full").fit(np.concatenate([log(norman.control), log(norman.truth)]))
    x = pca.transform(log(norman.replicate[other.to_numpy()]))
    y = pca.transform(log(norman.truth[one.to_numpy()]))
    within = sum(pairwise_distances(z).sum() / (len(z) * (len(z) - 1)) for z in (x, y))
    expected = 2 * pairwise_distances(x, y).mean() - within
    table = evaluate(norman.replicate, norman.truth, norman.control, metrics=["energy"])
    found = table.set_index("perturbation")["value"]["KLF1"]
    # Log expression and components are float32 there.
    assert found == pytest.approx(expected, abs=1e-5)
