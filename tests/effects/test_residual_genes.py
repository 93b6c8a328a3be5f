"""What the latent has no room for is told gene by gene, and only where it is there."""

from __future__ import annotations

from collections.abc import Callable

import anndata as ad
import numpy as np
import pytest

from celldit import CellDiT
from celldit.calibration.fit_residual_genes import fit_residual_genes
from celldit.conditions import Condition, ConditionTable
from celldit.effects import EffectPrior
from celldit.effects.fit_prior import fit_prior, joined
from celldit.effects.residual_genes import ResidualGenes, in_steps

N_CELLS, N_GENES = 400, 30
LABELS = tuple("ABCDEF")


def posed(own: float, n_dims: int = 3) -> tuple[ResidualGenes, EffectPrior, np.ndarray]:
    """Six perturbations in two donors that act on their own gene alone, unseen by the latent."""
    rng = np.random.default_rng(0)
    conditions = [Condition((), None, donor) for donor in ("d1", "d2")]
    conditions += [
        Condition((label,), None, donor)
        for label in LABELS
        for donor in ("d1", "d2")
        if (label, donor) != ("A", "d2")
    ]
    table = ConditionTable(tuple(conditions), np.repeat(np.arange(len(conditions)), N_CELLS))
    z_NF = rng.normal(size=(len(table.index), n_dims)).astype(np.float32)
    prior = fit_prior(z_NF, table)
    truth_CG = np.zeros((len(conditions), N_GENES))
    for i, condition in enumerate(conditions):
        for part in condition.parts:
            truth_CG[i, LABELS.index(part)] = own
    mean_CG = truth_CG + rng.normal(0, 1 / np.sqrt(N_CELLS), truth_CG.shape)
    line_FG = np.zeros((n_dims, N_GENES))
    residual_genes = fit_residual_genes(table, prior, line_FG, mean_CG, np.ones(N_GENES))
    return residual_genes, prior, truth_CG


def test_the_perturbed_gene_is_found_in_a_new_context() -> None:
    residual_genes, prior, _ = posed(-1.5)
    (told_G,) = residual_genes.estimate(prior, [Condition(("A",), None, "d2")])
    # One observation in another context, where this latent says nothing of how contexts differ.
    assert -1.6 < told_G[0] < -1.1
    assert np.abs(told_G[1:]).max() < 0.1
    np.testing.assert_array_equal(residual_genes.estimate(prior, [Condition((), None, "d2")]), 0)


def test_combinations_add_up() -> None:
    residual_genes, prior, _ = posed(-1.5)
    (told_G,) = residual_genes.estimate(prior, [Condition(("B", "C"), None, "d1")])
    np.testing.assert_allclose(told_G[1:3], -1.5, atol=0.25)


def test_noise_is_left_alone() -> None:
    residual_genes, prior, _ = posed(0.0)
    told_QG = residual_genes.estimate(prior, prior.conditions)
    observed = 2 / N_CELLS
    assert (told_QG**2).mean() < 0.2 * observed


def test_left_out_means_without_its_own_cells() -> None:
    residual_genes, prior, _ = posed(-1.5)
    asked = [Condition(("A",), None, "d1"), Condition(("B",), None, "d1")]
    left_QG = residual_genes.leave_one_out(prior, asked)
    # A was in no other donor, B was.
    assert abs(left_QG[0, 0]) < 0.2
    assert left_QG[1, 1] == pytest.approx(-1.5, abs=0.25)
    without = prior.without(asked[:1])
    keep = [i for i, c in enumerate(residual_genes.conditions) if c != asked[0]]
    fewer = ResidualGenes(
        tuple(residual_genes.conditions[i] for i in keep),
        N_GENES,
        residual_genes.gene_H,
        residual_genes.shifts_CH[keep],
        residual_genes.noise_C[keep],
        residual_genes.scatter_H,
        residual_genes.signal_H,
        residual_genes.common_H,
    )
    np.testing.assert_allclose(fewer.estimate(without, asked[:1])[0], left_QG[0], atol=1e-6)


