"""Settings of sampling that every request has."""

from __future__ import annotations

from dataclasses import dataclass, field

from celldit.arguments import check_seed, check_whole
from celldit.errors import InputError
from celldit.inference.solver import SolverConfig
from celldit.training.trained import Trained


@dataclass(frozen=True)
class SamplingOptions:
    """How cells are sampled, whatever is asked; InputError if a number cannot be used."""

    config: SolverConfig = field(default_factory=SolverConfig)
    seed: int = 0  # of everything drawn
    batch_size: int = 512  # cells handed on at a time

    def __post_init__(self) -> None:
        check_whole(self.batch_size, "batch_size")
        check_seed(self.seed)

    def usable_by(self, trained: Trained) -> SamplingOptions:
        """Themselves, if a model can follow them.

        InputError if there is guidance, and training withheld no conditions.
        """
        guidance = self.config.guidance
        if guidance != 1 and not trained.drops_conditions:
            raise InputError(
                f"guidance={guidance:g} needs a model trained with conditions withheld; "
                "train with config=TrainingConfig(drop_condition=0.1), or use guidance=1."
            )
        return self
