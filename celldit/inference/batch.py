"""The conditions of the cells to sample, as the flow and the decoder are told of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from celldit.conditions import Condition
from celldit.conditions.embedding import ConditionEmbedding
from celldit.conditions.extrapolation import Extrapolation
from celldit.conditions.states import States
from celldit.conditions.strata import StratumKey, mean_controls
from celldit.data.fields import Fields
from celldit.inference.noise import NoiseSources
from celldit.inference.request import obs_of
from celldit.training.trained import Trained


@dataclass(frozen=True, eq=False)
class ConditionBatch:
    """Conditions of the cells to sample, looked up once.

    Attributes
    ----------
    conditions
        The Q distinct conditions.
    kinds
        How far each is from training.
    row
        Condition of each cell, int64, shape (N,).
    embedding
        What the network is told of each condition.
    weight_Q
        Share of the network's displacement to use for each condition.
    references
        Mean latent of the controls of strata that training did not see.
    beyond
        Whether a dose or the time of each lies outside those of training.
    """

    conditions: list[Condition]
    kinds: list[Extrapolation]
    row: np.ndarray
    embedding: ConditionEmbedding
    weight_Q: torch.Tensor
    references: Mapping[StratumKey, np.ndarray]
    beyond: list[bool]

    @classmethod
    def of(
        cls,
        trained: Trained,
        conditions: Sequence[Condition],
        controls: Mapping[StratumKey, np.ndarray] | None = None,
    ) -> ConditionBatch:
        """Look up the condition of every cell.

        Parameters
        ----------
        trained
            The model.
        conditions
            One for each of N cells.
        controls
            Mean latent of controls at hand, for contexts that training did not see.
        """
        distinct = list(dict.fromkeys(conditions))
        row_of = {c: i for i, c in enumerate(distinct)}
        row = np.array([row_of[c] for c in conditions], dtype=np.int64)
        return cls.of_rows(trained, distinct, row, controls)

    @classmethod
    def of_rows(
        cls,
        trained: Trained,
        distinct: list[Condition],
        row: np.ndarray,
        controls: Mapping[StratumKey, np.ndarray] | None = None,
    ) -> ConditionBatch:
        """Look up conditions of which each cell names one by its row.

        Parameters
        ----------
        trained
            The model.
        distinct
            Q different conditions.
        row
            Condition of each cell, int64, shape (N,).
        controls
            As in :meth:`of`.
        """
        kinds = [trained.known.classify(c) for c in distinct]
        references = references_for(trained, distinct, controls or {})
        # Nothing was done to a control, so nothing may happen to it.
        weights = [
            0.0 if c.is_control else trained.weight_of(kind)
            for c, kind in zip(distinct, kinds, strict=True)
        ]
        return cls(
            distinct,
            kinds,
            row,
            ConditionEmbedding.of(trained.population, distinct, trained.shape, references),
            torch.tensor(weights, dtype=torch.float32),
            references,
            [bool(trained.ranges.beyond(c)) for c in distinct],
        )

    def extrapolations(self, trained: Trained) -> list[Extrapolation | None]:
        """The kinds; None where another dose or time of the same was seen, not this one."""
        return [
            kind
            if kind.apart_from_time is not Extrapolation.SEEN or c in trained.frequencies
            else None
            for c, kind in zip(self.conditions, self.kinds, strict=True)
        ]

    def sources(self, states: States) -> NoiseSources:
        """Where the flow from noise starts for each condition."""
        return NoiseSources.of(states, self.conditions, self.embedding.positions_QKD)

    def obs(self, fields: Fields, n_cells: int) -> pd.DataFrame:
        """What each of the first `n_cells` is, as columns under the names of the training data."""
        used, place = np.unique(self.row[:n_cells], return_inverse=True)
        conditions = [self.conditions[i] for i in used]
        frame = obs_of(conditions, [self.kinds[i] for i in used], fields)
        if fields.dose_key is not None or fields.time_key is not None:
            frame["beyond_range"] = [self.beyond[i] for i in used]
        return frame.iloc[place].reset_index(drop=True)


def references_for(
    trained: Trained,
    conditions: Sequence[Condition],
    controls: Mapping[StratumKey, np.ndarray],
) -> dict[StratumKey, np.ndarray]:
    """Mean latent of the controls for strata that training did not see."""
    known, scale = trained.population.references, trained.time_course.scale
    new = {c.stratum for c in conditions} - set(known)
    return {key: mean_controls(known, key, controls, scale) for key in new}
