"""What training found, in four sentences: what was learned, what to trust, the network, what helps.

How far a kind of question can be trusted is measured in closed form, on the conditions of training:
each is predicted without its own cells (leave-one-out), and the share of its squared effect that is
explained is pooled over the conditions of the kind, with the sampling noise of the measurement
subtracted from errors and effects,

    1 - Σ (|y - ŷ|² - noise) / Σ (|y - ȳ|² n / (n - 1) - noise),

in units of log expression. ȳ is the mean over the n perturbed conditions of the same context and
time: they share their control cells, whose noise is in every one of their effects and in every
prediction, and would pass for an effect that was predicted. Where a condition is the only one of
its stratum, ȳ is no change. 1 is a perfect prediction, 0 no better than ȳ. The latent was learned
from all cells, so what is left out is left out of the effect model alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from celldit.conditions import Condition
from celldit.conditions.extrapolation import Extrapolation, Known
from celldit.conditions.strata import StratumKey
from celldit.training.trained import Trained

#: From here on a kind of question is called reliable, usable, or a guess.
RELIABLE, USABLE = 0.6, 0.25
#: With fewer contexts a new one has hardly anything to be like; with fewer pairs so a combination.
FEW_CONTEXTS, FEW_PAIRS, FEW_TRIALS = 3, 5, 3
#: More than this share of measured squared shifts is sampling noise: more cells would help.
NOISY = 0.5
#: Most names of perturbations in a sentence.
NAMED = 3
IN_TIME = (Extrapolation.BETWEEN, Extrapolation.BEYOND)
KINDS = {
    Extrapolation.CONTEXT: "known perturbations in a context where they were not measured",
    Extrapolation.COMBINATION: "new combinations of known perturbations",
    Extrapolation.UNSEEN: "perturbations never measured",
}


@dataclass(frozen=True)
class Findings:
    """The numbers behind the sentences."""

    n_cells: int
    n_controls: int
    n_perturbations: int
    n_contexts: int
    n_conditions: int  # that are perturbed
    # Perturbations by the size of their effect, as far as it stands out: the squared shift, in
    # the mean over contexts, is more than twice its sampling noise.
    strongest: tuple[str, ...]
    explained: dict[Extrapolation, float]  # share of the squared effect that leave-one-out predicts
    n_left_out: dict[Extrapolation, int]  # from how many conditions each of these is known
    noise_share: float  # of the squared measured shifts
    cells_per_condition: float  # median over the perturbed conditions


def findings(trained: Trained) -> Findings:
    """Measure what the sentences say; a second for a thousand conditions."""
    prior, sep, control = trained.population.prior, *_words(trained)
    treated = {c: n for c, n in trained.frequencies.items() if not c.is_control}
    of_controls = sum(n for c, n in trained.frequencies.items() if c.is_control)
    sizes: dict[str, list[tuple[float, float]]] = {}
    squares: dict[Extrapolation, list[tuple[float, float]]] = {}
    noise_share = float("nan")
    if prior.conditions:
        basis = np.linalg.inv(prior.rotation)
        loadings_FG = trained.autoencoder.decoder.loadings.detach().double().cpu().numpy()
        measured_CG = prior.shifts @ basis @ loadings_FG
        error_CG = measured_CG - prior.leave_one_out().mean @ loadings_FG
        per_cell = float(((basis @ loadings_FG) ** 2).sum())
        of_noise_C = prior.noise * per_cell
        whole_C, missed_C = (measured_CG**2).sum(1), (error_CG**2).sum(1)
        own_C, of_cells_C = _apart(measured_CG, of_noise_C, per_cell, prior.conditions, treated)
        noise_share = min(float(of_noise_C.sum() / whole_C.sum()), 1.0) if whole_C.any() else 1.0
        known = Known(prior.conditions, frozenset(p for c in prior.conditions for p in c.parts))
        for i, condition in enumerate(prior.conditions):
            kind = known.classify(condition, left_out=True)
            kept = squares.setdefault(kind, [])
            kept.append((missed_C[i] - of_cells_C[i], own_C[i] - of_cells_C[i]))
            label = condition.label(sep, control)
            sizes.setdefault(label, []).append((float(whole_C[i]), float(of_noise_C[i])))
    explained = {}
    for kind, pairs in squares.items():
        missed, whole = np.sum(pairs, axis=0)
        if len(pairs) > 1:
            # Where effects are no larger than noise, there was nothing to predict.
            share = 1 - missed / whole if whole > 0 else 0.0
            explained[kind] = float(np.clip(share, -1.0, 1.0))
    return Findings(
        n_cells=sum(trained.frequencies.values()),
        n_controls=of_controls,
        n_perturbations=len(trained.perturbations),
        n_contexts=len({c.context for c in trained.frequencies}),
        n_conditions=len(treated),
        strongest=_standing_out(sizes),
        explained=explained,
        n_left_out={kind: len(pairs) for kind, pairs in squares.items()},
        noise_share=noise_share,
        cells_per_condition=float(np.median(list(treated.values()))) if treated else 0.0,
    )


def _apart(
    measured_CG: np.ndarray,
    noise_C: np.ndarray,
    per_cell: float,
    conditions: Sequence[Condition],
    n_cells: Mapping[Condition, int],
) -> tuple[np.ndarray, np.ndarray]:
    """Squared effects about the mean of their stratum, and the noise of perturbed cells in them."""
    square_C, noise_C = (measured_CG**2).sum(axis=1), noise_C.copy()
    strata: dict[StratumKey, list[int]] = {}
    for i, condition in enumerate(conditions):
        strata.setdefault(condition.stratum, []).append(i)
    for rows in (rows for rows in strata.values() if len(rows) > 1):
        about_CG = measured_CG[rows] - measured_CG[rows].mean(axis=0)
        square_C[rows] = (about_CG**2).sum(axis=1) * len(rows) / (len(rows) - 1)
        for i in rows:
            if n := n_cells.get(conditions[i]):
                noise_C[i] = min(noise_C[i], per_cell / n)
    return square_C, noise_C


def _standing_out(sizes: dict[str, list[tuple[float, float]]]) -> tuple[str, ...]:
    means = {name: np.mean(pairs, axis=0) for name, pairs in sizes.items()}
    excess = {name: whole - noise for name, (whole, noise) in means.items() if whole > 2 * noise}
    return tuple(sorted(excess, key=lambda name: -excess[name]))


def summary(trained: Trained) -> str:
    """Four sentences, one on a line."""
    found = findings(trained)
    if not found.n_conditions:
        return (
            f"Learned how {found.n_cells:,} cells of {_n(found.n_contexts, 'context')} look; "
            "no perturbation was in training, so none can be predicted."
        )
    return "\n".join((_learned(found), _trust(found), _network(trained), _helps(trained, found)))


def _words(trained: Trained) -> tuple[str, str]:
    return trained.fields.perturbation_sep, trained.fields.control


def _n(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _learned(found: Findings) -> str:
    where = f" in {_n(found.n_contexts, 'context')}" if found.n_contexts > 1 else ""
    strong = found.strongest[:NAMED]
    named = f"; the largest effects are those of {_listing(strong)}" if len(strong) > 1 else ""
    if not strong:
        named = "; no effect stands out from sampling noise"
    do = "does" if found.n_perturbations == 1 else "do"
    return (
        f"Learned what {_n(found.n_perturbations, 'perturbation')} {do}{where}, from "
        f"{found.n_cells - found.n_controls:,} perturbed and {found.n_controls:,} control "
        f"cells{named}."
    )


def _trust(found: Findings) -> str:
    if not found.strongest:
        return (
            "Trust the doubt that is given more than any effect: none is larger than its noise, "
            "so nothing tells how far predictions go."
        )
    said = []
    for kind, words in KINDS.items():
        if kind in found.explained:
            share = found.explained[kind]
            verdict = _verdict(share, found.n_left_out[kind])
            said.append(f"{words} {verdict} ({max(share, 0):.0%})")
    if not said:
        return (
            "Trust what was measured; training had too few conditions to tell how far predictions "
            "beyond them go."
        )
    return (
        "Trust what was measured most; of conditions left out of training, by the share of the "
        f"squared effect that was predicted: {'; '.join(said)}."
    )


def _verdict(share: float, n_left_out: int) -> str:
    # Each of two shaped what the other is predicted by.
    if n_left_out < FEW_TRIALS:
        return "were tried twice only"
    if share >= RELIABLE:
        return "are reliable"
    return "are usable with their doubt" if share >= USABLE else "are little more than a guess"


def _network(trained: Trained) -> str:
    kinds = [kind for kind in trained.flow_weight if trained.fields.time_key or kind not in IN_TIME]
    used = {kind: trained.flow_weight[kind] for kind in kinds if trained.flow_weight[kind] > 0}
    if not used and not trained.history.get("flow"):
        return "The network was not trained, so predictions are those of the effect model."
    if not used:
        return (
            "The network added nothing that held-out conditions confirmed, so its weight is 0 and "
            "predictions are those of the effect model."
        )
    said = _listing([f"{weight:.0%} for {kind}" for kind, weight in used.items()])
    idle = "" if len(used) == len(kinds) else ", and 0 for the other kinds"
    return (
        "The network added to the effect model what held-out data confirmed: the share of its "
        f"displacement that is used is {said}{idle}."
    )


def _helps(trained: Trained, found: Findings) -> str:
    advice = []
    if found.strongest and not any(kind in found.explained for kind in KINDS):
        advice.append(
            "more perturbations, or more contexts to try them in (of so few none could be left out)"
        )
    if found.noise_share > NOISY:
        advice.append(
            f"more cells per condition ({found.noise_share:.0%} of the measured shifts is sampling "
            f"noise, at a median of {found.cells_per_condition:.0f} cells)"
        )
    n_treated = len({c.context for c in trained.frequencies if not c.is_control})
    # All conditions of a context are counted from its controls; of a single one half as many do.
    share = 1.0 if found.n_conditions > n_treated else 0.5
    if found.n_controls < share * found.cells_per_condition * n_treated:
        advice.append("more control cells (fewer than perturbed cells of one condition)")
    if n_treated < FEW_CONTEXTS and found.n_contexts > 1:
        from_few = "one" if n_treated == 1 else "two"
        advice.append(
            f"more contexts with perturbed cells (from {from_few} it is hardly known how effects "
            "differ between them)"
        )
    pairs = sum(len(c.parts) > 1 for c in trained.frequencies)
    if 0 < pairs < FEW_PAIRS:
        advice.append("more measured combinations, to learn how effects add up")
    unseen = found.explained.get(Extrapolation.UNSEEN)
    if not trained.features:
        if unseen is not None and found.n_perturbations > FEW_PAIRS:
            advice.append(
                "features of perturbations (cd.pp.gene_features), if some never measured are of "
                "interest"
            )
    elif unseen is not None and unseen < USABLE:
        advice.append("other features of perturbations (those given say little about effects)")
    if not advice:
        return "More of the same would help most: no single lack stands out."
    return f"What would help: {_listing(advice[:2])}."


def _listing(items: list[str] | tuple[str, ...]) -> str:
    return " and ".join([", ".join(items[:-1]), items[-1]]) if len(items) > 1 else items[0]
