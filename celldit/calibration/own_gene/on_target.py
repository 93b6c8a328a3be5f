"""What perturbing a gene does to the gene itself, where the perturbation was never seen.

A knock-out usually costs its own transcripts, an activation brings them, and no description of
perturbations by pathways says so. The change differs between perturbations, but its mean is learned
from those of training that are among the measured genes: with θ_p the log factor of gene p's rate
under perturbation p, observed with variance v_p, the random-effects mean (DerSimonian & Laird 1986)
with a tie to zero as strong as one perturbation,

    θ_p ~ N(θ, τ²),   θ ~ N(0, 1).

Perturbations that training has seen need no such guess.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from celldit.calibration.responses import LOG_FACTORS, Responses
from celldit.conditions import ConditionTable
from celldit.conditions.strata import StratumKey
from celldit.data.symbols import columns_of

MIN_CELLS = 20
MIN_PERTURBATIONS = 3
# Of log expression for a unit of log rate; a gene that answers less tells nothing.
LEAST_ANSWER = 0.1
# A factor of 50: further down nothing is left, further up is as good as this.
MOST_TOLD = 4.0


@dataclass(frozen=True)
class OnTarget:
    """Log factor of the rate of a perturbed gene, when nothing else is known.

    Attributes
    ----------
    log_factor
        θ; 0 where too few perturbations are measured genes.
    spread
        τ, how much perturbations differ in it, with the uncertainty of θ.
    """

    log_factor: float = 0.0
    spread: float = 0.0


def fit_on_target(
    table: ConditionTable,
    genes: Sequence[str],
    mean_CG: np.ndarray,
    sd_G: np.ndarray,
    responses: Responses,
) -> OnTarget:
    """Learn it from single perturbations whose gene is measured.

    Parameters
    ----------
    table
        Conditions of the training cells.
    genes
        Names of the G genes.
    mean_CG
        Mean log expression of each condition.
    sd_G
        Standard deviation of log expression within conditions.
    responses
        How controls answer to a change of rates.
    """
    column = columns_of((p for c in table.conditions for p in c.parts), genes)
    controls = table.controls()
    groups: dict[StratumKey, list[int]] = defaultdict(list)
    for i, condition in enumerate(table.conditions):
        where = condition.stratum
        many = table.counts[i] >= MIN_CELLS and where in responses.curves
        if many and len(condition.parts) == 1 and condition.doses is None:
            groups[where].append(i)
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for where, rows in groups.items():
        at = [(i, column[p]) for i in rows for p in table.conditions[i].parts if p in column]
        for i, g in at:
            others = [j for j in rows if j != i]
            # What all perturbations do to the gene is foreseen without this.
            usual = np.median(mean_CG[others, g]) if others else mean_CG[controls[where], g]
            curve_P = responses.curves[where][:, g].astype(np.float64)
            # Whether a gene can tell must not depend on what it tells.
            slopes_P = np.gradient(curve_P, LOG_FACTORS)
            if np.interp(0, LOG_FACTORS, slopes_P) < LEAST_ANSWER:
                continue
            change = mean_CG[i, g] - usual
            theta = float(np.interp(change, curve_P, LOG_FACTORS).clip(-MOST_TOLD, MOST_TOLD))
            # Of the way there: where all is lost, the slope is none and the loss is plain.
            slope = _mean_slope(theta, curve_P)
            noise = 1 / table.counts[i] + 1 / table.counts[controls[where]]
            found[genes[g]].append((theta, float(noise * (sd_G[g] / slope) ** 2)))
    return _pool(found.values())


def _mean_slope(theta: float, curve_P: np.ndarray) -> float:
    """Of a curve between no change and a log factor at least a quarter away."""
    away = np.sign(theta or -1.0) * max(abs(theta), 0.25)
    at_factor, at_zero = np.interp([away, 0.0], LOG_FACTORS, curve_P)
    return max(float((at_factor - at_zero) / away), LEAST_ANSWER / 10)


def _pool(found: Collection[list[tuple[float, float]]]) -> OnTarget:
    """Random-effects mean over perturbations, each with its log factors in some contexts."""
    if len(found) < MIN_PERTURBATIONS:
        return OnTarget()
    theta_P, noise_P = np.array([_precise(each) for each in found]).T
    weight_P = 1 / noise_P
    mean = weight_P @ theta_P / weight_P.sum()
    excess = weight_P @ (theta_P - mean) ** 2 - (len(theta_P) - 1)
    scale = weight_P.sum() - weight_P @ weight_P / weight_P.sum()
    between = max(excess / scale, 0.0)
    weight_P = 1 / (noise_P + between)
    precision = weight_P.sum() + 1.0
    return OnTarget(float(weight_P @ theta_P / precision), float(np.sqrt(between + 1 / precision)))


def _precise(each: list[tuple[float, float]]) -> tuple[float, float]:
    """Mean of values weighted by their precision, and its variance."""
    values, noise = np.array(each).T
    return float((values / noise).sum() / (1 / noise).sum()), float(1 / (1 / noise).sum())
