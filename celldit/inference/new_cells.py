"""New cells of conditions of training, drawn from noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from torch import Tensor

from celldit.conditions import Condition
from celldit.data.cells import Cells
from celldit.flow import cell_noise
from celldit.inference.batch import ConditionBatch
from celldit.inference.counts import draw_counts
from celldit.inference.noise import NoiseSources, sde_from_noise, uniforms
from celldit.inference.offsets.condition import condition_offsets
from celldit.inference.solver import SolverConfig, carry
from celldit.io.sampling import TILE
from celldit.io.write import PredictedCells, concatenate
from celldit.random import SIZE_STREAM, STATE_STREAM
from celldit.training.trained import Trained


@dataclass(frozen=True, eq=False)
class NewCells:
    """New cells by their position in a request.

    Attributes
    ----------
    trained
        The model.
    conditions
        Conditions of training, and which of them each cell has.
    keys_N
        Of the random numbers of each cell.
    sources
        Where the flow from noise starts for each condition.
    offset
        What brings conditions to their mean, by row; None for nothing.
    shift_Q
        What conditions add to log sizes.
    config, seed
        Of the solver, and of everything drawn.
    sizes_N
        Library sizes; None to draw them.
    """

    trained: Trained
    conditions: ConditionBatch
    keys_N: np.ndarray
    sources: NoiseSources
    offset: Callable[[np.ndarray], Tensor] | None
    shift_Q: np.ndarray
    config: SolverConfig
    seed: int
    sizes_N: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        trained: Trained,
        conditions: ConditionBatch,
        keys_N: np.ndarray,
        config: SolverConfig,
        seed: int,
        sizes_N: np.ndarray | None = None,
    ) -> NewCells:
        """Look up what cells of some conditions need."""
        offset = condition_offsets(trained, conditions, SolverConfig())
        sources = conditions.sources(trained.states)
        shift_Q = trained.new_cell_model.sizes.shifts(conditions.conditions)
        return cls(trained, conditions, keys_N, sources, offset, shift_Q, config, seed, sizes_N)

    def __call__(self, at_B: np.ndarray) -> PredictedCells:
        """The cells at the positions of a whole tile."""
        trained, row_B, keys = self.trained, self.conditions.row[at_B], self.keys_N[at_B]
        sizes, uniform_B = trained.new_cell_model.sizes, uniforms(keys, self.seed, STATE_STREAM)
        shift_B = self.shift_Q[row_B]
        if self.sizes_N is None:
            state_B = self.sources.draw(row_B, uniform_B)
            sizes_B = sizes(state_B, shift_B, uniforms(keys, self.seed, SIZE_STREAM))
        else:
            sizes_B = self.sizes_N[at_B]
            state_B = self.sources.draw(row_B, uniform_B, sizes.log_densities(sizes_B, shift_B))
        conditioning, source = self.sources.end(self.conditions.embedding, row_B, state_B)
        solver = None
        if self.config.solver == "sde":
            solver = sde_from_noise(source.to(trained.flow.device), keys, self.seed)
        noise_BKD = cell_noise(torch.from_numpy(keys), trained.shape, self.seed)
        z_BKD = carry(trained.flow, source(noise_BKD), conditioning, self.config, solver=solver)
        return self._counted(z_BKD, torch.as_tensor(source.position), state_B, sizes_B, at_B)

    @torch.no_grad()
    def _counted(
        self,
        z_BKD: Tensor,
        position_BKD: Tensor,
        state_B: np.ndarray,
        sizes_B: np.ndarray,
        at_B: np.ndarray,
    ) -> PredictedCells:
        """Draw counts of latents."""
        trained, new_cell_model = self.trained, self.trained.new_cell_model
        offset_BG = None if self.offset is None else self.offset(self.conditions.row[at_B])
        clean_BKD = new_cell_model.latents(z_BKD, position_BKD, state_B)
        model = new_cell_model.counts(
            trained.autoencoder, clean_BKD, torch.from_numpy(sizes_B), state_B, offset_BG
        )
        return PredictedCells(
            sparse.csr_matrix(model.mean_BG.numpy()),
            draw_counts(model, self.keys_N[at_B], self.seed),
            sizes_B,
            trained.autoencoder.at_own_size(z_BKD),
        )


def new_cells(trained: Trained, condition: Condition, n_cells: int, seed: int) -> Cells:
    """Cells of one condition, with no more about them than their counts and sizes.

    Parameters
    ----------
    trained
        The model.
    condition
        The condition, of training.
    n_cells
        How many.
    seed
        Of everything drawn.
    """
    keys = np.arange(-(-n_cells // TILE) * TILE)
    conditions = ConditionBatch.of_rows(trained, [condition], 0 * keys)
    drawing = NewCells.of(trained, conditions, keys, SolverConfig(), seed)
    tiles = [drawing(keys[start : start + TILE]) for start in range(0, len(keys), TILE)]
    return as_cells(concatenate(tiles)[:n_cells], trained)


def as_cells(drawn: PredictedCells, trained: Trained) -> Cells:
    """Drawn cells as unlabelled cells, to encode and edit."""
    n_cells, control = len(drawn.size_factors), trained.fields.control
    return Cells(
        drawn.counts.astype(np.float32),
        drawn.size_factors,
        trained.genes,
        np.full(n_cells, control, dtype=object),
        pd.DataFrame(index=range(n_cells)),
        None,
        None,
        np.array([str(key) for key in range(n_cells)], dtype=object),
        control,
    )
