"""Conditioning of a request: what the flow and the decoder know of each cell's condition."""

from __future__ import annotations

import json
from collections import defaultdict
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
from celldit.random import draw_keys, keys_of
from celldit.training.trained import Trained

BLOCK = 32
"""Conditions that are looked up at a time."""


@dataclass(frozen=True, eq=False)
class ConditionBatch:
    """Conditions of the cells to sample, looked up once."""

    conditions: list[Condition]  # the Q distinct ones
    kinds: list[Extrapolation]  # how far each is from training
    row: np.ndarray  # condition of each cell, int64, shape (N,)
    embedding: ConditionEmbedding  # what the network is told of each condition
    weight_Q: torch.Tensor  # share of the network's displacement to use for each
    # Mean latent of the controls of strata that training did not see.
    references: Mapping[StratumKey, np.ndarray]
    beyond_range: list[bool]  # whether a dose or the time of each lies outside those of training

    @classmethod
    def of(
        cls,
        trained: Trained,
        conditions: Sequence[Condition],
        controls: Mapping[StratumKey, np.ndarray] | None = None,
    ) -> ConditionBatch:
        """Look up the condition of each of N cells.

        `controls` are mean latents of controls at hand, for contexts that training did not see.
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
        """Look up Q different conditions, of which each cell names one by its row, int64 (N,)."""
        kinds = [trained.known.classify(c) for c in distinct]
        known, scale = trained.population.references, trained.time_course.scale
        new = {c.stratum for c in distinct} - set(known)
        references = {key: mean_controls(known, key, controls, scale) for key in new}
        # Nothing was done to a control, so nothing may happen to it.
        weights = [
            0.0 if c.is_control else trained.weight_of(kind)
            for c, kind in zip(distinct, kinds, strict=True)
        ]
        return cls(
            distinct,
            kinds,
            row,
            _embedding(trained, distinct, references),
            torch.tensor(weights, dtype=torch.float32),
            references,
            [bool(trained.ranges.outside(c)) for c in distinct],
        )

    def extrapolations(self, trained: Trained) -> list[Extrapolation | None]:
        """The kinds; None where another dose or time of the same was seen, not this one."""
        return [
            kind
            if kind.apart_from_time is not Extrapolation.SEEN or c in trained.frequencies
            else None
            for c, kind in zip(self.conditions, self.kinds, strict=True)
        ]

    def draw_keys(self, cells_N: np.ndarray) -> np.ndarray:
        """Keys of the draws of cells, given by their keys, in these conditions, int64 (N,)."""
        keys_Q = keys_of(json.dumps(c.to_list()) for c in self.conditions)
        return draw_keys(cells_N, keys_Q[self.row])

    def sources(self, states: States) -> NoiseSources:
        """Where the flow from noise starts for each condition."""
        return NoiseSources.of(states, self.conditions, self.embedding.positions_QKD)

    def obs(self, fields: Fields) -> pd.DataFrame:
        """What each cell is, as columns under the names of the training data."""
        used, place = np.unique(self.row, return_inverse=True)
        conditions = [self.conditions[i] for i in used]
        frame = obs_of(conditions, [self.kinds[i] for i in used], fields)
        if fields.dose_key is not None or fields.time_key is not None:
            frame["beyond_range"] = [self.beyond_range[i] for i in used]
        return frame.iloc[place].reset_index(drop=True)


def blocks_of(trained: Trained, conditions: Sequence[Condition]) -> list[np.ndarray]:
    """Rows of conditions in blocks of :data:`BLOCK`, the last of a kind filled up with its last.

    The bytes of a matrix product depend on the number of its rows. The effect model sums over what
    was seen of a condition and what was not, so blocks hold conditions of one kind; then estimates
    of a condition are the same whatever others are asked for.
    """
    seen = {part for c in trained.population.prior.conditions for part in c.parts}
    rows = defaultdict(list)
    for q, condition in enumerate(conditions):
        parts = set(condition.parts)
        rows[bool(parts & seen), bool(parts - seen), len(condition.parts)].append(q)
    blocks = []
    for own in rows.values():
        for start in range(0, len(own), BLOCK):
            block = own[start : start + BLOCK]
            blocks.append(np.array(block + block[-1:] * (BLOCK - len(block)), dtype=np.int64))
    return blocks


def _embedding(
    trained: Trained,
    conditions: Sequence[Condition],
    references: Mapping[StratumKey, np.ndarray],
) -> ConditionEmbedding:
    """The conditions as the network knows them, estimated block by block."""
    blocks = blocks_of(trained, conditions)
    found = [
        ConditionEmbedding.of(
            trained.population,
            [conditions[q] for q in block],
            trained.shape,
            references,
        )
        for block in blocks
    ]
    return ConditionEmbedding.joined(found, np.concatenate(blocks), len(conditions))
