"""Generated cells: each from its own random numbers, in the composition that was asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
from scipy import sparse

from celldit import CellDiT
from celldit.data.fields import Fields
from celldit.errors import InputError, UnknownNameError


def dense(matrix: Any) -> np.ndarray:
    return matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)


@pytest.fixture(scope="module")
def generated(flowing_model: CellDiT) -> ad.AnnData:
    return flowing_model.generate(200)


def test_the_fields_of_generated_cells(generated: ad.AnnData, flowing_model: CellDiT) -> None:
    assert generated.shape == (200, 40)
    assert generated.obs_names.is_unique
    for column in ("perturbation", "donor", "size_factor", "extrapolation"):
        assert generated.obs[column].notna().all()
    assert (generated.obs["size_factor"] > 0).all()
    assert np.issubdtype(generated.layers["counts"].dtype, np.integer)
    size = generated.obs["size_factor"].to_numpy()[:, None]
    expected = np.log1p(1e4 * dense(generated.layers["mean"]) / size)
    np.testing.assert_allclose(dense(generated.X), expected, rtol=1e-4, atol=1e-6)
    made_by = generated.uns["celldit"]["made_by"]
    assert made_by["model"] == flowing_model.trained.model_id
    assert made_by["seed"] == 0
    assert Fields.from_anndata(generated).counts_layer == "counts"


def test_generated_cells_survive_a_file(generated: ad.AnnData, tmp_path: Path) -> None:
    generated.copy().write_h5ad(tmp_path / "g.h5ad")
    again = ad.read_h5ad(tmp_path / "g.h5ad")
    assert np.array_equal(dense(again.layers["counts"]), dense(generated.layers["counts"]))
    assert list(again.obs["perturbation"]) == list(generated.obs["perturbation"])


def test_the_same_seed_gives_the_same_bytes(generated: ad.AnnData, flowing_model: CellDiT) -> None:
    again, other = flowing_model.generate(200), flowing_model.generate(200, seed=1)
    for layer in ("counts", "mean"):
        assert dense(again.layers[layer]).tobytes() == dense(generated.layers[layer]).tobytes()
    assert again.obsm["X_celldit"].tobytes() == generated.obsm["X_celldit"].tobytes()
    assert np.abs(other.obsm["X_celldit"] - generated.obsm["X_celldit"]).max() > 0.5


@pytest.mark.parametrize("batch_size", [512, 7])
def test_cell_17_is_cell_17(generated: ad.AnnData, flowing_model: CellDiT, batch_size: int) -> None:
    few = flowing_model.generate(20, batch_size=batch_size)
    assert list(few.obs_names) == list(generated.obs_names[:20])
    assert list(few.obs["perturbation"]) == list(generated.obs["perturbation"][:20])
    assert list(few.obs["donor"]) == list(generated.obs["donor"][:20])
    np.testing.assert_allclose(few.obsm["X_celldit"], generated.obsm["X_celldit"][:20], atol=1e-4)
    np.testing.assert_allclose(few.obs["size_factor"], generated.obs["size_factor"][:20], rtol=1e-4)
    equal = dense(few.layers["counts"]) == dense(generated.layers["counts"][:20])
    assert equal.mean() > 0.999
    assert equal[17].all()


def test_no_two_cells_are_alike(generated: ad.AnnData) -> None:
    z = generated.obsm["X_celldit"]
    apart = np.linalg.norm(z[:, None] - z[None], axis=-1) + 10 * np.eye(len(z))
    assert apart.min() > 1e-3


def test_composition_follows_training(tiny_model: CellDiT, tiny_screen: ad.AnnData) -> None:
    drawn = tiny_model.generate(1500)
    for column in ("perturbation", "donor"):
        wanted = tiny_screen.obs[column].value_counts(normalize=True)
        got = drawn.obs[column].value_counts(normalize=True).reindex(wanted.index)
        np.testing.assert_allclose(got, wanted, atol=0.05)


def test_cells_resemble_the_data(tiny_model: CellDiT, tiny_screen: ad.AnnData) -> None:
    drawn = tiny_model.generate(1000)
    z = tiny_model.get_latent_representation(tiny_screen)
    made = drawn.obsm["X_celldit"]
    np.testing.assert_allclose(made.mean(0), z.mean(0), atol=0.25)
    np.testing.assert_allclose(made.std(0), z.std(0), rtol=0.25)
    one, two = dense(tiny_screen.X), dense(drawn.layers["counts"])
    # One epoch does not fit every gene's level, but their order is right.
    assert np.corrcoef(np.log1p(two.mean(0)), np.log1p(one.mean(0)))[0, 1] > 0.95
    assert np.median(drawn.obs["size_factor"]) == pytest.approx(np.median(one.sum(1)), rel=0.1)


def test_what_was_asked_for_is_made(flowing_model: CellDiT) -> None:
    made = flowing_model.generate(30, perturbation="B+A", covariates={"donor": "d2"})
    assert set(made.obs["perturbation"]) == {"A+B"}
    assert set(made.obs["donor"]) == {"d2"}
    new = flowing_model.generate(30, perturbation="B+C")
    assert set(new.obs["extrapolation"]) == {"new combination"}
    assert set(flowing_model.generate(9, perturbation="control").obs["perturbation"]) == {"control"}


def test_like_follows_composition_and_sizes(
    flowing_model: CellDiT, tiny_screen: ad.AnnData
) -> None:
    like = tiny_screen[tiny_screen.obs["perturbation"].isin(["A", "C"])].copy()
    like = like[like.obs["donor"] == "d3"].copy()
    made = flowing_model.generate(100, like=like)
    assert set(made.obs["perturbation"]) == {"A", "C"}
    assert set(made.obs["donor"]) == {"d3"}
    assert set(made.obs["size_factor"]) <= set(dense(like.X).sum(1).astype(np.float32))
    with pytest.raises(InputError, match="leave out the other conditions"):
        flowing_model.generate(5, like=like, perturbation="A")


@pytest.mark.parametrize("n_cells", [0, -1, 2.5, True])
def test_number_of_cells(flowing_model: CellDiT, n_cells: object) -> None:
    with pytest.raises(InputError, match="n_cells="):
        flowing_model.generate(n_cells)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"perturbation": "Q"}, "'Q' was not in training"),
        ({"covariates": {"doner": "d1"}}, "Unknown covariate 'doner'.*Did you mean 'donor'"),
        ({"covariates": {"donor": "d7"}}, "Unknown donor 'd7'.*'d1', 'd2', 'd3'"),
    ],
)
def test_names_that_are_not_known(
    flowing_model: CellDiT, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UnknownNameError, match=message):
        flowing_model.generate(5, **options)


def test_data_without_perturbations(
    simulate_screen: Callable[..., ad.AnnData], train_tiny: Callable[..., CellDiT]
) -> None:
    adata = simulate_screen(120, 12, ("control",))
    CellDiT.setup_anndata(adata, covariate_keys=["donor"])
    made = train_tiny(adata).generate(50, covariates={"donor": "d1"})
    assert "perturbation" not in made.obs
    assert set(made.obs["donor"]) == {"d1"}


@pytest.mark.parametrize("options", [{"time": 1.0}, {"dose": 1.0}])
def test_dose_and_time_need_their_columns(
    flowing_model: CellDiT, options: dict[str, float]
) -> None:
    with pytest.raises(InputError, match=r"without (time|dose)_key"):
        flowing_model.generate(5, **options)


def test_a_time_between_keeps_covariates(
    simulate_screen: Callable[..., ad.AnnData], train_tiny: Callable[..., CellDiT]
) -> None:
    adata = simulate_screen(240, 12, ("control", "A"), ("d1", "d2"))
    adata.obs["day"] = np.where(np.arange(240) < 120, 1.0, 2.0)
    CellDiT.setup_anndata(
        adata, perturbation_key="perturbation", covariate_keys=["donor"], time_key="day"
    )
    model = train_tiny(adata, max_epochs=0)
    made = model.generate(40, covariates={"donor": "d1"}, time=1.5)
    assert set(made.obs["day"]) == {1.5}
    assert set(made.obs["donor"]) == {"d1"}


def test_covariates_that_never_occur_together(simulate_screen, train_tiny) -> None:
    screen = simulate_screen(240, labels=("control", "A"))
    donors = screen.obs["donor"].astype(str)
    screen.obs["batch"] = np.where(donors == donors.iloc[0], "b1", "b2")
    CellDiT.setup_anndata(
        screen, perturbation_key="perturbation", covariate_keys=["donor", "batch"]
    )
    model = train_tiny(screen, max_epochs=0)
    wanted = {"donor": donors.iloc[0], "batch": "b2"}
    with pytest.raises(InputError, match=r"No training cells have .*'b2'.* together; ask for a"):
        model.generate(5, covariates=wanted)


@pytest.mark.parametrize("perturbation", [None, "control"])
@pytest.mark.parametrize("dose", [5.0, "banana"])
def test_a_dose_of_nothing_is_refused(
    perturbation: str | None, dose: object, simulate_screen: Any, train_tiny: Any
) -> None:
    adata = simulate_screen(n_cells=120)
    adata.obs["d"] = np.where(adata.obs["perturbation"] == "control", 0.0, 5.0)
    CellDiT.setup_anndata(adata, perturbation_key="perturbation", dose_key="d")
    model = train_tiny(adata, max_epochs=0)
    with pytest.raises(InputError, match=r'dose of nothing; say of what, with perturbation="NAME"'):
        model.generate(3, perturbation=perturbation, dose=dose)
    assert model.generate(3, perturbation="A", dose=5.0).n_obs == 3


def test_a_covariate_may_hold_what_joins_several(simulate_screen: Any, train_tiny: Any) -> None:
    adata = simulate_screen(n_cells=120)
    adata.obs["donor"] = ["CD4 | naive" if d == "d1" else "B" for d in adata.obs["donor"]]
    CellDiT.setup_anndata(adata, perturbation_key="perturbation", covariate_keys=["donor"])
    model = train_tiny(adata, max_epochs=0)
    made = model.generate(3, perturbation="A", covariates={"donor": "CD4 | naive"})
    assert list(made.obs["donor"]) == ["CD4 | naive"] * 3
