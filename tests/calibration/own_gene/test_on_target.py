"""A knock-out that was never seen costs its own transcripts, as those that were seen did."""

from __future__ import annotations

import numpy as np
import pytest

import celldit as cd
from celldit.calibration.own_gene.on_target import OnTarget, fit_on_target
from celldit.calibration.responses import LOG_FACTORS, Responses
from celldit.conditions import Condition, ConditionTable
from celldit.data.symbols import orthologs

GENES = ("A", "B", "C", "D", "other")
# Log expression here is the log rate itself.
RESPONSES = Responses({("", None): np.repeat(LOG_FACTORS[:, None], 5, axis=1)})


def table_of(labels: list[str], n_cells: int = 200) -> ConditionTable:
    conditions = [Condition((), None), *(Condition((label,), None) for label in labels)]
    return ConditionTable(tuple(conditions), np.repeat(np.arange(len(conditions)), n_cells))


def means(log_factors: list[float]) -> np.ndarray:
    """Each perturbation changes its own gene and, a little, all others."""
    mean_CG = np.full((len(log_factors) + 1, 5), 2.0)
    for i, log_factor in enumerate(log_factors):
        mean_CG[i + 1] += 0.1
        mean_CG[i + 1, i] += log_factor
    return mean_CG


def test_the_mean_and_the_spread_are_found() -> None:
    drawn = [-1.5, -1.0, -0.5, -1.0]
    own = fit_on_target(table_of(list("ABCD")), GENES, means(drawn), np.ones(5), RESPONSES)
    # Drawn to zero as if one perturbation had shown nothing.
    assert -1.0 < own.log_factor < -0.85
    assert own.spread == pytest.approx(np.std(drawn, ddof=1), abs=0.15)


def test_activation_is_as_good() -> None:
    own = fit_on_target(table_of(list("ABCD")), GENES, means([1.0] * 4), np.ones(5), RESPONSES)
    assert 0.9 < own.log_factor < 1.0


def test_genes_may_be_named_by_id_and_perturbations_by_symbol() -> None:
    symbols, drawn = ["STAT1", "IRF1", "JAK2", "TP53"], means([-1.0] * 4)
    id_of = {symbol: name for name, symbol in orthologs().of_id.items() if "MUS" not in name}
    table, ids = table_of(symbols), [*(f"{id_of[gene]}.7" for gene in symbols), "other"]
    by_symbol = fit_on_target(table, [*symbols, "other"], drawn, np.ones(5), RESPONSES)
    assert by_symbol.log_factor < -0.85
    assert fit_on_target(table, ids, drawn, np.ones(5), RESPONSES) == by_symbol


def test_few_perturbations_and_silent_genes_tell_nothing() -> None:
    two = fit_on_target(table_of(["A", "B"]), GENES, means([-1.0] * 2), np.ones(5), RESPONSES)
    assert two == OnTarget()
    drugs = fit_on_target(
        table_of(["x", "y", "z"]), GENES, means([-1.0] * 3), np.ones(5), RESPONSES
    )
    assert drugs == OnTarget()
    silent = Responses({("", None): np.zeros((len(LOG_FACTORS), 5))})
    whole = table_of(list("ABCD"))
    assert fit_on_target(whole, GENES, means([0.0] * 4), np.ones(5), silent) == OnTarget()


def test_knock_outs_of_papalexi_change_their_own_gene_most() -> None:
    screen = cd.datasets.papalexi()
    size = np.ravel(screen.X.sum(axis=1))
    log = screen.X.multiply(1e4 / size[:, None]).log1p().tocsr()
    labels = screen.obs["perturbation"].astype(str).to_numpy()
    control_G = np.ravel(log[labels == "control"].mean(axis=0))
    largest = {}
    for label in set(labels) & set(screen.var_names):
        change_G = np.ravel(log[labels == label].mean(axis=0)) - control_G
        largest[label] = screen.var_names[np.abs(change_G).argmax()]
    assert len(largest) == 9
    assert sum(label == gene for label, gene in largest.items()) == 8


@pytest.mark.parametrize("log_factor", [-1.0, -3.0, -6.0, 2.0])
def test_the_better_a_knock_out_worked_the_more_it_tells(log_factor: float) -> None:
    # Log expression of a gene with a few counts: there is a bottom, and noise on the way.
    rng = np.random.default_rng(0)
    names = [f"g{i}" for i in range(20)]
    curve_P = np.log1p(np.exp(LOG_FACTORS)) - np.log(2)
    curves = np.repeat(curve_P[:, None], len(names), axis=1)
    mean_CG = rng.normal(0.7, 0.01, (len(names) + 1, len(names)))
    for i in range(len(names)):
        mean_CG[i + 1, i] += np.interp(log_factor, LOG_FACTORS, curve_P)
    own = fit_on_target(
        table_of(names), names, mean_CG, np.full(len(names), 0.1), Responses({("", None): curves})
    )
    told = min(max(log_factor, -4.0), 4.0)
    assert own.log_factor == pytest.approx(told, rel=0.3)
