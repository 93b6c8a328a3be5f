"""New cells of conditions of training, drawn from noise."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from scipy import sparse

from celldit.conditions import Condition
from celldit.data.cells import Cells
from celldit.flow import cell_noise
from celldit.inference.batch import ConditionBatch
from celldit.inference.edits import draw_counts, n_unlike
from celldit.inference.noise import NoiseSources, sde_from_noise, uniforms
from celldit.inference.offsets import RowOffset, condition_offsets, own_uniforms
from celldit.inference.solver import SolverConfig, carry
from celldit.io.sampling import TILE, PredictedCells, concatenate
from celldit.random import SIZE_STREAM, STATE_STREAM
from celldit.training.trained import Trained


@dataclass(frozen=True, eq=False)
class NewCells:
    """New cells by their position in a request."""

    trained: Trained
    conditions: ConditionBatch  # of training, and which of them each cell has
    keys_N: np.ndarray  # of the random numbers of each cell
    config: SolverConfig
    seed: int
    sizes_N: np.ndarray | None = None  # library sizes; None to draw them

    @cached_property
    def _sources(self) -> NoiseSources:
        return self.conditions.sources(self.trained.states)

    @cached_property
    def _offset(self) -> RowOffset | None:
        return condition_offsets(self.trained, self.conditions, SolverConfig(), new_cells=True)

    @cached_property
    def _size_shifts_Q(self) -> np.ndarray:
        """What conditions add to log sizes."""
        shifts_Q: np.ndarray = self.trained.new_cell_model.sizes.shifts(self.conditions.conditions)
        return shifts_Q

    @torch.no_grad()
    def __call__(self, at_B: np.ndarray) -> PredictedCells:
        """The cells at the positions of a whole tile."""
        trained, model, seed = self.trained, self.trained.new_cell_model, self.seed
        row_B, keys_B = self.conditions.row[at_B], self.keys_N[at_B]
        uniform_B = uniforms(keys_B, seed, STATE_STREAM)
        shift_B = self._size_shifts_Q[row_B]
        if self.sizes_N is None:
            state_B = self._sources.draw(row_B, uniform_B)
            sizes_B = model.sizes(state_B, shift_B, uniforms(keys_B, seed, SIZE_STREAM))
        else:
            sizes_B = self.sizes_N[at_B]
            log_densities = model.sizes.log_densities(sizes_B, shift_B)
            state_B = self._sources.draw(row_B, uniform_B, log_densities)
        conditioning, source = self._sources.end(self.conditions.embedding, row_B, state_B)
        solver = None
        if self.config.solver == "sde":
            solver = sde_from_noise(source.to(trained.flow.device), keys_B, seed)
        start_BKD = source(cell_noise(torch.from_numpy(keys_B), trained.shape, seed))
        z_BKD = carry(trained.flow, start_BKD, conditioning, self.config, solver=solver)
        clean_BKD = model.latents(z_BKD, torch.as_tensor(source.position), state_B)
        uniform_BX = own_uniforms(trained, self.conditions.conditions, keys_B, seed)
        offset_BG = None if self._offset is None else self._offset(row_B, uniform_BX)
        counts = model.counts(
            trained.autoencoder, clean_BKD, torch.from_numpy(sizes_B), state_B, offset_BG
        )
        return PredictedCells(
            sparse.csr_matrix(counts.mean_BG.numpy()),
            draw_counts(counts, keys_B[: n_unlike(at_B)], seed),
            sizes_B,
            trained.autoencoder.at_own_size(z_BKD),
        )


def new_cells(trained: Trained, condition: Condition, n_cells: int, seed: int) -> Cells:
    """Cells of one condition of training, with no more about them than their counts and sizes."""
    keys = np.arange(-(-n_cells // TILE) * TILE)
    conditions = ConditionBatch.of_rows(trained, [condition], 0 * keys)
    drawing = NewCells(trained, conditions, keys, SolverConfig(), seed)
    tiles = [drawing(keys[start : start + TILE]) for start in range(0, len(keys), TILE)]
    return as_cells(concatenate(tiles)[:n_cells], trained)


def as_cells(drawn: PredictedCells, trained: Trained) -> Cells:
    """Drawn cells as unlabelled cells, to encode and edit."""
    n_cells, control = len(drawn.size_factors), trained.fields.control
    return Cells(
        drawn.counts.astype(np.float32),
        np.array([str(key) for key in range(n_cells)], dtype=object),
        genes=trained.genes,
        size_factors=drawn.size_factors,
        perturbations=np.full(n_cells, control, dtype=object),
        covariates=pd.DataFrame(index=range(n_cells)),
        doses=None,
        times=None,
        control=control,
    )
