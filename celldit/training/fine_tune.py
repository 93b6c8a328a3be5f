"""Go on from a trained model with other data: other genes, perturbations, contexts.

The latent space stays that of the trained model: its encoder is carried over by the names of the
genes and not trained again, so that what the flow learned still holds. The decoder learns the new
data from there. The effect prior keeps every effect that was observed before and takes the new ones
beside them; the flow starts at its trained weights.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from celldit.conditions import ConditionTable
from celldit.conditions.extrapolation import Extrapolation
from celldit.conditions.population import Population
from celldit.data.fields import Fields
from celldit.data.store import CellStore
from celldit.effects import EffectPrior
from celldit.errors import InputError
from celldit.flow.anchored import AnchoredFlow
from celldit.latent.autoencoder import Autoencoder
from celldit.latent.transfer import GeneMatch, match_autoencoder
from celldit.memory import give_back
from celldit.training.autoencoder.fit import read_autoencoder, write_autoencoder
from celldit.training.autoencoder.stage import train_latent
from celldit.training.config import TrainingConfig
from celldit.training.devices.cuda import is_large
from celldit.training.devices.parallel import device_of
from celldit.training.finite import FiniteLoss
from celldit.training.fit import Features, Fitted
from celldit.training.flow_stage import train_flow
from celldit.training.latents import encoded_once
from celldit.training.noise_stage import fit_states_and_train
from celldit.training.saving.checkpoints import Checkpoints
from celldit.training.time_stage import fit_time_course
from celldit.training.trainer import halves_on_cuda, quiet_lightning, trainer_defaults

# Weights that are good already are moved by smaller steps than new ones.
GENTLE = TrainingConfig(latent_rate=5e-4, flow_rate=3e-4)


def check_fields(trained: Fields, given: Fields) -> None:
    """Refuse data whose conditions are not of the kind that the model knows.

    Raises
    ------
    InputError
        Naming the field.
    """
    n_trained, n_given = len(trained.covariate_keys), len(given.covariate_keys)
    if n_trained != n_given:
        raise InputError(
            f"The model was trained with {n_trained} covariates {list(trained.covariate_keys)}, "
            f"these data were set up with {n_given} {list(given.covariate_keys)}; set them up with "
            "as many, in the same order."
        )
    for name in ("dose_key", "time_key"):
        if (getattr(trained, name) is None) != (getattr(given, name) is None):
            has, lacks = ("has", "have none")
            if getattr(trained, name) is None:
                has, lacks = ("has no", "have one")
            raise InputError(
                f"The model {has} {name}, these data {lacks}; set them up alike, or train a new "
                "model."
            )


def fine_tune(
    cells: CellStore,
    autoencoder: Autoencoder,
    population: Population,
    flow: AnchoredFlow,
    weight: Mapping[Extrapolation, float],
    config: TrainingConfig,
    *,
    sep: str,
    features: Features | None,
    max_epochs: int | None,
    seed: int,
    min_overlap: float,
    trainer_arguments: Mapping[str, Any],
    checkpoints: Checkpoints | None = None,
) -> tuple[Fitted, GeneMatch]:
    """Train both stages on new cells, from a trained model.

    Parameters
    ----------
    cells
        The new training cells.
    autoencoder, population, flow, weight
        The trained parts, which are not changed.
    config
        Settings.
    sep, features, max_epochs, seed, trainer_arguments, checkpoints
        As in :func:`celldit.training.fit.fit`.
    min_overlap
        Least share of the model's genes that the cells must have.

    Returns
    -------
    fitted, match
        The new parts, and how the genes correspond.

    Raises
    ------
    InputError
        If too few genes are shared, or the network has an embedding of the old contexts.
    """
    if getattr(flow.config, "context_embedding", False):
        raise InputError(
            "This model has context_embedding=True, an embedding of the contexts it was trained "
            "on, so it cannot go on with others; train one without, which is the default."
        )
    watch = FiniteLoss(cells, None if checkpoints is None else checkpoints.folder)
    trainer_arguments = watch.added_to(trainer_arguments)
    with quiet_lightning():
        matched, match = match_autoencoder(
            autoencoder, cells.genes, cells=cells, min_overlap=min_overlap
        )
        part = None if checkpoints is None else checkpoints.part("latent")
        finished = None if part is None else part.finished()
        if finished is not None:
            matched, latent_history = read_autoencoder(finished, cells.genes)
        else:
            latent_history = train_latent(
                matched,
                cells,
                config,
                max_epochs=max_epochs,
                seed=seed,
                trainer_arguments=trainer_defaults(trainer_arguments, "latent"),
                part=part,
                keep_encoder=True,
            )
            if part is not None:
                part.finish(write_autoencoder(matched, latent_history))
        matched.cpu()
        table = ConditionTable.from_cells(cells, sep)
        with encoded_once(matched, cells) as z_NKD:
            watch.latents = z_NKD
            give_back()
            joined = join(population, z_NKD, cells, table, features, seed)

            def of_flow(stage: str) -> dict[str, Any]:
                half = is_large(flow, config.flow_batch)
                return trainer_defaults(trainer_arguments, stage, half=half)

            new_flow, verdict, flow_history = train_flow(
                lambda: copy.deepcopy(flow).train(),
                z_NKD,
                table,
                joined,
                config,
                matched.scale.detach(),
                max_epochs=max_epochs,
                seed=seed,
                trainer_arguments=of_flow,
                checkpoints=checkpoints,
                # The trained flow has seen these; they do not say what it does with others.
                never_hold_out=population.prior.conditions,
            )
            course = fit_time_course(
                z_NKD,
                table,
                joined,
                matched,
                config,
                max_epochs=max_epochs,
                seed=seed,
                shown=bool(trainer_arguments.get("enable_progress_bar", True)),
            )
            own_states, state_N, noise_history = fit_states_and_train(
                new_flow,
                z_NKD,
                table,
                joined,
                config,
                max_epochs=max_epochs,
                seed=seed,
                watch=watch,
                device=device_of(trainer_arguments),
                half=halves_on_cuda(of_flow("noise")),
            )
    history = {"latent": latent_history, "flow": flow_history, "noise": noise_history}
    weights = {**weight, **verdict.weight}
    return Fitted(matched, joined, new_flow, own_states, state_N, weights, history, course), match


def join(
    earlier: Population,
    z_NF: Any,
    cells: CellStore,
    table: ConditionTable,
    features: Features | None,
    seed: int,
) -> Population:
    """Simple estimates from new cells, together with those from before.

    Contexts that are in both are described by the new cells.
    """
    prior = EffectPrior.fit(z_NF, table, features=features, seed=seed)
    prior = prior.with_earlier(earlier.prior, seed)
    new = Population.fit(z_NF, cells.size_factors, table, prior)
    return replace(
        new,
        references={**earlier.references, **new.references},
        factors={**earlier.factors, **new.factors},
    )
