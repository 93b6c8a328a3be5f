"""What brings conditions to their mean log expression (:mod:`celldit.calibration.means`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch

from celldit.calibration.means import ResidualEffect
from celldit.inference.batch import BLOCK, ConditionBatch, blocks_of
from celldit.inference.maps.transport import Route, Sampler, transport_map
from celldit.inference.solver import SolverConfig
from celldit.training.trained import Trained

# Conditions whose correction is kept at hand; cells come perturbation by perturbation, in contexts
# that may alternate.
KEPT_OFFSETS = 256


def condition_offsets(
    trained: Trained, target: ConditionBatch, config: SolverConfig, *, new_cells: bool = False
) -> Callable[[np.ndarray], torch.Tensor] | None:
    """What brings conditions to their mean (:mod:`celldit.calibration.means`); None for nothing.

    It belongs to the condition and not to the cells that are passed, so it is found from cells that
    stand in for its controls, by transport whichever map these take. Returns offsets of log rates,
    (B, G), by the rows of B conditions in `target`. What was seen in few cells is followed as far
    as these tell, and offsets are for the cells that respond where some do not
    (:mod:`celldit.inference.responders`). `new_cells` follow the mean all the way, all of them: the
    states that they are drawn from hold those that did not respond.
    """
    if trained.mean_calibration.is_none and not trained.elsewhere:
        return None
    conditions, extrapolations = target.conditions, target.extrapolations(trained)
    rows = np.arange(len(conditions))
    controls = ConditionBatch.of_rows(trained, [c.control() for c in conditions], rows)
    route = Route(controls, replace(target, row=rows), rows)
    by_transport = transport_map(trained, route, Sampler(config=config))
    references = trained.reference_controls
    shares = {} if new_cells else trained.mean_calibration.shares
    effects_QF = target.embedding.effects_QKD.flatten(1).double().numpy()
    n_strata = len({c.stratum for c in conditions})
    blocks = blocks_of(trained, conditions)
    place = {q: (i, at) for i, block in enumerate(blocks) for at, q in enumerate(block.tolist())}

    @lru_cache(maxsize=2 + 2 * n_strata // BLOCK)
    def beyond(block: int) -> list[ResidualEffect]:
        some = [conditions[q] for q in blocks[block]]
        found = trained.mean_calibration.beyond(
            trained.population.prior, trained.genes, some, target.references
        )
        return [one._replace(noise=0.0) for one in found] if new_cells else found

    @lru_cache(maxsize=max(KEPT_OFFSETS, 2 * n_strata))
    def of_condition(q: int) -> torch.Tensor:
        if conditions[q].is_control:
            return torch.zeros(len(trained.genes))
        stratum = conditions[q].stratum
        own = references.of(stratum, target.references.get(stratum))
        moved_NKD = by_transport(own.z_NKD, np.full(len(own.z_NKD), q))
        share, further = shares.get(conditions[q].parts, 1.0), None
        if share < 1:
            further = own.change(own.z_NKD + (moved_NKD - own.z_NKD) / share)
        block, at = place[q]
        found_G = trained.mean_calibration.offset(
            extrapolations[q],
            own.change(moved_NKD),
            effects_QF[q],
            beyond(block)[at],
            known=references.responses.knows(stratum),
            share=share,
            further=further,
        )
        return torch.from_numpy(found_G.astype(np.float32))

    return lambda row_B: torch.stack([of_condition(q) for q in row_B.tolist()])
