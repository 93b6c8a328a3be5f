"""Gene sets and modules, whose tokens are eigengenes."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.decomposition import PCA

from celldit import components, datasets
from celldit.data.cells import Cells
from celldit.data.fields import Fields
from celldit.errors import InputError, NotTrainedError
from celldit.tokenizers import GeneSets, Modules
from celldit.tokenizers.balanced import _deal, _refine, _subspaces, gene_points

from .conftest import cells_of

SETS = {
    "one": ("G0", "G1", "G2", "G3", "G4"),
    "two": ("G3", "G4", "G5", "G6", "absent"),
    "far": ("x", "y", "z", "v", "w"),
    "tiny": ("G0", "G1"),
}


def test_values_are_the_principal_components_of_the_sets_genes(kang: Cells) -> None:
    tokenizer = GeneSets().fit(kang)
    values = tokenizer(kang).values.numpy()
    log = kang.log_normalized().toarray()
    for token in (0, 20, tokenizer.n_identities - 1):
        own = log[:, tokenizer.eigengenes.genes_of(token)]
        expected = PCA(5, svd_solver="full").fit_transform(own.astype(np.float64))
        assert np.allclose(np.abs(values[:, token]), np.abs(expected), atol=2e-3)


@pytest.mark.parametrize("kind", [GeneSets, Modules])
def test_loadings_are_orthonormal_and_signed(kind: type, kang: Cells) -> None:
    eigengenes = kind().fit(kang).eigengenes
    for group in range(eigengenes.n_groups):
        rows = slice(eigengenes.offsets[group], eigengenes.offsets[group + 1])
        loadings = eigengenes.loadings[rows].astype(np.float64)
        n_found = min(len(loadings), eigengenes.n_values)
        expected = np.diag(np.arange(eigengenes.n_values) < n_found)
        assert np.allclose(loadings.T @ loadings, expected, atol=1e-5)
        assert (loadings.sum(axis=0) > -1e-3).all()


@pytest.mark.parametrize("scale", [False, True])
def test_centred_on_the_training_cells(kang: Cells, scale: bool) -> None:
    values = Modules(scale=scale).fit(kang)(kang).values.numpy()
    assert np.abs(values.mean(axis=0)).max() < 1e-4


def test_scaled_genes_give_the_components_of_the_correlation(make_cells: Callable) -> None:
    cells = make_cells(200, 6)
    tokenizer = Modules(1, n_values=2, scale=True).fit(cells)
    log = cells.log_normalized().toarray().astype(np.float64)
    standard = (log - log.mean(axis=0)) / log.std(axis=0)
    expected = PCA(2, svd_solver="full").fit_transform(standard)
    values = tokenizer(cells).values.numpy()[:, 0]
    assert np.allclose(np.abs(values), np.abs(expected), atol=1e-3)


def test_small_sets_have_zero_columns(make_cells: Callable) -> None:
    cells = make_cells()
    tokenizer = GeneSets({"pair": ("G0", "G1")}, min_size=2, min_overlap=2).fit(cells)
    values = tokenizer(cells).values
    assert not values[:, 0, 2].any()
    assert values[:, 0, :2].any()


def test_a_gene_in_two_sets_counts_in_both(make_cells: Callable) -> None:
    cells = make_cells()
    tokenizer = GeneSets(SETS).fit(cells)
    before = tokenizer(cells).values
    counts = cells.counts.toarray()
    counts[:, cells.genes.index("G4")] += 50
    after = tokenizer(cells_of(counts, cells.genes, cells.size_factors)).values
    moved = (before - after).abs().amax(dim=(0, 2)) > 1e-3
    assert tokenizer.token_names == ("one", "two", "remainder_1")
    assert moved.tolist() == [True, True, False]


@settings(deadline=None, max_examples=15)
@given(
    n_genes=st.integers(7, 40),
    seed=st.integers(0, 50),
    remainder_size=st.integers(1, 12),
)
def test_no_gene_is_lost(
    make_cells: Callable, n_genes: int, seed: int, remainder_size: int
) -> None:
    cells = make_cells(30, n_genes, seed)
    tokenizer = GeneSets(SETS, remainder_size=remainder_size).fit(cells)
    members = [set(tokenizer.genes_of(token)) for token in range(tokenizer.n_identities)]
    assert set().union(*members) == set(cells.genes)
    remainder = members[2:]
    assert all(len(module) <= remainder_size for module in remainder)
    assert sum(map(len, remainder)) == n_genes - 7


@settings(deadline=None, max_examples=20)
@given(n_genes=st.integers(1, 60), share=st.floats(0, 1), seed=st.integers(0, 50))
def test_every_gene_is_in_one_module_and_sizes_are_balanced(
    make_cells: Callable, n_genes: int, share: float, seed: int
) -> None:
    n_modules = max(1, round(share * n_genes))
    tokenizer = Modules(n_modules).fit(make_cells(30, n_genes, seed))
    sizes = [len(tokenizer.genes_of(token)) for token in range(tokenizer.n_identities)]
    assert len(sizes) == n_modules
    assert max(sizes) - min(sizes) <= 1
    assert sorted(tokenizer.eigengenes.members) == list(range(n_genes))


def test_constant_genes_and_a_single_cell_are_placed() -> None:
    silent = cells_of(np.zeros((9, 5)), "ABCDE", np.ones(9))
    tokenizer = Modules().fit(silent)
    assert sorted(tokenizer.eigengenes.members) == [0, 1, 2, 3, 4]
    assert not tokenizer(silent).values.any()
    alone = cells_of(np.arange(72.0)[None], [f"g{i}" for i in range(72)], np.ones(1))
    assert Modules().fit(alone).n_identities == 9


def test_points_approximate_covariances(papalexi: Cells) -> None:
    log = papalexi.log_normalized()
    points = gene_points(log.tocsc()[:, :40], 0)
    covariance = np.cov(log.toarray()[:, :40].T.astype(np.float64), bias=True)
    assert np.allclose(points @ points.T, covariance, atol=1e-3)


def test_genes_of_large_variance_are_dealt_to_different_modules() -> None:
    variance = np.array([5.0, 1.0, 4.0, 1.0, 3.0, 2.0])
    assert _deal(variance, 3).tolist() == [0, 1, 1, 2, 2, 0]


def test_refinement_raises_the_captured_variance_and_keeps_sizes(papalexi: Cells) -> None:
    points = gene_points(papalexi.log_normalized().tocsc(), 0)
    dealt = _deal((points**2).sum(axis=1), 18)
    refined = _refine(points, dealt, 18, 3)
    assert _subspaces(points, refined, 18, 3)[0] > 1.005 * _subspaces(points, dealt, 18, 3)[0]
    assert np.bincount(refined).tolist() == np.bincount(dealt).tolist()


def test_ignoring_case_folds_sets_and_data_alike() -> None:
    cells = cells_of(np.ones((3, 4)), ["STAT1", "Stat1", "IRF1", "JAK2"], np.ones(3))
    tokenizer = GeneSets({"set": ("stat1", "Irf1", "IRF1")}, min_size=2, ignore_case=True)
    assert set(tokenizer.fit(cells).genes_of(0)) == {"STAT1", "Stat1", "IRF1"}
    assert tokenizer.report().loc["set", "listed"] == 2


@pytest.mark.parametrize("data", ["kang", "papalexi"])
def test_modules_hold_more_variance_of_new_cells_than_random_ones(
    data: str, request: pytest.FixtureRequest
) -> None:
    cells: Cells = request.getfixturevalue(data)
    train, new = cells.take(slice(0, None, 2)), cells.take(slice(1, None, 2))
    tokenizer = Modules().fit(train)
    held = tokenizer(new).values.square().sum()
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(cells.n_genes)
        parts = np.array_split(order, tokenizer.n_identities)
        sets = {str(i): [cells.genes[j] for j in part] for i, part in enumerate(parts)}
        random = GeneSets(sets, min_size=1).fit(train)
        assert random.n_identities == tokenizer.n_identities
        assert held > random(new).values.square().sum()


def test_nothing_larger_than_the_batch_is_made_dense(
    kang: Cells, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(components, "BLOCK_VALUES", 20_000)
    made: list[tuple[int, int]] = []
    for kind in (sparse.csr_matrix, sparse.csc_matrix):
        original = kind.toarray

        def watched(self: object, *args: object, original: Callable = original, **kw: object):
            made.append(self.shape)  # type: ignore[attr-defined]
            return original(self, *args, **kw)

        monkeypatch.setattr(kind, "toarray", watched)
    tokenizer = GeneSets().fit(kang)
    # Fitting sees the columns of one token, or a few cells, at a time.
    assert made
    assert all(n_columns <= 100 or n_rows * n_columns <= 20_000 for n_rows, n_columns in made)
    tokenizer(kang.take(slice(0, 8)))
    made.clear()
    tokenizer(kang.take(slice(0, 64)))
    assert made == []


def test_fitting_looks_at_a_bounded_number_of_cells(
    make_cells: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("celldit.tokenizers.canonical.MAX_FIT_CELLS", 10)
    cells = make_cells(50)
    first, again = Modules(3).fit(cells), Modules(3).fit(cells)
    assert np.array_equal(first.eigengenes.loadings, again.eigengenes.loadings)
    other = Modules(3, seed=1).fit(cells)
    assert not np.array_equal(first.eigengenes.center, other.eigengenes.center)


def test_the_report_tells_what_became_of_each_set(make_cells: Callable) -> None:
    sets = {**SETS, "lower": ("g0", "g1", "G2", "G3", "G4"), "huge": tuple("abcdefghij")}
    report = GeneSets(sets, max_size=9).fit(make_cells()).report()
    assert report["status"].to_dict() == {
        "one": "token",
        "two": "token",
        "far": "too few genes in the data",
        "tiny": "too small",
        "lower": "token",
        "huge": "too large",
        "remainder_1": "remainder",
    }
    assert report.loc["two", ["listed", "kept", "case_only"]].tolist() == [5, 4, 0]
    assert report.loc["lower", ["listed", "kept", "case_only"]].tolist() == [5, 3, 2]
    assert report.loc["remainder_1", "kept"] == 5


def test_ensembl_ids_find_the_sets_of_their_symbols() -> None:
    report = GeneSets().fit(Cells.from_anndata(datasets.sciplex2(), Fields())).report()
    assert (report["status"] == "token").sum() > 10


def test_ids_of_another_species_get_a_guess_and_a_way_out() -> None:
    fish = datasets.sciplex2()
    fish.var_names = fish.var_names.str.replace("ENSG", "ENSDARG")
    cells = Cells.from_anndata(fish, Fields())
    with pytest.raises(InputError, match="Ensembl ids against gene symbols") as caught:
        GeneSets().fit(cells)
    text = str(caught.value)
    assert all(repr(gene) in text for gene in cells.genes[:3])
    assert "'JUNB', 'CXCL2', 'ATF3'" in text
    assert 'tokenizer="modules"' in text


def test_mouse_genes_get_a_hint_that_works() -> None:
    cells = Cells.from_anndata(datasets.reprogramming(), Fields())
    with pytest.raises(InputError, match=r"mouse-style case.*GeneSets\(ignore_case=True\)"):
        GeneSets().fit(cells)
    report = GeneSets(ignore_case=True).fit(cells).report()
    assert (report["status"] == "token").sum() > 40


@pytest.mark.parametrize(
    ("listed", "genes", "text"),
    [
        (["ENSG00000000001"] * 1, ["STAT1", "IRF1"], "gene symbols against Ensembl ids"),
        (["ENSG00000000001"], ["ENSG00000000001.4"], "version suffix"),
        (["6772", "3659"], ["STAT1", "IRF1"], "Entrez"),
    ],
)
def test_other_guesses(listed: list[str], genes: list[str], text: str) -> None:
    cells = cells_of(np.ones((3, len(genes))), genes, np.ones(3))
    with pytest.raises(InputError, match=text):
        GeneSets({"set": listed}, min_size=1).fit(cells)


def test_options_that_cannot_be(make_cells: Callable) -> None:
    for options in ({"min_size": 0}, {"n_values": 1.5}, {"remainder_size": True}):
        with pytest.raises(InputError, match="whole number of at least 1"):
            GeneSets(SETS, **options)
    with pytest.raises(InputError, match="above max_size"):
        GeneSets(SETS, min_size=9, max_size=8)
    with pytest.raises(InputError, match="widen these bounds"):
        GeneSets(SETS, min_size=50).fit(make_cells())
    with pytest.raises(InputError, match="list of genes"):
        GeneSets({"set": "STAT1"})
    with pytest.raises(InputError, match="at least one"):
        GeneSets({})
    with pytest.raises(InputError, match="at most n_modules=12"):
        Modules(13).fit(make_cells())
    with pytest.raises(NotTrainedError, match=r"\.fit\(cells\)"):
        Modules()(make_cells())


def test_arrays_of_another_tokenizer(make_cells: Callable) -> None:
    fitted = Modules(n_modules=3).fit(make_cells())
    arrays = fitted.arrays()
    broken = {**arrays, "offsets": np.asarray(arrays["offsets"])[::-1].copy()}
    with pytest.raises(InputError, match=r"do not fit together; give from_config the arrays"):
        Modules.from_config(fitted.to_config(), broken)


def test_sets_that_cover_few_genes_are_said(make_cells: Callable) -> None:
    cells = make_cells(60, 20)
    few, many = ({"one": list(cells.genes[:n])} for n in (6, 12))
    with pytest.warns(UserWarning, match=r"cover 6 of 20 genes \(30%\)"):
        GeneSets(few, min_size=2).fit(cells)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GeneSets(many, min_size=2).fit(cells)
