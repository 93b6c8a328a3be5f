"""Both stages of training, one after the other."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from celldit.arguments import check_path
from celldit.calibration.network_share import NetworkShare
from celldit.calibration.stacking import Verdict
from celldit.calibration.time_course import TimeCourse
from celldit.conditions import ConditionTable
from celldit.conditions.extrapolation import Extrapolation
from celldit.conditions.population import Population
from celldit.conditions.states import States
from celldit.data.store import CellStore
from celldit.effects import EffectPrior
from celldit.effects.features.features import to_arrays
from celldit.flow.anchored import AnchoredFlow, NetworkConfig, needs_views, network_to_dict
from celldit.io.locks import sole_writer
from celldit.latent.autoencoder import Autoencoder, LatentConfig
from celldit.latent.pretrained import BorrowedAutoencoder
from celldit.latent.views import fit_views
from celldit.memory import give_back
from celldit.nn.dit import DiTConfig
from celldit.nn.views import TokenViews
from celldit.tokenizers import Tokenizer
from celldit.training.autoencoder.fit import fit_autoencoder
from celldit.training.config import TrainingConfig
from celldit.training.devices.cuda import is_large
from celldit.training.devices.parallel import device_of
from celldit.training.finite import FiniteLoss
from celldit.training.flow_stage import train_flow
from celldit.training.latents import encoded_once
from celldit.training.noise_stage import fit_states_and_train
from celldit.training.saving.checkpoints import (
    Checkpoints,
    check_minutes,
    identity_of,
    is_main_process,
    settings_of,
)
from celldit.training.time_stage import fit_time_course
from celldit.training.trainer import halves_on_cuda, quiet_lightning, trainer_defaults

Features = Mapping[str, tuple[tuple[str, ...], np.ndarray]]

# Arguments of Lightning's Trainer that change where training ends, not only how fast.
MATTERS = (
    "accumulate_grad_batches",
    "gradient_clip_algorithm",
    "gradient_clip_val",
    "limit_train_batches",
    "max_steps",
    "precision",
)


@dataclass(frozen=True, eq=False)
class Fitted:
    """What training produces.

    Attributes
    ----------
    autoencoder, population, flow
        The trained parts.
    states, state_N
        States that cells of each context may be in, and that of each training cell.
    weight
        Share of the network's displacement to use for each kind of extrapolation.
    history
        For each stage, one dictionary per epoch.
    time_course
        How cells get from one time to another; None without times.
    """

    autoencoder: Autoencoder
    population: Population
    flow: AnchoredFlow
    states: States
    state_N: np.ndarray
    weight: dict[Extrapolation, float]
    history: dict[str, list[dict[str, float]]]
    time_course: TimeCourse | None = None

    @property
    def network(self) -> NetworkShare:
        """The network and how much of it is used."""
        return NetworkShare(self.flow, self.weight, self.population.contexts)


def complete_weight(verdict: Verdict) -> dict[Extrapolation, float]:
    """The weight for every kind of extrapolation; the network is not used for what was not tried.

    What it learned of cells it has seen says nothing of contexts and perturbations that are new:
    with one perturbed context there is none to hold out.
    """
    weight = {kind: verdict.weight.get(kind, 0.0) for kind in Extrapolation}
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


@contextmanager
def open_checkpoints(
    folder: str | os.PathLike[str] | None,
    minutes: float,
    cells: CellStore,
    tokenizer: Tokenizer,
    latent: LatentConfig,
    dit: NetworkConfig,
    config: TrainingConfig,
    *,
    features: Features | None,
    max_epochs: int | None,
    seed: int,
    trainer_arguments: Mapping[str, Any],
    start: str = "new",
) -> Iterator[Checkpoints | None]:
    """Hold a folder of checkpoints for exactly this training, from a `start`: a model's name.

    Raises
    ------
    InputError
        If what is in the folder belongs to another training; says what differs.
    FileError
        If the folder cannot be used, or another process trains into it.
    """
    check_minutes(minutes)
    if folder is None:
        yield None
        return
    check_path(folder)
    settings = {
        "start": start,
        "seed": seed,
        "max_epochs": max_epochs,
        "tokenizer": settings_of(tokenizer),
        "latent": asdict(latent),
        "network": network_to_dict(dit),
        "config": asdict(config),
        "trainer": {name: trainer_arguments.get(name) for name in MATTERS},
    }
    # Of several processes of one training only the first writes, and holds the folder for all.
    with sole_writer(folder, inside=True) if is_main_process() else nullcontext():
        yield Checkpoints(folder, minutes, identity_of(cells, settings, to_arrays(features or {})))


def fit(
    cells: CellStore,
    tokenizer: Tokenizer,
    latent: LatentConfig,
    dit: NetworkConfig,
    config: TrainingConfig,
    *,
    sep: str,
    features: Features | None,
    max_epochs: int | None,
    seed: int,
    trainer_arguments: Mapping[str, Any],
    checkpoints: Checkpoints | None = None,
    borrowed: BorrowedAutoencoder | None = None,
) -> Fitted:
    """Train both stages on training cells.

    Parameters
    ----------
    cells
        Training cells; nothing else is looked at.
    tokenizer
        Unfitted.
    latent, dit, config
        Shapes and settings.
    sep
        Separator of perturbation labels.
    features
        Features of perturbations by source.
    max_epochs
        Bound on the epochs of each stage.
    seed
        Of everything random.
    trainer_arguments
        Checked arguments for Lightning's Trainer.
    checkpoints
        Where training keeps its state, and finds that of an earlier call; None for nowhere.
    borrowed
        Another model's autoencoder that stage one starts from; None for the linear start.
    """
    watch = FiniteLoss(cells, None if checkpoints is None else checkpoints.folder)
    trainer_arguments = watch.added_to(trainer_arguments)
    give_back()
    with quiet_lightning():
        autoencoder, latent_history = fit_autoencoder(
            cells,
            tokenizer,
            latent,
            config,
            borrowed=borrowed,
            max_epochs=max_epochs,
            seed=seed,
            trainer_arguments=trainer_defaults(trainer_arguments, "latent"),
            part=None if checkpoints is None else checkpoints.part("latent"),
        )
        give_back()
        table = ConditionTable.from_cells(cells, sep)
        views = views_for(dit, autoencoder, cells, seed)

        def make_flow() -> AnchoredFlow:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                n_contexts = len(population.contexts)
                shape = autoencoder.n_tokens, autoencoder.token_dim
                return AnchoredFlow(*shape, dit, n_contexts, views)

        def of_flow(stage: str) -> dict[str, Any]:
            with torch.device("meta"):  # for its size alone
                half = is_large(make_flow(), config.flow_batch)
            return trainer_defaults(trainer_arguments, stage, half=half)

        with encoded_once(autoencoder, cells) as z_NKD:
            watch.latents = z_NKD
            give_back()
            prior = EffectPrior.fit(z_NKD, table, features=features, seed=seed)
            population = Population.fit(z_NKD, cells.size_factors, table, prior)
            flow, verdict, flow_history = train_flow(
                make_flow,
                z_NKD,
                table,
                population,
                config,
                autoencoder.scale.detach().cpu(),
                max_epochs=max_epochs,
                seed=seed,
                trainer_arguments=of_flow,
                checkpoints=checkpoints,
            )
            course = fit_time_course(
                z_NKD,
                table,
                population,
                autoencoder,
                config,
                max_epochs=max_epochs,
                seed=seed,
                shown=bool(trainer_arguments.get("enable_progress_bar", True)),
            )
            states, state_N, noise_history = fit_states_and_train(
                flow,
                z_NKD,
                table,
                population,
                config,
                max_epochs=max_epochs,
                seed=seed,
                watch=watch,
                device=device_of(trainer_arguments),
                half=halves_on_cuda(of_flow("noise")),
            )
    return Fitted(
        autoencoder,
        population,
        flow,
        states,
        state_N,
        complete_weight(verdict),
        {"latent": latent_history, "flow": flow_history, "noise": noise_history},
        course,
    )
