"""What is trained, and how: the arguments of ``CellDiT(...)`` and of ``train(...)``, checked."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

from celldit.arguments import check_kind, check_number, check_path, check_seed, check_whole
from celldit.data.fields import Fields
from celldit.data.store import CellStore
from celldit.effects.features.features import Features, to_arrays
from celldit.effects.tables.matching import MatchedTable
from celldit.flow.anchored import NetworkConfig, network_to_dict
from celldit.io.locks import sole_writer
from celldit.latent.config import LatentConfig
from celldit.latent.transfer import BorrowedAutoencoder
from celldit.tokenizers import Tokenizer
from celldit.training.config import TrainingConfig
from celldit.training.saving.checkpoints import (
    Checkpoints,
    identity_of,
    is_main_process,
    settings_of,
)

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
class Design:
    """A model before it is trained."""

    fields: Fields  # meaning of the columns
    tokenizer: Tokenizer  # not fitted yet, as are latent and network
    latent: LatentConfig
    network: NetworkConfig
    features: Features  # features of perturbations by source
    # Another model's autoencoder, or None for a new one.
    borrowed: BorrowedAutoencoder | None = None
    # Measured elsewhere, by source.
    effects: Mapping[str, MatchedTable] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Run:
    """One training."""

    max_epochs: int | None  # bound on the epochs of each stage; None for none
    seed: int  # of everything random
    config: TrainingConfig
    trainer_arguments: Mapping[str, Any]  # for lightning's Trainer
    # Folder for checkpoints, and minutes between two of them.
    checkpoint_dir: str | os.PathLike[str] | None = None
    checkpoint_minutes: float = 10.0

    def __post_init__(self) -> None:
        # Imports lightning, which takes seconds; a model that only predicts never needs it.
        from celldit.training.loop.trainer import check_trainer_arguments

        check_trainer_arguments(self.trainer_arguments)
        if self.max_epochs is not None:
            check_whole(self.max_epochs, "max_epochs", 0)
        check_seed(self.seed)
        check_kind(self.config, TrainingConfig, "config", "a TrainingConfig")
        check_number(self.checkpoint_minutes, "checkpoint_minutes")

    def to_dict(self) -> dict[str, Any]:
        """For a model's record of its training."""
        return {
            "seed": self.seed,
            "max_epochs": self.max_epochs,
            "config": asdict(self.config),
        }

    @contextmanager
    def checkpoints(
        self, cells: CellStore, design: Design, start: str = "new"
    ) -> Iterator[Checkpoints | None]:
        """Hold the folder of checkpoints for exactly this training, from a `start`: a model's name.

        InputError if what is in the folder belongs to another training; says what differs.
        FileError if the folder cannot be used, or another process trains into it.
        """
        folder = self.checkpoint_dir
        if folder is None:
            yield None
            return
        check_path(folder)
        settings = {
            "start": start,
            "seed": self.seed,
            "max_epochs": self.max_epochs,
            "tokenizer": settings_of(design.tokenizer),
            "latent": asdict(design.latent),
            "network": network_to_dict(design.network),
            "config": asdict(self.config),
            "trainer": {name: self.trainer_arguments.get(name) for name in MATTERS},
        }
        if design.effects:
            settings["effects"] = {name: t.table.identity() for name, t in design.effects.items()}
        identity = identity_of(cells, settings, to_arrays(design.features))
        # Of several processes of one training only the first writes, and holds the folder for all.
        with sole_writer(folder, inside=True) if is_main_process() else nullcontext():
            yield Checkpoints(folder, self.checkpoint_minutes, identity)
