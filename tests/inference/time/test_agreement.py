"""Whatever is asked of a time says the same of it."""

from __future__ import annotations

from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from celldit import CellDiT


@pytest.fixture(scope="module")
def timed(train_tiny) -> tuple[CellDiT, ad.AnnData]:
    """Ten genes rise threefold over three times, X raises five others by as much at each."""
    rng = np.random.default_rng(0)
    base = rng.gamma(2, 2, 40) + 1.0
    counts, perturbation, time = [], [], []
    for hours in (2.0, 4.0, 6.0, 8.0):
        for label in ("control", "X"):
            rate = base * np.r_[np.full(10, 3.0 ** ((hours - 2) / 6)), np.ones(30)]
            rate[20:25] *= 4 if label == "X" else 1
            cell = np.exp(0.2 * rng.normal(size=(60, 2)) @ rng.normal(size=(2, 40)))
            counts.append(rng.poisson(rate * cell))
            perturbation += [label] * 60
            time += [hours] * 60
    adata = ad.AnnData(
        sparse.csr_matrix(np.concatenate(counts).astype(np.float32)),
        obs=pd.DataFrame({"perturbation": perturbation, "hours": time}).rename(index="c{}".format),
    )
    adata.obs["total"] = np.asarray(adata.X.sum(1)).ravel()
    CellDiT.setup_anndata(
        adata, perturbation_key="perturbation", time_key="hours", size_factor_key="total"
    )
    return train_tiny(adata, max_epochs=2), adata


def log_mean(cells: ad.AnnData) -> np.ndarray:
    counts = cells.layers["counts"].toarray()
    return np.log1p(counts / cells.obs["size_factor"].to_numpy()[:, None] * 1e4).mean(0)


@pytest.mark.parametrize(("time", "displacement"), [(4.0, 1.0), (5.0, 0.0), (5.0, 0.5), (5.0, 1.0)])
def test_new_cells_followed_cells_and_predicted_ones_have_one_mean(
    timed, time: float, displacement: float
) -> None:
    model, adata = timed
    course = replace(model.trained.time_course, displacement=displacement)
    model = _with(model, course)
    controls = adata[(adata.obs["perturbation"] == "control").to_numpy()].copy()
    followed = log_mean(model.trajectory(controls, times=[time]))
    made = log_mean(model.generate(512, perturbation="control", time=time))
    way = log_mean(model.trajectory(controls, times=[8.0])) - log_mean(
        model.trajectory(controls, times=[2.0])
    )
    size = np.sqrt(np.square(way).mean())
    assert np.sqrt(np.square(followed - made).mean()) < 0.2 * size
    for sampler in ("transport", "inversion", "edit"):
        predicted = model.predict(controls, perturbations=["control"], time=time, sampler=sampler)
        assert np.sqrt(np.square(followed - log_mean(predicted)).mean()) < 0.2 * size


@pytest.mark.parametrize("time", [4.0, 5.0])
def test_effects_are_those_of_new_and_predicted_cells(timed, time: float) -> None:
    model, adata = timed
    table = model.predict_effects(["X"], time=time)
    said = table["log_fold_change"].to_numpy()
    controls = adata[(adata.obs["perturbation"] == "control").to_numpy()].copy()
    pairs = [
        [model.predict(controls, perturbations=[p], time=time) for p in ("X", "control")],
        [model.generate(512, perturbation=p, time=time) for p in ("X", "control")],
    ]
    for perturbed, control in pairs:
        rates = [
            (c.layers["counts"].toarray() / c.obs["size_factor"].to_numpy()[:, None]).mean(0) * 1e4
            for c in (perturbed, control)
        ]
        seen = np.log((rates[0] + 0.05) / (rates[1] + 0.05))
        assert np.corrcoef(seen, said)[0, 1] > 0.9
        assert seen[20:25].min() > 0.5
        assert said[20:25].min() > 0.5
        assert np.abs(seen - said)[20:25].max() < 0.3


def test_kinds_of_extrapolation_in_time(timed) -> None:
    model, adata = timed
    some = adata[adata.obs["perturbation"] == "control"][:4].copy()
    kind = {t: model.predict(some, perturbations=["X"], time=t).obs["extrapolation"].iloc[0]
            for t in (4.0, 5.0)}  # fmt: skip
    assert kind == {4.0: "seen", 5.0: "between times"}
    with pytest.warns(UserWarning, match="outside the trained range"):
        late = model.generate(5, perturbation="X", time=20)
    assert set(late.obs["extrapolation"]) == {"beyond times"}
    assert model.flow_weight["between times"] == model.flow_weight["seen"]


def test_cells_do_not_depend_on_how_many_there_are(timed) -> None:
    model, _ = timed
    many, few = model.generate(300, time=5.0), model.generate(20, time=5.0, batch_size=7)
    assert (many.layers["counts"][:20] != few.layers["counts"]).nnz == 0
    assert np.array_equal(many.obsm["X_celldit"][:20], few.obsm["X_celldit"])


def test_a_course_is_saved_with_its_network(timed, tmp_path) -> None:
    model, adata = timed
    model.save(tmp_path / "model")
    again = CellDiT.load(tmp_path / "model")
    assert again.time_course == model.time_course
    few = adata[:20].copy()
    first, second = (m.trajectory(few, times=[5.0]) for m in (model, again))
    assert (first.layers["counts"] != second.layers["counts"]).nnz == 0


def _with(model: CellDiT, course) -> CellDiT:
    import copy

    other = copy.copy(model)
    other._trained = replace(model.trained, time_course=course)
    return other
