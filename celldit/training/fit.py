"""Training as a whole: the latent, the effect model, both flows, and what is fitted after them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from celldit.calibration.fit import fit_calibrations
from celldit.calibration.network_share import NetworkShare
from celldit.calibration.stacking import Verdict
from celldit.compute import one_at_a_time, threads
from celldit.conditions import Condition, ConditionTable
from celldit.conditions.depth import warn_unequal_depths
from celldit.conditions.extrapolation import Extrapolation
from celldit.conditions.population import Population
from celldit.conditions.strata import Strata, warn_other_times
from celldit.data.fields import Fields
from celldit.data.store import CellStore
from celldit.effects.contexts.baseline import warn_without_controls
from celldit.effects.features.features import warn_uninformative
from celldit.effects.fit_prior import fit_prior
from celldit.effects.sharing import check_size
from celldit.effects.tables.elsewhere import warn_of_tables
from celldit.flow.anchored import AnchoredFlow, NetworkConfig, needs_views
from celldit.latent.autoencoder import Autoencoder
from celldit.latent.views import fit_views
from celldit.memory import give_back
from celldit.nn.dit import DiTConfig
from celldit.nn.views import TokenViews
from celldit.training.autoencoder import fit_autoencoder, kept_autoencoder
from celldit.training.design import Design, Run
from celldit.training.devices.cuda import is_large
from celldit.training.flow_stage import train_flow
from celldit.training.latents import LatentFile, encoded_once
from celldit.training.loop.finite import FiniteLoss
from celldit.training.loop.trainer import quiet_lightning, trainer_defaults
from celldit.training.noise_stage import fit_states_and_train
from celldit.training.saving.checkpoints import Checkpoints
from celldit.training.time_stage import fit_time_course
from celldit.training.trained import Trained


def train(cells: CellStore, design: Design, run: Run) -> Trained:
    """Train a model on cells; nothing else is looked at.

    Raises
    ------
    InputError, FileError
        If the folder of checkpoints belongs to another training, or cannot be used.
    TrainingError
        If a loss is not finite.
    """
    table = checked_table(cells, design.fields)
    check_size(table.conditions, design.fields.covariate_keys, bool(design.features))
    start = "new" if design.borrowed is None else design.borrowed.name
    holding = run.checkpoints(cells, design, start)
    with one_at_a_time(), holding as checkpoints, threads(), quiet_lightning():
        give_back()
        autoencoder = kept_autoencoder(
            None if checkpoints is None else checkpoints.part("latent"),
            cells.genes,
            lambda: fit_autoencoder(cells, design, run.seed),
        )
        give_back()
        views = views_for(design.network, autoencoder, cells, run.seed)

        def estimate(z_NKD: torch.Tensor | LatentFile) -> Population:
            loadings_FG = autoencoder.decoder.loadings.detach().double().numpy()
            prior = fit_prior(
                z_NKD,
                table,
                features=design.features,
                tables=design.effects,
                loadings_FG=loadings_FG,
                seed=run.seed,
            )
            return Population.fit(z_NKD, table, prior)

        def make_flow(population: Population) -> AnchoredFlow:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(run.seed)
                shape = autoencoder.n_tokens, autoencoder.token_dim
                return AnchoredFlow(*shape, design.network, views)

        trained_with = run.to_dict()
        if design.borrowed is not None:
            trained_with["autoencoder"] = design.borrowed.to_dict(cells.genes)
        return Learner(cells, table, autoencoder, design, run, checkpoints).learn(
            estimate, make_flow, trained_with
        )


def checked_table(cells: CellStore, fields: Fields) -> ConditionTable:
    """The conditions of training cells; warns where controls are missing or differ in depth."""
    table = ConditionTable.from_cells(cells, fields.perturbation_sep)
    strata = Strata.of_table(table)
    warn_without_controls(strata.borrowed())
    warn_other_times(strata)
    warn_unequal_depths(table, cells.size_factors)
    return table


@dataclass(frozen=True, eq=False)
class Learner:
    """What is the same for a new model and one that goes on: all that follows the latent.

    Attributes
    ----------
    cells, table
        Training cells and their conditions.
    autoencoder
        Fitted.
    design, run
        What is trained, and how.
    checkpoints
        Where training keeps its state, and finds that of an earlier call; None for nowhere.
    """

    cells: CellStore
    table: ConditionTable
    autoencoder: Autoencoder
    design: Design
    run: Run
    checkpoints: Checkpoints | None

    def learn(
        self,
        estimate: Callable[[torch.Tensor | LatentFile], Population],
        make_flow: Callable[[Population], AnchoredFlow],
        trained_with: Mapping[str, Any],
        weight: Mapping[Extrapolation, float] | None = None,
        never_hold_out: Sequence[Condition] = (),
    ) -> Trained:
        """Learn the rest.

        Parameters
        ----------
        estimate
            Makes the simple estimates from the latents of all cells.
        make_flow
            Makes the flow that training starts from.
        trained_with
            For the model's record of its training.
        weight
            Share of the network for kinds of extrapolation that trial runs cannot judge.
        never_hold_out
            Conditions that trial runs must not judge by.
        """
        cells, table, run, autoencoder = self.cells, self.table, self.run, self.autoencoder
        if weight and any(weight.values()):
            # What these cells cannot judge is to use the network, so it learns all it can.
            run = replace(run, config=replace(run.config, least_gain=0.0))
        folder = None if self.checkpoints is None else self.checkpoints.folder
        watch = FiniteLoss(cells, folder)
        arguments = watch.added_to(run.trainer_arguments)
        with encoded_once(autoencoder, cells) as z_NKD:
            watch.latents = z_NKD
            give_back()
            population = estimate(z_NKD)
            with torch.device("meta"):  # for its size alone
                half = is_large(make_flow(population), run.config.flow_batch)

            def of_flow(stage: str) -> dict[str, Any]:
                return trainer_defaults(arguments, stage, half=half)

            flow, verdict, flow_history = train_flow(
                lambda: make_flow(population),
                z_NKD,
                table,
                population,
                autoencoder.scale.detach().cpu(),
                run,
                of_flow,
                checkpoints=self.checkpoints,
                never_hold_out=never_hold_out,
            )
            course = fit_time_course(z_NKD, table, population, autoencoder, run)
            states, state_N, noise_history = fit_states_and_train(
                flow, z_NKD, table, population, run, watch, of_flow("noise")
            )
        weight = complete_weight(verdict, weight or {})
        network = NetworkShare(flow, weight)
        fitted = fit_calibrations(
            cells,
            table,
            population,
            autoencoder,
            states,
            state_N,
            run.seed,
            network,
            new_cells=run.config.new_cells,
        )
        warn_uninformative(self.design.features, population.prior.uninformative)
        warn_of_tables(population.prior.elsewhere)
        return Trained(
            self.design.fields,
            cells.genes,
            autoencoder,
            population,
            flow,
            weight,
            dict(zip(table.conditions, table.counts.tolist(), strict=True)),
            self.design.features,
            trained_with,
            {"flow": flow_history, "noise": noise_history},
            fitted.calibration,
            states,
            fitted.new_cell_model,
            fitted.control_rates,
            fitted.mean_calibration,
            fitted.temporal_means,
            course,
            model_id="",
        )


def complete_weight(
    verdict: Verdict, earlier: Mapping[Extrapolation, float]
) -> dict[Extrapolation, float]:
    """The weight for every kind of extrapolation; the network is not used for what was not tried.

    What it learned of cells it has seen says nothing of contexts and perturbations that are new:
    with one perturbed context there is none to hold out.
    """
    weight = {k: verdict.weight.get(k, earlier.get(k, 0.0)) for k in Extrapolation}
    # What is known at other times is done at this one; time has a weight of its own.
    for kind in (Extrapolation.BETWEEN, Extrapolation.BEYOND):
        weight[kind] = weight[Extrapolation.SEEN]
    return weight


def views_for(
    network: NetworkConfig, autoencoder: Autoencoder, cells: CellStore, seed: int
) -> TokenViews | None:
    """What the network's tokens see of the latent; None for a network that reads slices of it."""
    if not isinstance(network, DiTConfig) or not needs_views(network):
        return None
    if network.tokens == "random":
        n_dims = autoencoder.n_tokens * autoencoder.token_dim
        return TokenViews.random(network.n_views, n_dims, network.view_values, seed)
    return fit_views(autoencoder, cells, network.n_views, network.view_values, seed)
