"""Looked-up ranks equal the plain test, cell for cell."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse, stats

from celldit.evaluation.challenge.panel import CountGroups
from celldit.evaluation.challenge.rank_tests import ControlRanks, rank_tests


def screen(seed: int, n_genes: int = 40) -> tuple[CountGroups, sparse.csr_matrix]:
    rng = np.random.default_rng(seed)
    rates = rng.gamma(0.4, 3.0, size=n_genes)
    rates[:2] = 0.0  # a gene that nobody shows, and one that only perturbed cells show
    moved = rates * rng.lognormal(sigma=0.5, size=(3, n_genes))
    moved[:, 1] = 2.0
    labels = rng.permutation(np.repeat(["C", "A", "B"], [7, 31, 18]))
    which = np.searchsorted(["A", "B", "C"], labels)
    counts = rng.poisson(moved[which]) + np.eye(len(labels), n_genes, k=5, dtype=int)
    control = rng.poisson(rates, size=(52, n_genes)) + np.eye(52, n_genes, k=5, dtype=int)
    control[:, 10] += 1
    return CountGroups.of(sparse.csr_matrix(counts), labels), sparse.csr_matrix(control)


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=15)
def test_tests_are_those_of_scanpy_and_scipy(seed: int) -> None:
    groups, control = screen(seed)
    found = rank_tests(groups, ControlRanks.of(control))
    names = [*np.asarray(groups.labels)[groups.codes], *["control"] * control.shape[0]]
    both = sparse.vstack([groups.counts, control]).astype(np.float32)
    adata = ad.AnnData(both, obs=pd.DataFrame({"p": pd.Categorical(names)}))
    adata.obs_names = [str(i) for i in range(adata.n_obs)]
    sc.pp.normalize_total(adata, target_sum=1e6)
    means = {n: adata.X[np.array(names) == n].toarray().mean(axis=0) for n in set(names)}
    sc.pp.log1p(adata)
    sc.tl.rank_genes_groups(adata, "p", reference="control", method="wilcoxon", tie_correct=True)
    tested = means["control"] > 5
    assert 0 < tested.sum() < groups.counts.shape[1]
    for p, label in enumerate(groups.labels):
        table = sc.get.rank_genes_groups_df(adata, label).set_index("names")["pvals"]
        expected = table.reindex(adata.var_names).to_numpy()
        np.testing.assert_allclose(found.p_value[p, tested], expected[tested], rtol=1e-5)
        assert np.isnan(found.p_value[p, ~tested]).all()
        q = stats.false_discovery_control(expected[tested])
        np.testing.assert_allclose(found.q_value[p, tested], q, rtol=1e-5)
        change = np.log2((means[label] + 1e-9) / (means["control"] + 1e-9))
        np.testing.assert_allclose(
            found.log2_fold_change[p, tested], change[tested], rtol=1e-4, atol=1e-4
        )
        side = adata.X[np.array(names) == label].toarray().astype(np.float64)
        base = adata.X[np.array(names) == "control"].toarray().astype(np.float64)
        plain = stats.mannwhitneyu(side, base, method="asymptotic", use_continuity=False).pvalue
        np.testing.assert_allclose(found.p_value[p, tested], plain[tested], atol=1e-9)


def test_counts_are_left_as_they_are() -> None:
    groups, control = screen(0)
    before = groups.counts.copy(), control.copy()
    rank_tests(groups, ControlRanks.of(control))
    for now, then in zip((groups.counts, control), before, strict=True):
        np.testing.assert_array_equal(now.data, then.data)
        np.testing.assert_array_equal(now.indices, then.indices)


def test_stored_zeros_are_zeros() -> None:
    groups, control = screen(1)
    padded = groups.counts.tolil()
    padded[0, 3] = 7
    padded = padded.tocsr()
    stored = padded.copy()
    stored[0, 3] = 0  # kept as an entry
    gone = stored.copy()
    gone.eliminate_zeros()
    assert stored.nnz > gone.nnz
    ranks = ControlRanks.of(control)
    one = rank_tests(CountGroups(stored, groups.codes, groups.labels), ranks)
    other = rank_tests(CountGroups(gone, groups.codes, groups.labels), ranks)
    np.testing.assert_array_equal(one.p_value, other.p_value)