def test_it_is_saved_and_refused_where_it_does_not_fit() -> None:
    residual_genes, prior, _ = posed(-1.5)
    config, arrays = residual_genes.to_config(), residual_genes.arrays()
    again = ResidualGenes.from_config(config, arrays, N_GENES)
    asked = [Condition(("A",), None, "d2")]
    np.testing.assert_array_equal(
        again.estimate(prior, asked), residual_genes.estimate(prior, asked)
    )
    assert ResidualGenes.from_config([], {}, N_GENES).is_none
    with pytest.raises(ValueError, match="residual effects fit neither"):
        ResidualGenes.from_config(config[1:], arrays, N_GENES)
    with pytest.raises(ValueError, match="residual effects fit neither"):
        ResidualGenes.from_config(config, arrays, int(residual_genes.gene_H.max()))


def test_an_earlier_training_is_kept() -> None:
    residual_genes, prior, _ = posed(-1.5)
    nothing, same = ResidualGenes.none(N_GENES), np.arange(N_GENES)
    moved = nothing.with_earlier(residual_genes, same[::-1])
    asked = [Condition(("A",), None, "d2")]
    expected_QG = residual_genes.estimate(prior, asked)[:, ::-1]
    # Strengths, scatters and observations move with their genes.
    np.testing.assert_allclose(moved.estimate(prior, asked), expected_QG, atol=1e-12)
    assert residual_genes.with_earlier(nothing, same) is residual_genes
    half = [i for i, c in enumerate(residual_genes.conditions) if c.context == "d1"]
    own = ResidualGenes(
        tuple(residual_genes.conditions[i] for i in half),
        N_GENES,
        residual_genes.gene_H,
        residual_genes.shifts_CH[half],
        residual_genes.noise_C[half],
        residual_genes.scatter_H,
        residual_genes.signal_H,
        residual_genes.common_H,
    )
    both = own.with_earlier(residual_genes, same)
    assert set(both.conditions) == set(residual_genes.conditions)
    np.testing.assert_allclose(
        both.estimate(prior, asked), residual_genes.estimate(prior, asked), atol=1e-6
    )


def test_a_knocked_out_gene_is_silenced_in_predicted_cells(
    simulate_screen: Callable[..., ad.AnnData], train_tiny: Callable[..., CellDiT]
) -> None:
    labels = ("control", "gene0", "gene1", "gene2", "gene3", "gene4")
    adata = simulate_screen(n_cells=3_000, n_genes=60, labels=labels)
    adata.var_names = [f"gene{i}" for i in range(adata.n_vars)]
    counts = adata.X.toarray()
    rng = np.random.default_rng(0)
    for i in range(5):
        rows = (adata.obs["perturbation"] == f"gene{i}").to_numpy()
        counts[:, i] = rng.poisson(4.0, len(counts)) * np.where(
            rows, rng.random(len(counts)) < 0.1, 1
        )
    adata.X = type(adata.X)(counts.astype(np.float32))
    CellDiT.setup_anndata(adata, perturbation_key="perturbation", covariate_keys=["donor"])
    held_out = (adata.obs["perturbation"] == "gene0") & (adata.obs["donor"] == "d1")
    model = train_tiny(adata[~held_out.to_numpy()].copy())
    own = adata[adata.obs["donor"] == "d1"]
    control = own[own.obs["perturbation"] == "control"].copy()
    predicted = model.predict(control, perturbations=["gene0"]).layers["counts"].toarray()[:, 0]
    assert predicted.mean() < 0.3 * control.X.toarray()[:, 0].mean()
    effects = model.predict_effects("gene0")
    here = effects[(effects["context"] == "d1") & (effects["gene"] == "gene0")]
    assert here["log_fold_change"].item() < -1.2


