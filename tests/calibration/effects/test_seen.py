"""What is said of conditions that were measured: as sure as their own cells allow, and no surer."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import celldit as cd
from celldit.calibration.effects.calibration import MOST_NOISE, EffectCalibration, shown
from celldit.conditions.extrapolation import Extrapolation
from celldit.training import TrainingConfig

N_GENES = 200
NAMES = [f"P{i}" for i in range(30)]


def screen(n_controls: int, n_active: int) -> tuple[ad.AnnData, pd.DataFrame]:
    """Fifty cells of each perturbation; each active one changes 15 genes of its own.

    Returns
    -------
    cells, effects
        The screen, and the true log factor of each perturbation and gene.
    """
    rng = np.random.default_rng(0)
    share_G = np.exp(rng.normal(0, 1.2, N_GENES))
    effects = pd.DataFrame(0.0, NAMES, [f"g{i}" for i in range(N_GENES)])
    for row in range(n_active):
        effects.iloc[row, rng.permutation(N_GENES)[:15]] = rng.normal(0, 0.8, 15)
    labels = ["control"] * n_controls + [name for name in NAMES for _ in range(50)]
    factor_NG = effects.reindex(labels).fillna(0.0).to_numpy()
    programmes_KG = rng.normal(0, 0.3, (3, N_GENES))
    state_NG = rng.normal(size=(len(labels), 3)) @ programmes_KG
    mean_NG = share_G * np.exp(factor_NG + state_NG)
    mean_NG *= np.exp(rng.normal(7.5, 0.3, (len(labels), 1))) / mean_NG.sum(1, keepdims=True)
    counts_NG = rng.poisson(mean_NG * rng.gamma(3, 1 / 3, mean_NG.shape)).astype(np.float32)
    obs = pd.DataFrame({"perturbation": labels}, [f"c{i}" for i in range(len(labels))])
    cells = ad.AnnData(sparse.csr_matrix(counts_NG), obs, pd.DataFrame(index=effects.columns))
    cd.CellDiT.setup_anndata(cells, perturbation_key="perturbation", control="control")
    return cells, effects


def effects_of(cells: ad.AnnData) -> pd.DataFrame:
    """What is called of all perturbations: a column for each gene."""
    model = cd.CellDiT(cells, "modules")
    model.train(
        config=TrainingConfig(flow_epochs=0, new_cells=False), enable_progress_bar=False, seed=0
    )
    table = cd.tl.effects(cells, model, NAMES)
    sign = np.sign(table["log_fold_change"]).where(table["lfsr"] < 0.05, 0.0)
    called = table.assign(sign=sign).pivot(index="perturbation", columns="gene", values="sign")
    return called.loc[NAMES, list(cells.var_names)]


def test_effects_that_no_other_perturbation_shares_are_found() -> None:
    cells, effects = screen(400, 15)
    called = effects_of(cells).to_numpy()
    truth = effects.to_numpy()
    large = np.abs(truth) > 0.4
    assert (called[large] == np.sign(truth[large])).mean() > 0.35
    wrong = called[called != 0] != np.sign(truth[called != 0])
    assert wrong.mean() < 0.05


@pytest.mark.parametrize("n_controls", [8, 30])
def test_where_nothing_happens_few_controls_make_no_effects(n_controls: int) -> None:
    cells, _ = screen(n_controls, 0)
    assert (effects_of(cells) == 0).to_numpy().mean() > 0.995


def test_its_own_cells_bound_the_doubt_of_a_seen_condition() -> None:
    """Poisson counts: the variance of the log mean of n cells is 1 / (n rate), u being 1."""
    rate_G, fold_G, wide = np.array([10.0, 100.0]), np.array([0.0, 1.0]), 4.0
    own = EffectCalibration(constant=wide, n_responding=40)
    whole = EffectCalibration(by_kind={Extrapolation.SEEN: own}, one_count=1.0, constant=wide)

    def variance_G(kind: Extrapolation, n: float) -> np.ndarray:
        found = whole.spread(
            np.zeros(2), fold_G, kind, control_rate_G=rate_G, n_controls=1e12, n_cells=n
        )
        return found.sd_G**2

    noise_G = MOST_NOISE / (50 * rate_G * np.exp(fold_G))
    expected_G = 1 / (1 / wide + 1 / noise_G)
    np.testing.assert_allclose(variance_G(Extrapolation.SEEN, 50), expected_G, rtol=0.02)
    # Of few cells, and of what was not seen, nothing more is known.
    np.testing.assert_allclose(variance_G(Extrapolation.CONTEXT, 50), wide)
    assert (variance_G(Extrapolation.SEEN, 5) > variance_G(Extrapolation.SEEN, 50)).all()
    np.testing.assert_allclose(shown(np.array([0.0, 1.0]), np.array([1.0, 1e12])), [0, 1])
