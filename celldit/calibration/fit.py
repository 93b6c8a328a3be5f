"""What is learned last, with both networks trained: how their latents become counts and effects."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np

from celldit.calibration.effects import EffectCalibration
from celldit.calibration.effects.fit import calibrate_effects
from celldit.calibration.fit_means import fit_means, seen_offsets
from celldit.calibration.means import MeanCalibration
from celldit.calibration.network_share import NetworkShare
from celldit.calibration.new_cells.fit import fit_new_cells
from celldit.calibration.new_cells.library_sizes import SizeModel
from celldit.calibration.new_cells.model import NewCellModel
from celldit.calibration.new_cells.sample import TrainingSample
from celldit.calibration.rates.control import measure_control_rates
from celldit.calibration.rates.fold_change import ControlRates
from celldit.calibration.reference_controls import ReferenceControls
from celldit.calibration.responders.shares import fit_shares
from celldit.calibration.responses import measure_responses
from celldit.calibration.temporal_means import TemporalMeans
from celldit.conditions import ConditionTable
from celldit.conditions.population import Population
from celldit.conditions.states import States
from celldit.data.store import CellStore
from celldit.latent.autoencoder import Autoencoder
from celldit.progress import late_bar

STEPS = 5


class Calibrations(NamedTuple):
    """How counterfactuals become counts, effects what they are, and new cells counts.

    Attributes
    ----------
    control_rates, mean_calibration, calibration, new_cell_model, temporal_means
        As in :class:`celldit.training.trained.Trained`.
    """

    control_rates: ControlRates
    mean_calibration: MeanCalibration
    calibration: EffectCalibration
    new_cell_model: NewCellModel
    temporal_means: TemporalMeans


def fit_calibrations(
    cells: CellStore,
    table: ConditionTable,
    population: Population,
    autoencoder: Autoencoder,
    states: States,
    state_N: np.ndarray,
    seed: int,
    network: NetworkShare,
    *,
    new_cells: bool = True,
) -> Calibrations:
    """Learn them from the training cells.

    Parameters
    ----------
    cells, table
        Training cells and their conditions.
    population, autoencoder
        The trained parts.
    states, state_N
        States that cells may be in, and that of each cell.
    seed
        Of choices where there are very many cells or conditions, and of draws.
    network
        The network and its weight, which predictions of training conditions hold, too.
    new_cells
        Whether to learn how new cells are drawn.
    """
    with late_bar("Learning counts and effects", "steps") as show:
        sizes = SizeModel.fit(cells.size_factors, state_N, len(states), table)
        responses = measure_responses(cells, table, autoencoder, seed)
        references = ReferenceControls(autoencoder, population, responses, states, sizes)
        control_rates = measure_control_rates(cells, table, references)
        show(1, STEPS)
        mean_calibration = fit_means(cells, table, references, seed, network)
        # A network that is used moves each cell its own way already.
        if not mean_calibration.is_none and not any(network.weight.values()):
            shares = fit_shares(cells, table, population.prior, seed)
            mean_calibration = replace(mean_calibration, shares=shares)
        show(2, STEPS)
        calibration = calibrate_effects(
            cells, table, references, control_rates, mean_calibration, seed
        )
        show(3, STEPS)
        if new_cells:
            offsets_of = partial(seen_offsets, mean_calibration, references, network)
            again = TrainingSample.of(cells, table, references, states, state_N, seed, offsets_of)
            new_cell_model = fit_new_cells(again, states, sizes, cells.size_factors)
        else:
            n_dims = states.offsets_SF.shape[1]
            new_cell_model = NewCellModel.not_learned(len(states), sizes, n_dims)
        show(4, STEPS)
        temporal_means = TemporalMeans.fit(cells, table)
    return Calibrations(
        control_rates, mean_calibration, calibration, new_cell_model, temporal_means
    )
