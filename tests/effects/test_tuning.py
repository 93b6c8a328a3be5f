"""What a prediction of a perturbation never seen rests on is chosen by its error."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from celldit.conditions import Condition, ConditionTable
from celldit.effects import tuning
from celldit.effects.features.features import read_features
from celldit.effects.fit_prior import fit_prior

STRONG = [f"S{i}" for i in range(4)]
WEAK = [f"W{i}" for i in range(20)]
N_DIMS = 30


def screen() -> tuple[np.ndarray, ConditionTable, np.ndarray, pd.DataFrame]:
    """Knock-outs of one pathway share one effect and features of theirs; most others do little."""
    rng = np.random.default_rng(0)
    conditions = [Condition(()), *(Condition((name,)) for name in STRONG + WEAK)]
    effect = np.eye(N_DIMS)[0] * 4
    shifts = [np.zeros(N_DIMS), *(effect + 0.5 * rng.normal(size=N_DIMS) for _ in STRONG)]
    shifts += [0.5 * rng.normal(size=N_DIMS) for _ in WEAK]
    index = np.repeat(np.arange(len(conditions)), 40)
    z = np.array(shifts)[index] + rng.normal(size=(len(index), N_DIMS))
    features = rng.normal(size=(len(STRONG + WEAK), 30))
    features[: len(STRONG)] += 4 * rng.normal(size=30)
    return z, ConditionTable(tuple(conditions), index), effect, pd.DataFrame(
        features, index=STRONG + WEAK
    )  # fmt: skip


def without(name: str, features: pd.DataFrame | None) -> float:
    """Share of a knock-out's squared effect that a prior misses which never saw it."""
    z, table, effect, _ = screen()
    kept = [i for i, c in enumerate(table.conditions) if name not in c.parts]
    rows = np.isin(table.index, kept)
    position = {old: new for new, old in enumerate(kept)}
    seen = ConditionTable(
        tuple(table.conditions[i] for i in kept),
        np.array([position[i] for i in table.index[rows]]),
    )
    prior = fit_prior(z[rows], seen, features=read_features(features))
    estimate = prior.estimate([Condition((name,))]).mean[0]
    return float(np.square(estimate - effect).sum() / np.square(effect).sum())


@pytest.mark.parametrize("name", STRONG[:2])
def test_features_that_tell_strong_effects_are_used_though_most_effects_are_nil(name: str) -> None:
    features = screen()[3]
    assert without(name, features) < 0.4
    assert without(name, None) > 0.6


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_features_that_tell_nothing_do_little_harm(seed: int) -> None:
    """One draw in fifty beats its shuffles by chance and is believed; that of seed 0 does."""
    noise = np.random.default_rng(seed).normal(size=(len(STRONG + WEAK), 30))
    table = pd.DataFrame(noise, index=STRONG + WEAK)
    assert without(STRONG[0], table) < 1.1 * without(STRONG[0], None)


def test_three_perturbations_are_too_few_but_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """How one follows from the others is then left to the likelihood."""
    monkeypatch.setattr(tuning, "_rescale", pytest.fail)
    z, table, _, features = screen()
    rows = table.index < 4
    few = ConditionTable(table.conditions[:4], table.index[rows])
    prior = fit_prior(z[rows], few, features=read_features(features))
    assert len(prior.conditions) == 3
    assert np.isfinite(prior.estimate([Condition(("W0",))]).mean).all()
