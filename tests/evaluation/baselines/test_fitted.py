"""The gene-wise vote, the covariance of controls, counts of baselines, and all of them at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from celldit.data import Cells
from celldit.data.symbols import orthologs
from celldit.errors import InputError, UnknownNameError
from celldit.evaluation.baselines import (
    SIMPLE,
    ControlCovariance,
    MajorityVote,
    predict_anndata,
    predict_baseline,
)
from celldit.evaluation.baselines.prediction import edit_counts, predict_all


@pytest.fixture(scope="module")
def train(papalexi: Any) -> Cells:
    seen = papalexi.whole[papalexi.whole.obs["replicate"] == "rep_1"]
    return Cells.from_anndata(seen, papalexi.fields)


def test_the_vote_is_the_median_and_has_the_sign_of_the_majority(train: Cells) -> None:
    vote = MajorityVote().fit(train)
    shifts = vote.effects.shifts
    found = vote.shift("anything")
    np.testing.assert_allclose(found, np.median(shifts, axis=0))
    up, down = (shifts > 0).mean(axis=0), (shifts < 0).mean(axis=0)
    assert (found[up > 0.5] > 0).all()
    assert (found[down > 0.5] < 0).all()
    assert not vote.shift("control").any()


def test_covariance_of_controls_recovers_a_linear_response() -> None:
    """Expression follows one hidden factor, and a knock-out takes its gene along that factor."""
    rng = np.random.default_rng(0)
    loading = np.array([1.0, 0.8, -0.6, 0.0])

    def cells(n: int, level: float, label: str) -> tuple[np.ndarray, list[str]]:
        hidden = level + 0.4 * rng.normal(size=(n, 1))
        rate = 40 * np.exp(0.7 * hidden * loading)
        filler = 2000 - rate.sum(axis=1, keepdims=True)
        return rng.poisson(np.concatenate([rate, filler], axis=1)), [label] * n

    parts = [cells(800, 0.0, "control"), cells(400, -1.0, "g0"), cells(400, -0.8, "g1")]
    counts = np.concatenate([c for c, _ in parts])
    import anndata as ad
    import pandas as pd

    from celldit.data import Fields

    labels = [label for _, ls in parts for label in ls]
    adata = ad.AnnData(
        sparse.csr_matrix(counts),
        obs=pd.DataFrame({"p": labels}, index=[f"c{i}" for i in range(len(labels))]),
        var=pd.DataFrame(index=["g0", "g1", "g2", "g3", "rest"]),
    )
    train = Cells.from_anndata(adata, Fields(perturbation_key="p"))
    known = train.take(train.perturbations != "g1")
    found = ControlCovariance().fit(known)
    shift = found.shift("g1")
    true = found.fit(train).effects.shifts[list(found.effects.perturbations).index("g1")]
    assert np.corrcoef(shift[:4], true[:4])[0, 1] > 0.95
    assert np.sign(shift[:3]).tolist() == [-1, -1, 1]
    assert abs(shift[3]) < 0.1 * abs(shift[0])
    with pytest.raises(UnknownNameError, match="'g9'"):
        found.shift("g9")
    nothing = train.take(train.perturbations != "g0")
    renamed = Cells(**{**vars(nothing), "genes": ("a", "b", "c", "d", "e")})
    with pytest.raises(InputError, match="No trained perturbation names a gene"):
        ControlCovariance().fit(renamed)


def test_edited_counts_move_the_mean_log_expression_by_the_shift() -> None:
    rng = np.random.default_rng(1)
    counts = sparse.csr_matrix(rng.poisson(rng.gamma(1.0, 4.0, size=30), size=(400, 30)))
    sizes = np.asarray(counts.sum(axis=1)).ravel()
    shift = rng.normal(scale=0.3, size=30)
    found = edit_counts(counts, sizes, shift, rng)

    def mean_log(x: sparse.csr_matrix) -> np.ndarray:
        return np.log1p(1e4 * x.toarray() / sizes[:, None]).mean(axis=0)

    before, after = mean_log(counts), mean_log(found)
    reachable = (before > 1.5) & (before + shift > 0.5)
    assert reachable.sum() > 10
    np.testing.assert_allclose((after - before)[reachable], shift[reachable], atol=0.12)
    assert found.dtype == np.int32
    # Cells without a gene stay without it.
    assert not found.toarray()[counts.toarray() == 0].any()
    unchanged = edit_counts(counts, sizes, np.zeros(30), rng)
    np.testing.assert_array_equal(unchanged.toarray(), counts.toarray())


def test_all_baselines_at_once_leave_out_what_is_asked(papalexi: Any) -> None:
    conditions = {("STAT1", "rep_2"), ("IRF1", "rep_2")}
    found, skipped = predict_all(papalexi.whole, papalexi.control, conditions)
    assert set(found) | set(skipped) == set(SIMPLE)
    assert {"no change", "mean shift", "majority vote", "additive ridge", "nearest"} <= set(found)
    for adata in found.values():
        assert set(adata.obs["perturbation"]) == {"STAT1", "IRF1"}
        assert set(adata.obs["replicate"]) == {"rep_2"}
        assert adata.layers["edited_counts"].shape == adata.shape
    # With the asked cells turned to noise, nothing changes.
    garbled = papalexi.whole.copy()
    hit = (
        garbled.obs["perturbation"].isin(["STAT1", "IRF1"]) & (garbled.obs["replicate"] == "rep_2")
    ).to_numpy()
    dense = garbled.X.toarray()
    dense[hit] = np.random.default_rng(0).poisson(5, size=dense[hit].shape)
    garbled.X = sparse.csr_matrix(dense)
    again, _ = predict_all(garbled, papalexi.control, conditions)
    for name, adata in found.items():
        np.testing.assert_array_equal(adata.X, again[name].X)


def test_nothing_to_learn_from_is_said(papalexi: Any) -> None:
    whole = papalexi.whole
    every = {
        (str(p), str(c))
        for p, c in zip(whole.obs["perturbation"], whole.obs["replicate"], strict=True)
        if p != "control"
    }
    with pytest.raises(InputError, match="nothing to fit baselines on"):
        predict_all(whole, whole, every)
    with pytest.raises(UnknownNameError, match="Did you mean 'nearest'"):
        predict_baseline("neares", whole, whole, ["STAT1"])
    with pytest.raises(UnknownNameError, match="STAT11"):
        predict_baseline("nearest", whole, whole, ["STAT11"])


def test_counts_are_those_of_the_seed(papalexi: Any, train: Cells) -> None:
    made = MajorityVote().fit(train)
    one, other, another = (
        predict_anndata(made, train, ["STAT1"], papalexi.fields, seed=seed) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(
        one.layers["edited_counts"].toarray(), other.layers["edited_counts"].toarray()
    )
    assert (one.layers["edited_counts"] != another.layers["edited_counts"]).nnz
    np.testing.assert_array_equal(one.X, another.X)


def test_of_one_perturbation_its_other_cells_are_learned_from(papalexi: Any) -> None:
    of_one = papalexi.whole.obs["perturbation"].isin(["STAT1", "control"]).to_numpy()
    screen = papalexi.whole[of_one].copy()
    conditions = {("STAT1", "rep_2"), ("STAT1", "rep_1"), ("STAT1", "rep_3")}
    treated = screen.obs_names[(screen.obs["perturbation"] == "STAT1").to_numpy()]
    truth = treated[::3]
    found, _ = predict_all(screen, screen, conditions, truth=set(truth))
    assert {"no change", "mean shift"} <= set(found)
    # The cells that they are measured against are not among those.
    garbled = screen.copy()
    dense = garbled.X.toarray()
    dense[garbled.obs_names.isin(truth)] = 7
    garbled.X = sparse.csr_matrix(dense)
    again, _ = predict_all(garbled, screen, conditions, truth=set(truth))
    np.testing.assert_array_equal(found["mean shift"].X, again["mean shift"].X)
    with pytest.raises(InputError, match="that were trained on"):
        predict_all(screen, screen, conditions, truth=set(treated))


def test_covariance_of_controls_finds_the_gene_of_a_symbol_among_ids(train: Cells) -> None:
    id_of = {symbol: gene for gene, symbol in orthologs().of_id.items() if "MUS" not in gene}
    genes = tuple(id_of.get(gene, gene) for gene in train.genes)
    assert genes != train.genes
    by_symbol = ControlCovariance().fit(train).shift("STAT1")
    by_id = ControlCovariance().fit(replace(train, genes=genes)).shift("STAT1")
    np.testing.assert_array_equal(by_id, by_symbol)
