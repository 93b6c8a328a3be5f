"""Both stages of training, one after the other."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from celldit.conditions import ConditionTable, EffectPrior
from celldit.conditions.extrapolation import Extrapolation
from celldit.conditions.population import Population
from celldit.conditions.trust import Trust
from celldit.data.cells import Cells
from celldit.errors import InputError, closest
from celldit.flow.anchored import AnchoredFlow, NetworkConfig
from celldit.latent.autoencoder import Autoencoder, LatentConfig
from celldit.tokenizers import Tokenizer
from celldit.training.config import TrainingConfig
from celldit.training.flow_stage import train_flow
from celldit.training.latent_stage import train_latent
from celldit.training.progress import StageProgress
from celldit.training.trust import Verdict

Features = Mapping[str, tuple[tuple[str, ...], np.ndarray]]


@dataclass(frozen=True, eq=False)
class Fitted:
    """What training produces.

    Attributes
    ----------
    autoencoder, population, flow
        The trained parts.
    trust
        How much of the flow's displacement each kind of extrapolation deserves.
    history
        For each stage, one dictionary per epoch.
    """

    autoencoder: Autoencoder
    population: Population
    flow: AnchoredFlow
    trust: dict[Extrapolation, Trust]
    history: dict[str, list[dict[str, float]]]


def check_trainer_arguments(arguments: Mapping[str, Any]) -> None:
    """Refuse names that :class:`lightning.pytorch.Trainer` does not know.

    Raises
    ------
    InputError
        Naming the closest that it knows.
    """
    known = set(inspect.signature(pl.Trainer).parameters) - {"self", "max_epochs"}
    for name in arguments:
        if name not in known:
            near = closest(name, sorted(known))
            hint = f"; did you mean {near!r}?" if near else "."
            raise InputError(f"train() and lightning's Trainer have no argument {name!r}{hint}")


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning's advice out of a biologist's notebook; its errors still come through."""
    loggers = [
        logging.getLogger(name)
        for name in (
            "lightning.pytorch",
            "lightning.fabric",
            "lightning.pytorch.utilities.rank_zero",
        )
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # Batches are assembled in memory faster than worker processes could hand them over.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*IterableDataset.*")
        warnings.filterwarnings("ignore", message=".*GPU available but not used.*")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        # The moving average of the weights is never trained, so it stays in evaluation mode.
        warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def trainer_defaults(arguments: Mapping[str, Any], stage: str) -> dict[str, Any]:
    """The user's Trainer arguments over celldit's defaults, with a progress bar per stage."""
    defaults: dict[str, Any] = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "log_every_n_steps": 10,
        "gradient_clip_val": 1.0,
    }
    merged = {**defaults, **arguments}
    callbacks = merged.get("callbacks") or []
    callbacks = list(callbacks) if isinstance(callbacks, (list, tuple)) else [callbacks]
    if merged.get("enable_progress_bar", True):
        callbacks.append(StageProgress(stage))
    merged["callbacks"] = callbacks
    return merged


def complete_trust(verdict: Verdict) -> dict[Extrapolation, Trust]:
    """Trust for every kind of extrapolation; an untried kind gets the least of those tried.

    Without any trial (a single condition with too few cells) the flow is not trusted at all.
    """
    tried = verdict.trust.values()
    least = Trust(
        min((trust.shift for trust in tried), default=0.0),
        min((trust.cells for trust in tried), default=0.0),
    )
    return {kind: verdict.trust.get(kind, least) for kind in Extrapolation}


def fit(
    cells: Cells,
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
    """
    with quiet_lightning():
        autoencoder = Autoencoder.start(cells, tokenizer.fit(cells), latent, seed)
        latent_history = train_latent(
            autoencoder,
            cells,
            config,
            max_epochs=max_epochs,
            seed=seed,
            trainer_arguments=trainer_defaults(trainer_arguments, "latent"),
        )
        autoencoder.cpu()
        z_NKD: Tensor = autoencoder.encode(cells)
        table = ConditionTable.from_cells(cells, sep)
        z_NF = z_NKD.flatten(1).double().numpy()
        prior = EffectPrior.fit(z_NF, table, features=features, seed=seed)
        population = Population.fit(z_NF, cells.size_factors, table, prior)

        def make_flow() -> AnchoredFlow:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                n_contexts = len(population.contexts)
                return AnchoredFlow(autoencoder.n_tokens, autoencoder.token_dim, dit, n_contexts)

        flow, verdict, flow_history = train_flow(
            make_flow,
            z_NKD,
            table,
            population,
            config,
            max_epochs=max_epochs,
            seed=seed,
            trainer_arguments=lambda name: trainer_defaults(trainer_arguments, name),
        )
        flow.cpu()
    return Fitted(
        autoencoder,
        population,
        flow,
        complete_trust(verdict),
        {"latent": latent_history, "flow": flow_history},
    )
