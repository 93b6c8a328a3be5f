"""Tokens of a condition's parts: what each does alone, and nothing of what was held out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import anndata as ad
import numpy as np
import pytest
import torch

from celldit.conditions import Condition
from celldit.conditions.part_tokens import PartTokens
from celldit.effects import EffectPrior
from celldit.effects.fit_prior import fit_prior
from celldit.nn.dit import DiTConfig

Make = Callable[..., object]


@pytest.fixture(scope="module")
def prior(world: Make, crossed: list[Condition]) -> EffectPrior:
    made = world(crossed)
    return fit_prior(made.z, made.table)


def test_one_token_for_each_part(prior: EffectPrior) -> None:
    asked = [Condition(context="x"), Condition(("A",), None, "x"), Condition(("A", "B"), None, "y")]
    found = PartTokens.of(prior, asked)
    assert found.is_part_QM.tolist() == [[False, False], [True, False], [True, True]]
    assert found.tokens_QMP.shape == (3, 2, 4 + 2)
    assert (found.tokens_QMP[~found.is_part_QM] == 0).all()
    alone = prior.estimate([Condition(("B",), None, "y")])
    np.testing.assert_allclose(found.tokens_QMP[2, 1, :4], alone.mean[0], rtol=1e-5)
    assert found.tokens_QMP[2, 1, 4] == 1
    assert found.tokens_QMP[2, 1, 5] == pytest.approx(alone.sd[0], rel=1e-5)


def test_crossed_tokens_are_those_of_a_refit(prior: EffectPrior) -> None:
    asked = list(prior.conditions)
    crossed = PartTokens.of(prior, asked, crossed=True)
    for i in (0, 7, 9, len(asked) - 1):
        refit = PartTokens.of(prior.without([asked[i]]), [asked[i]])
        n = len(asked[i].parts)
        torch.testing.assert_close(
            crossed.tokens_QMP[i, :n], refit.tokens_QMP[0, :n], rtol=1e-4, atol=1e-5
        )


def test_crossed_tokens_know_nothing_of_their_own_cells(prior: EffectPrior) -> None:
    which = prior.conditions.index(Condition(("A", "B"), None, "x"))
    garbage = replace(prior, shifts=prior.shifts.copy())
    garbage.shifts[which] = 1e3
    one, two = (
        PartTokens.of(p, prior.conditions, crossed=True).tokens_QMP[which] for p in (prior, garbage)
    )
    torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("conditioning", ["tokens", "both"])
def test_a_model_with_tokens_trains_saves_and_predicts(
    tiny_screen: ad.AnnData, train_tiny: Callable[..., object], tmp_path: object, conditioning: str
) -> None:
    from celldit import CellDiT

    dit = DiTConfig(width=16, depth=1, n_heads=2, conditioning=conditioning, context_embedding=True)
    model = train_tiny(tiny_screen, dit=dit, config={"drop_condition": 0.2})
    model.save(tmp_path / "model")
    again = CellDiT.load(tmp_path / "model")
    asked = {"perturbations": ["A", "A+B", "B+C"], "seed": 1}
    one, two = model.predict(**asked), again.predict(tiny_screen, **asked)
    assert (one.X != two.X).nnz == 0
    assert np.isfinite(model.predict(guidance=1.5, **asked).obsm["X_celldit"]).all()
    assert model.generate(5, perturbation="A").n_obs == 5


@pytest.mark.parametrize("conditioning", ["tokens", "both"])
def test_an_untrained_model_is_the_prior(
    tiny_screen: ad.AnnData, train_tiny: Callable[..., object], conditioning: str
) -> None:
    dit = DiTConfig(width=16, depth=1, n_heads=2, conditioning=conditioning)
    model = train_tiny(tiny_screen, dit=dit, max_epochs=0)
    plain = train_tiny(tiny_screen, max_epochs=0)
    one, two = (
        m.weighted(1).predict(perturbations="B+C").obsm["X_celldit"] for m in (model, plain)
    )
    np.testing.assert_allclose(one, two, atol=1e-5)
