"""An effect model that knows effects measured elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from celldit.effects.tables.elsewhere import Elsewhere, TableEffects
from celldit.effects.tables.fit import believed
from celldit.effects.tables.matching import MatchedTable
from celldit.effects.tables.projection import project
from celldit.effects.tables.residuals import table_residuals
from celldit.effects.tables.shrinkage import shrunk

if TYPE_CHECKING:
    from celldit.effects.prior import EffectPrior

# Of effects of which none was measured here, beside those that tables hold.
COMMON = 0.25


def informed(
    prior: EffectPrior, tables: Mapping[str, MatchedTable], loadings_FG: np.ndarray, seed: int
) -> EffectPrior:
    """The same prior with tables of effects, each as far as it helps in the latent of a decoder."""
    back_FF, found = np.linalg.inv(prior.rotation), []
    for name, given in tables.items():
        projection = project(given, loadings_FG)
        each = shrunk(projection.turned(prior.rotation), prior.signal)
        keys, means_PF = projection.keys, each.means_PF @ back_FF
        found.append(
            TableEffects(
                name,
                keys,
                means_PF,
                each.common_F @ back_FF,
                each.shared_F @ back_FF,
                residuals=table_residuals(given, loadings_FG, keys, means_PF),
                provenance={**given.table.provenance, "genes_matched": given.share},
            )
        )
    if not prior.conditions:
        prior = _scattered_like(prior, found)
    return with_tables(prior, found, seed)


def with_tables(prior: EffectPrior, tables: Sequence[TableEffects], seed: int) -> EffectPrior:
    """The same prior that believes tables as far as they predict what was measured here."""
    if not tables:
        return prior
    bare = replace(prior, elsewhere=Elsewhere(), kernel=replace(prior.kernel, part_shares={}))
    elsewhere = believed(bare, tables, seed)
    return replace(
        bare,
        elsewhere=elsewhere,
        kernel=replace(bare.kernel, part_shares=elsewhere.part_shares),
    )


def _scattered_like(prior: EffectPrior, tables: Sequence[TableEffects]) -> EffectPrior:
    """A prior of controls alone, in which effects scatter as they do in the tables."""
    second_FF = np.zeros_like(prior.rotation)
    for table in tables:
        away_PF = (table.means_PF - table.common_F) @ prior.rotation
        second_FF += away_PF.T @ away_PF / len(away_PF) / len(tables)
    values_F, turn_FF = np.linalg.eigh(second_FF)
    signal_F = values_F[::-1].clip(min=1e-6 * max(values_F.max(), 1e-12))
    rotation = prior.rotation @ turn_FF[:, ::-1]
    is_part = np.array([term == "part" for term in prior.kernel.terms])
    return replace(
        prior,
        rotation=rotation,
        kernel=replace(prior.kernel, metric=rotation),
        weights=np.where(is_part, 1.0, 0.1),
        signal=signal_F,
        common=COMMON * signal_F,
        shifts=np.zeros((0, len(signal_F))),
    )
