"""Training as a whole: the latent, the effect model, both flows, and what is fitted after them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from celldit.calibration.fit import fit_calibrations
from celldit.calibration.network_share import NetworkShare
from celldit.calibration.stacking import Verdict
from celldit.compute import one_at_a_time, threads
from celldit.conditions import ConditionTable
from celldit.conditions.depth import warn_unequal_depths
from celldit.conditions.extrapolation import Extrapolation
from celldit.conditions.population import Population
from celldit.conditions.strata import Strata, warn_other_times
from celldit.data.fields import Fields
from celldit.data.store import CellStore
from celldit.effects.contexts.baseline import warn_without_controls
from celldit.effects.features.features import warn_uninformative
from celldit.effects.fit_prior import fit_prior, joined
from celldit.effects.sharing import check_size
from celldit.effects.tables.elsewhere import warn_of_tables
from celldit.flow.anchored import AnchoredFlow, NetworkConfig
from celldit.latent.autoencoder import Autoencoder
from celldit.latent.config import LatentConfig
from celldit.latent.views import fit_views
from celldit.memory import give_back
from celldit.nn.dit import DiTConfig
from celldit.nn.views import TokenViews
from celldit.progress import quietly
from celldit.tokenizers import tokenizer_from_config
from celldit.training.design import Design, Run
from celldit.training.devices.cuda import is_large
from celldit.training.flow_stage import train_flow
from celldit.training.latents import LatentFile, encoded_once
from celldit.training.loop.finite import FiniteLoss
from celldit.training.loop.trainer import listed, quiet_lightning, trainer_defaults
from celldit.training.noise_stage import train_from_noise
from celldit.training.saving.checkpoints import Checkpoints
from celldit.training.time_stage import fit_time_course
from celldit.training.trained import Trained


def train(cells: CellStore, design: Design, run: Run) -> Trained:
    """Train a model on cells; nothing else is looked at.

    InputError or FileError if the folder of checkpoints belongs to another training, or cannot be
    used; TrainingError if a loss is not finite.
    """
    table = checked_table(cells, design.fields)
    check_size(table.conditions, design.fields.covariate_keys, bool(design.features))
    start = "new" if design.borrowed is None else design.borrowed.name
    holding = run.checkpoints(cells, design, start)
    with one_at_a_time, holding as checkpoints, threads(), quiet_lightning():
        give_back()
        autoencoder = kept_autoencoder(
            checkpoints, cells.genes, lambda: fit_autoencoder(cells, design, run.seed)
        )
        give_back()
        trained_with = run.to_dict()
        if design.borrowed is not None:
            trained_with["autoencoder"] = design.borrowed.to_dict(cells.genes)
        return learn(cells, table, autoencoder, design, run, checkpoints, trained_with)


def fit_autoencoder(cells: CellStore, design: Design, seed: int) -> Autoencoder:
    """Make the autoencoder of a new model, or take over the one that it borrows."""
    if design.borrowed is not None:
        return design.borrowed.fit(cells, seed)
    autoencoder = Autoencoder.fit(cells, design.tokenizer.fit(cells), design.latent, seed)
    autoencoder.round_weights()
    return autoencoder


def kept_autoencoder(
    checkpoints: Checkpoints | None, genes: tuple[str, ...], make: Callable[[], Autoencoder]
) -> Autoencoder:
    """The autoencoder that a checkpoint holds, or one that is made and kept there; on the CPU."""
    part = None if checkpoints is None else checkpoints.part("latent")
    finished = None if part is None else part.finished()
    if finished is None:
        autoencoder = make()
        if part is not None:
            part.finish(
                {
                    "config": autoencoder.to_config(),
                    "tokenizer": autoencoder.tokenizer.arrays(),
                    "weights": autoencoder.state_dict(),
                    "residual": autoencoder.decoder.hidden,
                }
            )
        return autoencoder.cpu()
    config = finished["config"]
    autoencoder = Autoencoder(
        tokenizer_from_config(config["tokenizer"], finished["tokenizer"]),
        genes,
        config["n_tokens"],
        config["token_dim"],
        LatentConfig(**config["config"]),
        finished["residual"],
    )
    autoencoder.explained = config["explained"]
    autoencoder.load_state_dict(finished["weights"])
    return autoencoder.eval()


def checked_table(cells: CellStore, fields: Fields) -> ConditionTable:
    """The conditions of training cells; warns where controls are missing or differ in depth."""
    table = ConditionTable.from_cells(cells, fields.perturbation_sep)
    strata = Strata.of_table(table)
    warn_without_controls(strata.borrowed())
    warn_other_times(strata)
    warn_unequal_depths(table, cells.size_factors)
    return table


def learn(
    cells: CellStore,
    table: ConditionTable,
    autoencoder: Autoencoder,
    design: Design,
    run: Run,
    checkpoints: Checkpoints | None,
    trained_with: Mapping[str, Any],
    earlier: Trained | None = None,
) -> Trained:
    """Learn all that follows the latent, for a new model and for one that goes on.

    What an `earlier` model observed and learned is where the new one starts. Training keeps its
    state in `checkpoints`, and finds there that of an earlier call; `trained_with` is for the
    model's record of its training.
    """
    weight = {} if earlier is None else earlier.flow_weight
    if any(weight.values()):
        # What these cells cannot judge is to use the network, so it learns all it can.
        run = replace(run, config=replace(run.config, least_gain=0.0))
    views = None if earlier else views_for(design.network, autoencoder, cells, run.seed)

    def make_flow() -> AnchoredFlow:
        if earlier is not None:
            return copy.deepcopy(earlier.flow).train()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(run.seed)
            shape = autoencoder.n_tokens, autoencoder.token_dim
            return AnchoredFlow(*shape, design.network, views)

    watch = FiniteLoss(cells, None if checkpoints is None else checkpoints.folder)
    callbacks = [*listed(run.trainer_arguments.get("callbacks")), watch]
    arguments = {**run.trainer_arguments, "callbacks": callbacks}
    with encoded_once(autoencoder, cells) as z_NKD:
        watch.latents = z_NKD
        give_back()
        population = estimate(z_NKD, table, autoencoder, design, run.seed, earlier)
        with torch.device("meta"):  # for its size alone
            half = is_large(make_flow(), run.config.flow_batch)

        def of_flow(stage: str) -> dict[str, Any]:
            return trainer_defaults(arguments, stage, half=half)

        flow, verdict, flow_history = train_flow(
            make_flow,
            z_NKD,
            table,
            population,
            autoencoder.scale.detach().cpu(),
            run,
            of_flow,
            checkpoints=checkpoints,
            # An earlier flow has seen these; they do not say what it does with others.
            never_hold_out=earlier.population.prior.conditions if earlier else (),
        )
        course = fit_time_course(z_NKD, table, population, autoencoder, run)
        states, state_N, noise_history = train_from_noise(
            flow, z_NKD, table, population, run, watch, of_flow("noise")
        )
    weight = complete_weight(verdict, weight)
    with quietly(not run.trainer_arguments.get("enable_progress_bar", True)):
        fitted = fit_calibrations(
            cells,
            table,
            population,
            autoencoder,
            states,
            state_N,
            run.seed,
            NetworkShare(flow, weight),
            new_cells=run.config.new_cells,
        )
    warn_uninformative(design.features, population.prior.uninformative)
    warn_of_tables(population.prior.elsewhere)
    return Trained(
        design.fields,
        cells.genes,
        autoencoder,
        population,
        flow,
        weight,
        dict(zip(table.conditions, table.counts.tolist(), strict=True)),
        design.features,
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


def estimate(
    z_NKD: Tensor | LatentFile,
    table: ConditionTable,
    autoencoder: Autoencoder,
    design: Design,
    seed: int,
    earlier: Trained | None,
) -> Population:
    """Simple estimates from latents of all cells, beside those of an earlier model."""
    loadings_FG = autoencoder.decoder.loadings.detach().double().numpy()
    prior = fit_prior(
        z_NKD,
        table,
        features=design.features,
        tables=design.effects,
        loadings_FG=loadings_FG,
        seed=seed,
    )
    if earlier is None:
        return Population.fit(z_NKD, table, prior)
    before = earlier.population
    own = Population.fit(z_NKD, table, joined(prior, before.prior, seed))
    return replace(
        own,
        references={**before.references, **own.references},
        factors={**before.factors, **own.factors},
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
    if not isinstance(network, DiTConfig) or network.tokens == "latent":
        return None
    if network.tokens == "random":
        n_dims = autoencoder.n_tokens * autoencoder.token_dim
        return TokenViews.random(network.n_views, n_dims, network.view_values, seed)
    return fit_views(autoencoder, cells, network.n_views, network.view_values, seed)
