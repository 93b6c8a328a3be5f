"""Vector arithmetic in a latent space."""

from __future__ import annotations

import numpy as np

from celldit.data.cells import Cells
from celldit.errors import UnknownNameError
from celldit.evaluation.baselines.base import Baseline
from celldit.evaluation.representation import PrincipalComponents


class LatentArithmetic(Baseline):
    """Mean latent difference between perturbed and control cells, added to control cells.

    After scGen (Lotfollahi et al. 2019), with 50 principal components in place of its autoencoder:
    every context counts the same, however many cells it has. A combination that was not trained on
    gets the differences of its parts, added up. The difference alone is decoded and added to the
    measured control cell, so the bias of the decoder cancels.
    """

    name = "latent arithmetic"

    components: PrincipalComponents

    def _fit(self, train: Cells) -> None:
        self.components = PrincipalComponents.fit(train.log_normalized())

    def _shift(self, perturbation: str, context: str) -> np.ndarray:
        components_DG = self.components.components_DG
        mean_G = np.zeros(len(self.effects.genes))
        rows = self.effects.find(perturbation)
        if rows.size:
            mean_G += self.effects.shifts[rows].mean(axis=0)
        else:
            for part in self._parts(perturbation):
                rows = self.effects.find(part)
                if rows.size == 0:
                    known = dict.fromkeys(self.effects.perturbations)
                    raise UnknownNameError.among("perturbation", part, known)
                mean_G += self.effects.shifts[rows].mean(axis=0)
        # A linear encoder: the difference of mean latents is the latent of the mean difference.
        return (components_DG @ mean_G) @ components_DG
