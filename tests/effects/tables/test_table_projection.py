from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from celldit.effects.tables.matching import MatchedTable
from celldit.effects.tables.projection import project
from celldit.effects.tables.residuals import TableResiduals, table_residuals
from celldit.effects.tables.shrinkage import shrunk
from celldit.effects.tables.table import EffectTable
from celldit.errors import InputError

F, G, P = 4, 60, 40


def made(
    *,
    noise: float = 0.05,
    genes: int = G,
    missing: float = 0.0,
    factor: float = 1.0,
    errors: bool = True,
    seed: int = 0,
) -> tuple[MatchedTable, np.ndarray, np.ndarray]:
    """A table of known shifts, some of which are large; loadings; the shifts."""
    rng = np.random.default_rng(seed)
    loadings_FG = rng.normal(0, 0.3, (F, G))
    truth_PF = rng.normal(0, 1, (P, F)) * np.where(np.arange(P) % 4, 0.1, 2.0)[:, None]
    effects_PG = truth_PF @ loadings_FG + noise * rng.normal(size=(P, G))
    effects_PG[rng.random((P, G)) < missing] = np.nan
    obs = pd.DataFrame(
        {
            "perturbation": [f"P{i}" for i in range(P)],
            "context": "",
            "direction": "",
            "n_cells": 1e4,
        }
    )
    stored = (effects_PG / factor).astype(np.float32)
    table = EffectTable(
        obs,
        tuple(f"g{i}" for i in range(G)),
        stored,
        np.full((P, G), noise / factor, np.float32) if errors else None,
    )
    columns = np.arange(genes)
    keys = tuple((name,) for name in table.perturbations)
    return (
        MatchedTable("t", table, keys, table.genes[:genes], columns, columns, factor, genes / G),
        loadings_FG,
        truth_PF,
    )


def error(given: MatchedTable, loadings_FG: np.ndarray, truth_PF: np.ndarray) -> float:
    found = shrunk(project(given, loadings_FG), np.ones(F)).means_PF
    return float(((found - truth_PF) ** 2).sum() / (truth_PF**2).sum())


def test_shifts_are_found() -> None:
    assert error(*made()) < 0.01


def test_the_logarithm_does_not_matter_where_it_is_said() -> None:
    plain, two = made(), made(factor=float(np.log(2)))
    assert error(*two) == pytest.approx(error(*plain), rel=1e-3)


def test_few_genes_and_missing_values_are_weighed() -> None:
    assert error(*made(genes=12)) < 0.1
    assert error(*made(missing=0.5)) < 0.1
    assert error(*made(errors=False)) < 0.02


def test_noise_is_shrunk_away() -> None:
    given, loadings_FG, truth_PF = made(noise=1.0, seed=1)
    projection = project(given, loadings_FG)
    least_squares_PF = np.linalg.solve(projection.gram_FF, projection.right_PF.T).T
    plain = ((least_squares_PF - truth_PF) ** 2).sum() / (truth_PF**2).sum()
    assert error(given, loadings_FG, truth_PF) < 0.8 * plain


def test_noise_that_errors_do_not_say_is_noticed() -> None:
    given, loadings_FG, truth_PF = made(noise=1.0, seed=2)
    told = EffectTable(
        given.table.obs, given.table.genes, given.table.effects, np.full((P, G), 0.01, np.float32)
    )
    sure = replace(given, table=told)
    assert error(sure, loadings_FG, truth_PF) < 1.5 * error(given, loadings_FG, truth_PF)


def test_contexts_of_one_perturbation_are_pooled_by_precision() -> None:
    given, loadings_FG, _ = made(noise=0.3)
    twice = EffectTable(
        pd.concat([given.table.obs.assign(context=c) for c in "xy"], ignore_index=True),
        given.table.genes,
        np.concatenate([given.table.effects, given.table.effects + 5]),
        np.concatenate([given.table.errors, np.full((P, G), 1e3, np.float32)]),
    )
    pooled = project(replace(given, table=twice, keys=given.keys * 2), loadings_FG)
    assert pooled.keys == given.keys
    # The second context is so unsure that it changes nothing.
    alone = shrunk(project(given, loadings_FG), np.ones(F)).means_PF
    np.testing.assert_allclose(shrunk(pooled, np.ones(F)).means_PF, alone, atol=0.1)


def test_turning_changes_nothing() -> None:
    given, loadings_FG, _ = made(noise=0.3)
    turn_FF, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(F, F)))
    projection = project(given, loadings_FG)
    plain = shrunk(projection, np.ones(F)).means_PF
    turned = shrunk(projection.turned(turn_FF), np.ones(F)).means_PF
    np.testing.assert_allclose(turned, plain @ turn_FF, atol=1e-8)


def test_infinite_values_are_refused() -> None:
    given, loadings_FG, _ = made()
    given.table.effects[3, 5] = np.inf  # type: ignore[index]
    with pytest.raises(InputError, match="infinite"):
        project(given, loadings_FG)


def test_single_genes_beyond_the_latent_are_kept() -> None:
    given, loadings_FG, truth_PF = made(noise=0.05)
    # The third perturbation's own gene, and another one, move by themselves.
    genes = ("P2", *given.table.genes[1:])
    given.table.effects[2, [0, 7]] += (-2.0, 1.5)  # type: ignore[index]
    table = EffectTable(given.table.obs, genes, given.table.effects, given.table.errors)
    given = replace(given, table=table, genes=genes)
    found = table_residuals(given, loadings_FG, given.keys, truth_PF)
    values_G, stored_G = found.of(2, ["other", *genes[::-1]])
    assert values_G[0] == 0
    assert not stored_G[0]
    of_gene = dict(zip(["other", *genes[::-1]], values_G, strict=True))
    assert of_gene["P2"] == pytest.approx(-2, abs=0.2)
    assert of_gene["g7"] == pytest.approx(1.5, abs=0.2)
    # Of all others hardly any lies so far off.
    assert np.mean(found.values_PH.toarray()[3:] != 0) < 0.02
    again = TableResiduals.from_arrays(found.genes, P, found.arrays())
    np.testing.assert_allclose(again.values_PH.toarray(), found.values_PH.toarray())
    with pytest.raises(ValueError, match="does not name"):
        TableResiduals.from_arrays(found.genes, 2, found.arrays())


def test_a_target_is_known_by_its_name_in_the_model() -> None:
    """A table of Ensembl ids, matched by a column of symbols, whose perturbations are symbols."""
    given, loadings_FG, truth_PF = made(noise=0.05)
    ids = tuple(f"ENSG{i:011d}" for i in range(G))
    table = EffectTable(given.table.obs, ids, given.table.effects, given.table.errors)
    given = replace(given, table=table, genes=("P2", *given.genes[1:]))
    _, stored_G = table_residuals(given, loadings_FG, given.keys, truth_PF).of(2, ["P2"])
    assert stored_G[0]
