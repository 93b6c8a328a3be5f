"""When to stop and how far to trust: the flow against its own starting point on what it never saw.

Cells held out from trained perturbations do not show overfitting; conditions do. So some conditions
are kept from training, and the flow is compared with the prior's prediction of them, for several
shares of its displacement (none is the prior; see :class:`celldit.conditions.trust.Trust`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from celldit.conditions.extrapolation import Extrapolation, classify
from celldit.conditions.trust import Trust
from celldit.flow import resolve_solver, uniform_grid
from celldit.flow.anchored import AnchoredFlow, FlowCondition
from celldit.flow.losses import energy_distance_loss

if TYPE_CHECKING:
    from celldit.conditions import Condition

#: From the least to the most of the flow; the first is the prior.
TRUSTS = (
    Trust(),
    Trust(0.25),
    Trust(0.5),
    Trust(0.75),
    Trust(1.0),
    Trust(0.5, 0.5),
    Trust(1.0, 0.5),
    Trust(1.0, 1.0),
)
MAX_CONDITIONS = 16
MAX_CELLS = 160
N_STEPS = 4
#: What each of the two parts must lower the error to before it is used: less is luck.
WORTH = 0.98
HURDLES = np.array([WORTH ** (bool(t.shift) + bool(t.cells)) for t in TRUSTS])


@dataclass(frozen=True, eq=False)
class Trial:
    """One held-out condition: where its prediction starts, and the cells it should reach."""

    kind: Extrapolation
    start_NKD: Tensor
    condition: FlowCondition
    truth_MKD: Tensor


@dataclass(frozen=True, eq=False)
class Comparison:
    """Errors of the flow on the trials of each kind, for each of ``TRUSTS``.

    Attributes
    ----------
    square
        Squared error of the mean latent, without the truth's sampling noise, in units of the
        condition's effect; summed over the trials of a kind, shape (T,).
    energy
        Energy distance, likewise.
    """

    square: dict[Extrapolation, np.ndarray]
    energy: dict[Extrapolation, np.ndarray]

    def to_dict(self) -> dict[str, dict[str, np.ndarray]]:
        """The errors under the names of the kinds, for checkpoints."""
        return {
            name: {str(kind): np.asarray(values) for kind, values in errors.items()}
            for name, errors in (("square", self.square), ("energy", self.energy))
        }

    @classmethod
    def from_dict(cls, entries: Mapping[str, Mapping[str, np.ndarray]]) -> Comparison:
        """Read what :meth:`to_dict` wrote."""
        read = {n: {Extrapolation(k): v for k, v in e.items()} for n, e in entries.items()}
        return cls(read["square"], read["energy"])


@dataclass(frozen=True)
class Verdict:
    """How far the flow deserves trust.

    Attributes
    ----------
    trust
        The best for each kind of extrapolation that was tried.
    gain
        Its error over the prior's (mean over squared error and energy distance); below 1 is better
        than the prior.
    """

    trust: dict[Extrapolation, Trust]
    gain: dict[Extrapolation, float]

    @property
    def overall(self) -> float:
        """Mean gain over the kinds that are real extrapolations; what training stops by."""
        far = [g for kind, g in self.gain.items() if kind is not Extrapolation.SEEN]
        return float(np.mean(far or list(self.gain.values()) or [1.0]))


@torch.no_grad()
def compare(flow: AnchoredFlow, trials: Sequence[Trial]) -> Comparison:
    """Measure the flow and its starting point on every trial."""
    was_training = flow.training
    flow.eval()
    device = next(flow.parameters()).device
    solver, grid = resolve_solver("euler"), uniform_grid(N_STEPS)
    square: dict[Extrapolation, np.ndarray] = {}
    energy: dict[Extrapolation, np.ndarray] = {}
    for trial in trials:
        told, start_NKD = trial.condition.to(device), trial.start_NKD.to(device)
        end_NKD = solver.solve(partial(flow, condition=told), start_NKD, grid)
        start_NF, step_NF = start_NKD.flatten(1), (end_NKD - start_NKD).flatten(1)
        common_F = step_NF.mean(0)
        own_NF = step_NF - common_F
        truth_MF = trial.truth_MKD.to(device).flatten(1)
        # What two halves of the truth would differ by: errors below that mean nothing.
        noise = float(truth_MF.var(0).sum() / len(truth_MF))
        unit = float((truth_MF - truth_MF.mean(0)).norm(dim=1).mean() / len(truth_MF))
        moved = [start_NF + trust.shift * common_F + trust.cells * own_NF for trust in TRUSTS]
        # Conditions count the same whatever the size of their effect, unless it is lost in noise.
        moved.append(start_NF - told.effect_BKD.flatten(1))
        errors = [float((x.mean(0) - truth_MF.mean(0)).square().sum()) - noise for x in moved]
        energies = [float(energy_distance_loss(x, truth_MF)) for x in moved]
        *squares, no_square = np.maximum(errors, 0.25 * noise)
        *distances, no_energy = np.maximum(energies, 0.25 * unit) + unit
        kind = trial.kind
        square[kind] = square.get(kind, 0.0) + np.array(squares) / (no_square + 4 * noise)
        energy[kind] = energy.get(kind, 0.0) + np.array(distances) / (no_energy + 4 * unit)
    flow.train(was_training)
    return Comparison(square, energy)


def average_courses(courses: Sequence[Sequence[Comparison]]) -> list[Verdict]:
    """Pool trial runs epoch by epoch and choose the trust for each kind.

    Parameters
    ----------
    courses
        One comparison per epoch for each trial run; longer runs are cut to the shortest.
    """
    verdicts = []
    for epoch in zip(*courses, strict=False):
        trust, gain = {}, {}
        for kind in {k for c in epoch for k in c.square}:
            square = sum(c.square[kind] for c in epoch if kind in c.square)
            energy = sum(c.energy[kind] for c in epoch if kind in c.energy)
            ratio = (square / square[0] + energy / energy[0]) / 2
            best = int((ratio / HURDLES).argmin())
            trust[kind], gain[kind] = TRUSTS[best], float(ratio[best])
        verdicts.append(Verdict(trust, gain))
    return verdicts


def hold_out(
    conditions: Sequence[Condition],
    share: float,
    rng: np.random.Generator,
    always_known: Sequence[Condition] = (),
    last: Sequence[Condition] = (),
) -> list[Condition]:
    """Choose conditions to keep from training, such that the rest can still predict them.

    A condition may be held out if every one of its perturbations stays in another condition.

    Parameters
    ----------
    conditions
        The perturbed conditions of training.
    share
        Of the conditions.
    rng
        Of the choice.
    always_known
        Conditions that are not to be held out, but help to predict the others.
    last
        Conditions that are held out only where no others can be: those of earlier trial runs.
    """
    wanted = min(MAX_CONDITIONS, math.ceil(share * len(conditions)))
    left = list(conditions)
    chosen: list[Condition] = []
    order = rng.permutation(len(conditions)).tolist()
    for i in sorted(order, key=lambda i: conditions[i] in set(last)):
        if len(chosen) >= wanted:
            break
        candidate = conditions[i]
        rest = [c for c in left if c != candidate]
        if classify(candidate, [*rest, *always_known]) in (
            Extrapolation.CONTEXT,
            Extrapolation.COMBINATION,
        ):
            left = rest
            chosen.append(candidate)
    return chosen
