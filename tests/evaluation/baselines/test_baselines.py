from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from celldit.data import Cells, Fields
from celldit.errors import InputError, NotTrainedError, UnknownNameError
from celldit.evaluation.baselines import (
    Additive,
    Baseline,
    LatentArithmetic,
    MeanShift,
    NearestPerturbation,
    NoChange,
    measure_effects,
    predict_anndata,
)
from celldit.evaluation.baselines.ridge import fit_ridge

GENES = 30
FIELDS = Fields(perturbation_key="condition", covariate_keys=("batch",), size_factor_key="size")


def screen(labels: list[str], effects: dict[str, np.ndarray], batches: tuple[str, ...]) -> Cells:
    """Cells whose log expression is exactly additive: base of the batch + effects of the parts."""
    rng = np.random.default_rng(7)
    rows, written, contexts = [], [], []
    for batch in batches:
        base = rng.uniform(1.0, 2.0, size=GENES)
        for label in ["control", *labels]:
            shift = sum((effects[p] for p in label.split("+") if p in effects), np.zeros(GENES))
            for _ in range(3):
                rows.append(np.expm1(base + shift))
                written.append(label)
                contexts.append(batch)
    # With a size factor of 10,000 the counts are the normalised counts.
    counts = sparse.csr_matrix(np.array(rows, dtype=np.float32))
    n = len(rows)
    return Cells(
        counts=counts,
        size_factors=np.full(n, 1e4, dtype=np.float32),
        genes=tuple(f"g{i}" for i in range(GENES)),
        perturbations=np.array(written, dtype=object),
        covariates=pd.DataFrame({"batch": np.array(contexts, dtype=object)}),
        doses=None,
        times=None,
        names=np.array([f"cell{i}" for i in range(n)], dtype=object),
        control="control",
    )


@pytest.fixture
def effects() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.uniform(-0.4, 0.4, size=GENES) for name in "ABCD"}


@pytest.fixture
def train(effects: dict[str, np.ndarray]) -> Cells:
    return screen(["A", "B", "C", "D", "A+B", "C+D", "B+C"], effects, ("x", "y"))


def test_additive_is_exactly_additive(train: Cells, effects: dict[str, np.ndarray]) -> None:
    fitted = Additive().fit(train)
    for label in ("A", "A+C", "D+A", "A+B+C"):
        expected = sum(effects[part] for part in label.split("+"))
        np.testing.assert_allclose(fitted.shift(label, "never seen"), expected, atol=1e-4)


def test_additive_shrinks_where_left_out_conditions_tell_it_to() -> None:
    rng = np.random.default_rng(3)
    design = np.repeat(np.eye(6), 4, axis=0)
    noisy = fit_ridge(design, rng.normal(size=(24, 50)), np.ones(24))
    assert noisy.strength >= 3.0
    lonely = fit_ridge(np.eye(6), rng.normal(size=(6, 50)), np.ones(6))
    assert lonely.strength == 1e-6


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=10)
def test_errors_without_a_condition_are_those_of_a_refit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y, w = rng.normal(size=(12, 3)), rng.normal(size=(12, 4)), rng.uniform(0.5, 2, size=12)
    fit = fit_ridge(x, y, w, strengths=(0.5,))
    w = w / w.mean()
    error = 0.0
    for out in np.eye(12, dtype=bool):
        gram = (x[~out].T * w[~out]) @ x[~out] + 0.5 * np.eye(3)
        b = np.linalg.solve(gram, (x[~out].T * w[~out]) @ y[~out])
        error += float(np.sum(w[out, None] * np.square(y[out] - x[out] @ b)))
    assert fit.errors[0] == pytest.approx(error)


def test_constant_baselines(train: Cells) -> None:
    measured = measure_effects(train)
    assert not NoChange().fit(train).shift("A", "x").any()
    mean = MeanShift().fit(train).shift("never trained on", "x")
    np.testing.assert_allclose(mean, measured.shifts.mean(axis=0))


def test_nearest_copies(train: Cells, effects: dict[str, np.ndarray]) -> None:
    fitted = NearestPerturbation().fit(train)
    np.testing.assert_allclose(fitted.shift("A", "x"), effects["A"], atol=1e-5)
    both = effects["A"] + effects["B"]
    three = {"A+B": both, "B+C": effects["B"] + effects["C"]}
    np.testing.assert_allclose(
        fitted.shift("A+B+C", "new"), np.mean(list(three.values()), axis=0), atol=1e-5
    )
    with pytest.raises(UnknownNameError, match="part in common"):
        fitted.shift("Z")


def test_latent_arithmetic_adds_and_balances_contexts(
    train: Cells, effects: dict[str, np.ndarray]
) -> None:
    fitted = LatentArithmetic().fit(train)
    np.testing.assert_allclose(fitted.shift("A", "z"), effects["A"], atol=1e-3)
    np.testing.assert_allclose(fitted.shift("A+C"), effects["A"] + effects["C"], atol=1e-3)


def test_unseen_parts(train: Cells) -> None:
    with pytest.raises(UnknownNameError, match="Unknown perturbation 'E'"):
        Additive().fit(train).shift("A+E")
    with pytest.raises(UnknownNameError, match="'E'"):
        LatentArithmetic().fit(train).shift("A+E")


@pytest.mark.parametrize("make", [NoChange, MeanShift, Additive, NearestPerturbation])
def test_predictions_move_each_cell_by_its_shift(make: type[Baseline], train: Cells) -> None:
    fitted = make().fit(train)
    controls = train.take(train.is_control)
    moved = fitted.predict(controls, "A+B") - controls.log_normalized().toarray()
    for context in ("x", "y"):
        np.testing.assert_allclose(
            moved[controls.contexts == context][0], fitted.shift("B+A", context), atol=1e-5
        )
    assert not fitted.shift("control").any()


def test_predictions_as_anndata(train: Cells) -> None:
    fitted = Additive().fit(train)
    written = predict_anndata(fitted, train, ["B+A", "C", "A+B"], FIELDS)
    assert isinstance(written, ad.AnnData)
    assert written.n_obs == 2 * int(train.is_control.sum())
    assert list(written.obs["condition"].unique()) == ["A+B", "C"]
    assert set(written.obs.columns) >= {"condition", "batch", "control_cell", "size_factor"}
    assert written.obs_names.is_unique
    assert "counts" not in written.layers
    assert written.uns["celldit"]["baseline"] == "additive"
    with pytest.raises(InputError, match="no perturbations"):
        predict_anndata(fitted, train, [], FIELDS)


def test_bad_training_data(train: Cells) -> None:
    with pytest.raises(NotTrainedError, match="fit"):
        Additive().shift("A")
    with pytest.raises(InputError, match="nothing to fit"):
        NoChange().fit(train.take(train.is_control))
    bare = train.take(~(train.is_control & (train.contexts == "y")))
    with pytest.raises(InputError, match="'y'"):
        NoChange().fit(bare)
