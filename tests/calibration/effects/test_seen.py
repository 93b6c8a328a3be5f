"""What is said of conditions that were measured: as sure as their own cells allow, and no surer."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from celldit.calibration.effects.calibration import MOST_NOISE, EffectCalibration, shown
from celldit.conditions.extrapolation import Extrapolation

sys.path.insert(0, str(Path(__file__).parents[3] / "notebooks" / "benchmarks"))
from seen_effects import measure


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_effects_that_no_other_perturbation_shares_are_found() -> None:
    found = measure(n_controls=400, n_cells=50, n_active=15, seed=0)
    assert found["found"] > 0.35
    assert found["wrong"] < 0.05


@pytest.mark.parametrize("n_controls", [8, 30])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_where_nothing_happens_few_controls_make_no_effects(n_controls: int) -> None:
    assert measure(n_controls, n_cells=50, n_active=0, seed=0)["called"] < 0.005


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