def test_a_training_that_found_nothing_in_a_gene_does_not_deny_it() -> None:
    residual_genes, prior, _ = posed(-1.5)
    # The same conditions again, in which only another gene stood out.
    place = {int(g): h for h, g in enumerate(residual_genes.gene_H)}
    other = np.array([place[1]])
    later = ResidualGenes(
        residual_genes.conditions,
        N_GENES,
        residual_genes.gene_H[other],
        residual_genes.shifts_CH[:, other],
        residual_genes.noise_C,
        residual_genes.scatter_H[other],
        residual_genes.signal_H[other],
        residual_genes.common_H[other],
    )
    both = later.with_earlier(residual_genes, np.arange(N_GENES))
    asked = [Condition(("A",), None, "d2")]
    np.testing.assert_allclose(
        both.estimate(prior, asked)[0, 0], residual_genes.estimate(prior, asked)[0, 0], atol=1e-6
    )


def test_markers_of_a_context_without_controls_are_no_effect() -> None:
    rng = np.random.default_rng(0)
    conditions = [Condition((), None, "d1"), *(Condition((x,), None, "d1") for x in LABELS[:5])]
    conditions += [Condition((x,), None, "d2") for x in LABELS[:5]]
    table = ConditionTable(tuple(conditions), np.repeat(np.arange(len(conditions)), N_CELLS))
    prior = fit_prior(rng.normal(size=(len(table.index), 3)).astype(np.float32), table)
    mean_CG = rng.normal(0, 1 / np.sqrt(N_CELLS), (len(conditions), N_GENES))
    mean_CG[-5:, :10] += 1.0
    residual_genes = fit_residual_genes(
        table, prior, np.zeros((3, N_GENES)), mean_CG, np.ones(N_GENES)
    )
    told_QG = residual_genes.estimate(prior, [Condition(("F",), None, "d2")])
    assert np.abs(told_QG).max() < 0.1


def test_mean_shifts_over_two_trainings_are_not_held_against_one() -> None:
    rng = np.random.default_rng(0)
    conditions = [Condition((), None), *(Condition((x,), None) for x in LABELS)]
    table = ConditionTable(tuple(conditions), np.repeat(np.arange(len(conditions)), N_CELLS))
    line_FG = rng.normal(size=(3, N_GENES))
    priors, means = [], []
    for strength in (1.0, 3.0):
        shift_CF = strength * rng.normal(size=(len(conditions), 3))
        z_NF = shift_CF[table.index] + 0.1 * rng.normal(size=(len(table.index), 3))
        priors.append(fit_prior(z_NF.astype(np.float32), table))
        means.append(shift_CF @ line_FG)
    merged = joined(priors[1], priors[0])
    assert fit_residual_genes(table, merged, line_FG, means[1], np.ones(N_GENES)).is_none


def test_a_few_cells_are_not_believed() -> None:
    rng = np.random.default_rng(0)
    conditions = [Condition((), None), *(Condition((f"P{i}",), None) for i in range(40))]
    sizes = [400, *[3] * 40]
    table = ConditionTable(tuple(conditions), np.repeat(np.arange(len(conditions)), sizes))
    prior = fit_prior(rng.normal(size=(len(table.index), 3)).astype(np.float32), table)
    counts = rng.poisson(0.05, (len(table.index), 200))
    mean_CG = np.array([counts[table.index == c].mean(0) for c in range(len(conditions))])
    scatter_G = np.full(200, 0.05**0.5)
    assert fit_residual_genes(table, prior, np.zeros((3, 200)), mean_CG, scatter_G).is_none


@pytest.mark.parametrize("is_rounded", [True, False])
def test_remainders_are_read_as_they_were_written(is_rounded: bool) -> None:
    rng = np.random.default_rng(0)
    shifts_CH = rng.normal(size=(6, 5)).astype(np.float16)
    shifts_CH[:, 2] = 0
    rounded_CH = in_steps(shifts_CH)
    assert np.abs(rounded_CH - shifts_CH).max() <= np.abs(shifts_CH).max() / 250
    conditions = tuple(Condition((f"P{i}",), None) for i in range(6))
    per_gene = [np.ones(5)] * 3
    kept = rounded_CH if is_rounded else shifts_CH
    one = ResidualGenes(conditions, 8, np.arange(5), kept, np.ones(6), *per_gene)
    arrays = one.arrays()
    assert ("steps" in arrays) == is_rounded
    again = ResidualGenes.from_config(one.to_config(), arrays, 8)
    np.testing.assert_array_equal(again.shifts_CH, kept)
