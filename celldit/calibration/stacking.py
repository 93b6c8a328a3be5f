"""How much of the network's displacement to use: stacking on cross-validated trials.

A weight between 0 and 1 says which share of the network's displacement is used: the one that lowers
the error of what was held out of trial runs (stacking: Wolpert 1992; Breiman 1996). The weight is
averaged over bootstrap samples of the trials and then shrunk in the manner of James and Stein
(1961): with the gain g over the effect model and its standard error s, by max(0, 1 - (2 s / g)²),
so that a gain within two standard errors is not believed.

Errors are in units of log expression, and without the sampling noise of the truth. Of conditions
that training has seen, cells are held out and judged by energy distance: their mean is known, so
what matters is *which* cells move. Of new contexts and combinations, whole conditions are held out,
and the squared error of their mean counts as much.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from celldit.conditions.extrapolation import Extrapolation
from celldit.flow import resolve_solver, uniform_grid
from celldit.flow.anchored import AnchoredFlow, FlowCondition
from celldit.flow.losses import energy_distance_loss

WEIGHTS = np.linspace(0.0, 1.0, 11)
N_STEPS = 4
SMALL = 1.0
"""Size of a condition, in units of their mean, below which it counts less than others."""
N_BOOTSTRAP = 200
N_ERRORS = 2.0
"""Standard errors within which a gain is not believed."""
LEAST_ERROR = 0.01
"""Of a gain; few trials that agree say less of it than their spread does."""


@dataclass(frozen=True, eq=False)
class Trial:
    """Held-out cells of one condition: where their prediction starts, and where they are.

    Attributes
    ----------
    kind
        How far the condition is from what the trial run has seen.
    start_NKD
        Control cells moved by the estimated effect.
    condition
        What the network is told of them.
    truth_MKD
        The held-out cells.
    unit_K
        Size of each latent token in units of log expression.
    """

    kind: Extrapolation
    start_NKD: Tensor
    condition: FlowCondition
    truth_MKD: Tensor
    unit_K: Tensor


@dataclass(frozen=True, eq=False)
class TrialError:
    """Errors of one trial at each of ``WEIGHTS``.

    Attributes
    ----------
    kind
        As of the trial.
    square_W
        Squared error of the mean, without the truth's sampling noise.
    energy_W
        Energy distance.
    sizes
        The same two of no change at all, and what noise adds to them: the size of the condition.
    """

    kind: Extrapolation
    square_W: np.ndarray
    energy_W: np.ndarray
    sizes: tuple[float, float]

    @property
    def parts(self) -> tuple[np.ndarray, ...]:
        """What counts for this kind."""
        seen = self.kind is Extrapolation.SEEN
        return (self.energy_W,) if seen else (self.square_W, self.energy_W)

    @property
    def units(self) -> tuple[float, ...]:
        """The sizes of what counts."""
        return self.sizes[1:] if self.kind is Extrapolation.SEEN else self.sizes

    def to_dict(self) -> dict[str, Any]:
        """For checkpoints: plain numbers, which torch reads without pickle."""
        errors = {"square": self.square_W.tolist(), "energy": self.energy_W.tolist()}
        return {"kind": str(self.kind), **errors, "sizes": list(self.sizes)}

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> TrialError:
        """Read what :meth:`to_dict` wrote."""
        square, energy = (np.asarray(entries[name]) for name in ("square", "energy"))
        first, second = map(float, entries["sizes"])
        return cls(Extrapolation(entries["kind"]), square, energy, (first, second))


@dataclass(frozen=True)
class Verdict:
    """What trials say of the network.

    Attributes
    ----------
    weight
        Share of its displacement to use, for each kind of extrapolation that was tried.
    in_full
        Error of the network in full over the effect model's own, likewise; below 1 is better.
    """

    weight: dict[Extrapolation, float]
    in_full: dict[Extrapolation, float]

    def without_network(self) -> Verdict:
        """The same trials, and nothing of the network used."""
        return Verdict(dict.fromkeys(self.weight, 0.0), self.in_full)


@torch.no_grad()
def compare(flow: AnchoredFlow, trials: Sequence[Trial]) -> list[TrialError]:
    """Measure the network and its starting point on every trial, at each of ``WEIGHTS``."""
    was_training = flow.training
    flow.eval()
    device = next(flow.parameters()).device
    errors = [_errors(flow, trial, device) for trial in trials]
    flow.train(was_training)
    return errors


def _errors(flow: AnchoredFlow, trial: Trial, device: torch.device) -> TrialError:
    conditioning, start_NKD = trial.condition.to(device), trial.start_NKD.to(device)
    velocity = partial(flow, condition=conditioning)
    end_NKD = resolve_solver("euler").solve(velocity, start_NKD, uniform_grid(N_STEPS))
    unit_K1 = trial.unit_K.to(device)[:, None]
    start_NF, step_NF, effect_NF, truth_MF = (
        (x * unit_K1).flatten(1)
        for x in (
            start_NKD,
            end_NKD - start_NKD,
            conditioning.effect_BKD,
            trial.truth_MKD.to(device),
        )
    )
    # What two halves of the truth would differ by: errors below that mean nothing.
    noise = float(truth_MF.var(0).sum() / len(truth_MF))
    unit = float((truth_MF - truth_MF.mean(0)).norm(dim=1).mean() / len(truth_MF))
    moved = [start_NF + weight * step_NF for weight in WEIGHTS.tolist()]
    moved.append(start_NF - effect_NF)
    mean_F = truth_MF.mean(0)
    *square, no_square = (float((x.mean(0) - mean_F).square().sum()) - noise for x in moved)
    *energy, no_energy = (float(energy_distance_loss(x, truth_MF)) for x in moved)
    return TrialError(
        trial.kind,
        np.maximum(square, 0.25 * noise),
        np.maximum(energy, 0.25 * unit) + unit,
        (max(no_square, 0.0) + 4 * noise, max(no_energy, 0.0) + 5 * unit),
    )


def stack(errors: Sequence[TrialError], seed: int = 0) -> Verdict:
    """Choose the weight for each kind of extrapolation.

    Parameters
    ----------
    errors
        Of all trials of all trial runs.
    seed
        Of the bootstrap samples.
    """
    weight, in_full = {}, {}
    for kind in sorted({error.kind for error in errors}, key=str):
        own = [error for error in errors if error.kind is kind]
        parts_TPW = _parts(own)
        ratio_W = _ratio(parts_TPW.sum(0))
        rng = np.random.default_rng([seed, len(own)])
        drawn_RT = rng.integers(len(own), size=(N_BOOTSTRAP, len(own)))
        ratios_RW = np.array([_ratio(parts_TPW[rows].sum(0)) for rows in drawn_RT])
        mean = float(WEIGHTS[ratios_RW.argmin(1)].mean())
        won = 1 - float(np.interp(mean, WEIGHTS, ratio_W))
        error = float(np.std([np.interp(mean, WEIGHTS, ratio) for ratio in ratios_RW]))
        error_of_gain = N_ERRORS * max(error, LEAST_ERROR)
        shrunk = max(0.0, 1 - (error_of_gain / won) ** 2) if won > 0 else 0.0
        weight[kind] = round(mean * shrunk, 3)
        in_full[kind] = float(ratio_W[-1])
    return Verdict(weight, in_full)


def best_gain(errors: Sequence[TrialError]) -> float:
    """The share of the effect model's error that the network saves at its best weight and kind."""
    parts = (_parts([e for e in errors if e.kind is kind]) for kind in {e.kind for e in errors})
    return max((1 - float(_ratio(parts_TPW.sum(0)).min()) for parts_TPW in parts), default=0.0)


def _parts(errors: Sequence[TrialError]) -> np.ndarray:
    """What counts of each of T trials of one kind, in units of its condition, (T, P, W)."""
    unit_TP = np.array([error.units for error in errors])
    # Conditions count alike whatever the size of their effect, unless they have next to none.
    unit_TP = unit_TP + SMALL * unit_TP.mean(0)
    return np.array([error.parts for error in errors]) / unit_TP[:, :, None]


def _ratio(parts_PW: np.ndarray) -> np.ndarray:
    """Mean over measures of the error over the effect model's own, (W,)."""
    ratio_W: np.ndarray = (parts_PW / parts_PW[:, :1]).mean(0)
    return ratio_W


def stack_courses(courses: Sequence[Sequence[Sequence[TrialError]]]) -> list[Verdict]:
    """Pool trial runs epoch by epoch; longer runs are cut to the shortest.

    Parameters
    ----------
    courses
        For each trial run the errors of its trials after each epoch.
    """
    return [
        stack([error for run in epoch for error in run]) for epoch in zip(*courses, strict=False)
    ]
