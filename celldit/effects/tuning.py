"""How much each term of the kernel counts, by how well observed effects follow from one another.

The leave-one-out predictive likelihood (Rasmussen & Williams 2006, section 5.4.2) is what the
effect prior is used for.

Where there are features, every perturbation is left out as well with all of its conditions at once:
only then does its effect have to follow from its features. The joint predictive density of a left
out block B, with K the covariance of all shifts y, has mean ``y_B - (K⁻¹)_BB⁻¹ (K⁻¹ y)_B`` and
covariance ``(K⁻¹)_BB⁻¹``.

In a screen most perturbations do little, and the likelihood, which counts every dimension of every
one, finds that little follows from what perturbations share. What a prediction of a perturbation
never seen is judged by is the size of its error, to which strong effects contribute most. For such
predictions the weights of what is common and of each source of features, all that they rest on, are
therefore chosen again, by the squared error in the latent of leaving perturbations out. A source
that does not beat its own shuffles there gets none (:mod:`celldit.effects.features.shuffled`). What
was seen keeps the first weights.

A single condition has no other to follow from: strengths stay where they start, the same in all
dimensions. Fitted to that one effect, they would have it be the same in all other contexts, to the
hundredth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from celldit.conditions.condition import Condition
from celldit.effects.features.shuffled import informative_sources, without_sources
from celldit.effects.kernel import ConditionKernel, Lengths

MAX_CONDITIONS = 120
STEPS = 150
# Fewer perturbations do not tell how one follows from the others.
MIN_PERTURBATIONS = 4
# Factors of a weight, in half powers of ten.
FACTOR_STEPS = range(-2, 6)
# Every step must earn this share of the error, so that what the data do not tell stays where the
# likelihood put it.
RELUCTANCE = 0.01
ROUNDS = 2
START_LENGTHS = (0.5, 0.5, 0.25)
# Before conditions are compared: softplus⁻¹ of the weight of what a perturbation does everywhere
# and of every other term, and log of μ over λ. An effect then carries over to a context that is as
# far as most are with a correlation of about .75.
START_PART, START_OTHER, START_COMMON = 0.0, -2.0, -1.0
# Weak ties keep what the data do not decide where it was: log λ of a dimension is normal about the
# mean over dimensions with a standard deviation of 5, log lengths about their start with one of 1.
SIGNAL_TIE, LENGTH_TIE = 1 / (2 * 5.0**2), 1 / (2 * 1.0**2)


class Strengths(NamedTuple):
    """What tuning picks: a weight for each term, lengths, and for each dimension λ and μ.

    Weights and μ come twice, the second time for perturbations never seen.
    """

    weights: np.ndarray
    lengths: tuple[float, float, float]
    signal: np.ndarray
    common: np.ndarray
    unseen_weights: np.ndarray
    unseen_common: np.ndarray


def tune(
    kernel: ConditionKernel,
    conditions: Sequence[Condition],
    shifts: np.ndarray,
    noise: np.ndarray,
    basis: np.ndarray,
    seed: int,
    further: Sequence[np.ndarray] = (),
) -> Strengths:
    """Choose the strengths of the kernel's terms.

    Parameters
    ----------
    kernel
        Covariance between conditions.
    conditions, shifts, noise
        C observed conditions, their shifts in independent coordinates (C, F), and the variance of
        these (C,).
    basis
        From these coordinates to the latent, (F, F).
    seed
        Of the choice of whole families of conditions where there are more than 120.
    further
        Columns of known size, each (C, F), as in :mod:`celldit.effects.posterior`.
    """
    chosen = choose(kernel, conditions, seed)
    conditions = [conditions[i] for i in chosen]
    design = kernel.design(conditions, conditions)
    shifts_CF = torch.tensor(shifts[chosen])
    # The same in all dimensions, but for what further columns add.
    noise_FCC = torch.diag(torch.tensor(noise[chosen]))[None]
    for column_CF in further:
        column_FC = torch.tensor(column_CF[chosen].T)
        noise_FCC = noise_FCC + column_FC[:, :, None] * column_FC[:, None, :]
    blocks = _blocks(conditions)
    likely_blocks = blocks if kernel.features else []
    totals_C = torch.tensor(kernel.totals(conditions))
    start = [START_PART if t == "part" else START_OTHER for t in kernel.terms]
    log_start = torch.tensor(START_LENGTHS, dtype=torch.float64).log()
    square_F, is_single = (shifts_CF**2).mean(0), len(conditions) == 1
    if is_single:
        square_F = square_F.mean().expand(len(square_F))
    log_signal = square_F.clamp_min(1e-4).log()
    picked = [torch.tensor(start, dtype=torch.float64), log_start, log_signal]
    picked.append(log_signal + START_COMMON)
    # The optimizer takes a fraction of the time for one tensor, of which these are views.
    every = torch.cat(picked)
    raw_weights, log_lengths, log_signal, log_common = every.split([len(one) for one in picked])
    optimizer = torch.optim.Adam([every], lr=0.05)

    def covariance(weights: Tensor, log_lengths: Tensor = log_lengths) -> Tensor:
        return kernel.covariance(design, weights, Lengths(*log_lengths.exp()))

    def solve(covariance_CC: Tensor, common_F: Tensor) -> tuple[Tensor, Tensor]:
        """K⁻¹ y, (F, C), and K⁻¹, (F, C, C)."""
        total_FCC = log_signal.exp()[:, None, None] * covariance_CC + noise_FCC
        total_FCC = total_FCC + common_F[:, None, None] * torch.outer(totals_C, totals_C)
        factor_FCC = torch.linalg.cholesky(total_FCC)
        solved_FC = torch.cholesky_solve(shifts_CF.T[:, :, None], factor_FCC)[:, :, 0]
        return solved_FC, torch.cholesky_inverse(factor_FCC)

    # One condition has no other that it could follow from, in any dimension more than in others.
    for _ in range(0 if is_single else STEPS):
        inner = [one.clone().requires_grad_() for one in (raw_weights, log_lengths)]
        covariance_CC = covariance(softplus(inner[0]), inner[1])
        signal_F, common_F = log_signal.exp(), log_common.exp()
        of_total_FCC = _slope(*solve(covariance_CC.detach(), common_F), likely_blocks)
        of_covariance_CC = (signal_F[:, None, None] * of_total_FCC).sum(0)
        # Without distances between conditions, nothing depends on lengths.
        of_weights, of_lengths = torch.autograd.grad(
            covariance_CC, inner, of_covariance_CC, materialize_grads=True
        )
        of_signal_F = signal_F * (of_total_FCC * covariance_CC.detach()).sum((1, 2))
        of_common_F = common_F * (of_total_FCC @ totals_C @ totals_C)
        of_lengths = of_lengths + 2 * LENGTH_TIE * (log_lengths - log_start)
        of_signal_F = of_signal_F + 2 * SIGNAL_TIE * (log_signal - log_signal.mean())
        every.grad = torch.cat([of_weights, of_lengths, of_signal_F, of_common_F])
        optimizer.step()
    weights, common_F = softplus(raw_weights), log_common.exp()
    unseen_weights, unseen_common_F = weights, common_F
    if sum(len(rows_GB) for rows_GB in blocks) >= MIN_PERTURBATIONS:
        basis_FF = torch.tensor(basis)

        @torch.no_grad()
        def error(covariance_CC: Tensor, common_F: Tensor = common_F) -> float:
            solved_FC, inverse_FCC = solve(covariance_CC, common_F)
            return sum(_error_of_blocks(solved_FC, inverse_FCC, b, basis_FF) for b in blocks)

        @torch.no_grad()
        def error_of(scaled: Tensor) -> float:
            return error(covariance(scaled[:-1]), scaled[-1] * common_F)

        alone = without_sources(weights, kernel.terms, kept=set())
        part = float(alone[kernel.terms.index("part")])
        without_CC = covariance(alone)
        believed = informative_sources(kernel, conditions, without_CC, part, error, seed)
        unseen_weights = without_sources(weights, kernel.terms, kept=believed)
        scaled = torch.cat([unseen_weights, weights.new_ones(1)])
        scaled = _rescale(scaled, (*kernel.terms, "common"), error_of)
        unseen_weights, unseen_common_F = scaled[:-1], scaled[-1] * common_F
    context, time, dose = log_lengths.exp().tolist()
    return Strengths(
        weights.numpy(),
        (context, time, dose),
        log_signal.exp().numpy(),
        common_F.numpy(),
        unseen_weights.numpy(),
        unseen_common_F.numpy(),
    )


def _slope(solved_FC: Tensor, inverse_FCC: Tensor, blocks: Sequence[Tensor]) -> Tensor:
    """How minus the log likelihood of leaving out rises with each covariance, shape (F, C, C).

    Of single conditions and of `blocks` of them. Written out, it takes a fraction of the time that
    it takes step by step backward.
    """
    precision_FC = torch.diagonal(inverse_FCC, dim1=1, dim2=2)
    of_solved_FC = solved_FC / precision_FC
    of_precision_FC = -0.5 * (of_solved_FC**2 + 1 / precision_FC)
    upstream_FCC = of_precision_FC[:, :, None] * inverse_FCC
    if blocks:
        solved_FC, inverse_FCC = solved_FC.requires_grad_(), inverse_FCC.requires_grad_()
        nll = torch.stack([_nll_of_blocks(solved_FC, inverse_FCC, b) for b in blocks]).sum()
        further_FC, of_inverse_FCC = torch.autograd.grad(nll, [solved_FC, inverse_FCC])
        solved_FC, inverse_FCC = solved_FC.detach(), inverse_FCC.detach()
        of_solved_FC = of_solved_FC + further_FC
        upstream_FCC = upstream_FCC + of_inverse_FCC @ inverse_FCC
    upstream_FCC = upstream_FCC + of_solved_FC[:, :, None] * solved_FC[:, None]
    return -inverse_FCC @ upstream_FCC


def _shared(terms: Sequence[str]) -> list[list[int]]:
    """The terms that say something of a perturbation never seen, by what they mean."""
    found: dict[str, list[int]] = {}
    for i, term in enumerate(terms):
        meaning = term.partition(" @ ")[0]
        if meaning == "common" or meaning.startswith("feature:"):
            found.setdefault(meaning, []).append(i)
    return list(found.values())


def _rescale(weights: Tensor, terms: Sequence[str], error: Callable[[Tensor], float]) -> Tensor:
    """Multiply the weights of one meaning after another by what makes the error least."""
    for _ in range(ROUNDS):
        for group in _shared(terms):
            tried = []
            for step in FACTOR_STEPS:
                scaled = weights.clone()
                scaled[group] *= 10.0 ** (step / 2)
                tried.append((error(scaled) * (1 + RELUCTANCE * abs(step)), step, scaled))
            weights = min(tried, key=lambda entry: entry[:2])[2]
    return weights


def choose(kernel: ConditionKernel, conditions: Sequence[Condition], seed: int) -> np.ndarray:
    """Rows of the at most 120 conditions that strengths are chosen on."""
    chosen = np.arange(len(conditions))
    if len(chosen) <= MAX_CONDITIONS:
        return chosen
    # Whole families of conditions, so that pooling and additivity can still be seen.
    order = np.random.default_rng(seed).permutation(len(kernel.parts))
    rank = {part: order[i] for i, part in enumerate(kernel.parts)}
    by_family = sorted(chosen.tolist(), key=lambda i: min(rank[p] for p in conditions[i].parts))
    return np.array(sorted(by_family[:MAX_CONDITIONS]))


def _blocks(conditions: Sequence[Condition]) -> list[Tensor]:
    """Rows of all conditions that have one perturbation, stacked by how many they are."""
    rows_of: dict[str, list[int]] = {}
    for row, condition in enumerate(conditions):
        for part in condition.parts:
            rows_of.setdefault(part, []).append(row)
    by_size: dict[int, list[list[int]]] = {}
    for rows in rows_of.values():
        by_size.setdefault(len(rows), []).append(rows)
    return [torch.tensor(group) for _, group in sorted(by_size.items())]


def _error_of_blocks(
    solved_FC: Tensor, inverse_FCC: Tensor, rows_GB: Tensor, basis_FF: Tensor
) -> float:
    """Squared error in the latent of G perturbations, each predicted from all others.

    The B conditions of one perturbation are averaged first: it counts once, in however many
    contexts it was tried.
    """
    own_FGBB = inverse_FCC[:, rows_GB[:, :, None], rows_GB[:, None, :]]
    missed_FGB = torch.linalg.solve(own_FGBB, solved_FC[:, rows_GB][..., None])[..., 0]
    missed_GF = missed_FGB.mean(-1).T @ basis_FF
    return float((missed_GF**2).sum())


def _nll_of_blocks(solved_FC: Tensor, inverse_FCC: Tensor, rows_GB: Tensor) -> Tensor:
    """Minus the log density of G blocks of B conditions, each predicted from all others."""
    own_FGBB = inverse_FCC[:, rows_GB[:, :, None], rows_GB[:, None, :]]
    factor_FGBB = torch.linalg.cholesky(own_FGBB)
    solved_FGB1 = solved_FC[:, rows_GB][..., None]
    scaled = torch.linalg.solve_triangular(factor_FGBB, solved_FGB1, upper=False)
    log_precision = 2 * torch.diagonal(factor_FGBB, dim1=-2, dim2=-1).log().sum()
    return 0.5 * ((scaled**2).sum() - log_precision)
