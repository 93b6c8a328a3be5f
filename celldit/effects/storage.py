"""The effect prior as JSON and arrays, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from celldit.conditions.condition import Condition
from celldit.effects.contexts.baseline import Baselines
from celldit.effects.contexts.level import Level
from celldit.effects.features.features import from_arrays, to_arrays
from celldit.effects.few_cells import FewCells
from celldit.effects.kernel import ConditionKernel
from celldit.effects.prior import EffectPrior
from celldit.effects.tables.elsewhere import Elsewhere


def prior_config(prior: EffectPrior) -> dict[str, Any]:
    """Everything but the arrays, for JSON."""
    kernel, tops = prior.kernel, prior.kernel.top_doses
    return {
        "parts": list(kernel.parts),
        "unit_doses": list(kernel.unit_doses),
        "top_doses": None if tops is None else list(tops),
        "features": {source: list(names) for source, (names, _) in kernel.features.items()},
        "surroundings": [list(key) for key in kernel.positions],
        "conditions": [c.to_list() for c in prior.conditions],
        "terms": dict(zip(kernel.terms, prior.weights.tolist(), strict=True)),
        "unseen_terms": dict(zip(kernel.terms, prior.of_unseen.weights.tolist(), strict=True)),
        "lengths": list(prior.lengths),
        "metric": "latent" if kernel.metric is None else "within conditions",
        "level": {"slope": prior.level.slope, "sd": prior.level.sd},
        "elsewhere": prior.elsewhere.to_config(),
        "few": [] if prior.few is None else [c.to_list() for c in prior.few.conditions],
        "borrowed": [
            [*key, share, prior.baselines.noise[key]]
            for key, share in prior.baselines.borrowed.items()
        ],
    }


def prior_arrays(prior: EffectPrior) -> dict[str, np.ndarray]:
    """The arrays, for safetensors."""
    positions = prior.kernel.positions
    arrays = {
        "shifts": prior.shifts,
        "noise": prior.noise,
        "rotation": prior.rotation,
        "signal": prior.signal,
        "common": prior.common,
        "unseen_common": prior.of_unseen.common,
        "positions": np.array(list(positions.values())),
        "control_cells": np.array([prior.control_cells.get(key, 0.0) for key in positions]),
        "control_noise": np.array([prior.control_noise.get(key, 0.0) for key in positions]),
    }
    if prior.level.slope:
        arrays["level_centre"] = prior.level.centre_F
    if prior.few is not None:
        arrays["few_shifts"], arrays["few_noise"] = prior.few.shifts_EF, prior.few.noise_EF
    if prior.baselines.borrowed:
        offsets = [prior.baselines.offsets[key] for key in prior.baselines.borrowed]
        arrays["baseline_offsets"] = np.array(offsets)
        arrays["baseline_variance"] = prior.baselines.between_F
    return arrays | prior.elsewhere.arrays() | to_arrays(prior.kernel.features)


def prior_from(config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> EffectPrior:
    """Rebuild what :func:`prior_config` and :func:`prior_arrays` wrote."""
    keys = [(context, time) for context, time in config["surroundings"]]
    tops, terms = config["top_doses"], config["terms"]
    # Models saved before there were these entries compare contexts in the latent as it is, hold the
    # effect shared by all perturbations as a term like the others, and have one set of strengths
    # for what was seen and what was not.
    whitened = config.get("metric", "latent") != "latent"
    signal = arrays["signal"]
    common = arrays["common"] if "common" in arrays else terms["common"] * signal
    unseen_terms = config.get("unseen_terms", terms)
    kernel = ConditionKernel(
        tuple(config["parts"]),
        tuple(config["unit_doses"]),
        from_arrays(config["features"], arrays),
        dict(zip(keys, arrays["positions"], strict=True)),
        top_doses=None if tops is None else tuple(tops),
        metric=arrays["rotation"] if whitened else None,
    )
    # Nor did they know of levels, how many control cells there were, and strata without any.
    level = Level()
    if "level_centre" in arrays:
        level = Level(config["level"]["slope"], config["level"]["sd"], arrays["level_centre"])
    control_cells, control_noise = (
        {key: float(n) for key, n in zip(keys, arrays.get(name, ()), strict=False) if n > 0}
        for name in ("control_cells", "control_noise")
    )
    baselines = Baselines()
    if "baseline_variance" in arrays:
        borrowed = {(context, time): share for context, time, share, _ in config["borrowed"]}
        of_means = {(context, time): noise for context, time, _, noise in config["borrowed"]}
        offsets = dict(zip(borrowed, arrays["baseline_offsets"], strict=True))
        baselines = Baselines(borrowed, of_means, arrays["baseline_variance"], offsets)
    few = None
    if "few_shifts" in arrays:
        small = tuple(Condition.from_list(entry) for entry in config["few"])
        few = FewCells(small, arrays["few_shifts"], arrays["few_noise"])
    # Nor did they know of effects measured elsewhere.
    elsewhere = Elsewhere.from_config(config.get("elsewhere", []), arrays)
    kernel = replace(kernel, part_shares=elsewhere.part_shares)
    return EffectPrior(
        kernel,
        tuple(Condition.from_list(entry) for entry in config["conditions"]),
        arrays["shifts"],
        arrays["noise"],
        arrays["rotation"],
        np.array([terms[term] for term in kernel.terms]),
        tuple(config["lengths"]),
        signal,
        common,
        np.array([unseen_terms[term] for term in kernel.terms]),
        arrays.get("unseen_common", common),
        level,
        control_cells,
        baselines,
        control_noise,
        few=few,
        elsewhere=elsewhere,
    )
