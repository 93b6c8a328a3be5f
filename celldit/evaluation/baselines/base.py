"""What all baselines have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Self

import numpy as np

from celldit.data.cells import Cells
from celldit.data.labels.labels import canonical, parts
from celldit.errors import InputError, NotTrainedError
from celldit.evaluation.baselines.effects import Effects, measure_effects


class Baseline(ABC):
    """A simple predictor: every control cell is moved by the same shift.

    A subclass says how the shift comes about. Predictions are log expression and stay linear: they
    may fall below zero, which clipping would hide and which would bias the mean shift that the
    baseline is about.

    Parameters
    ----------
    perturbation_sep
        What stands between two perturbations of one cell.
    """

    name: ClassVar[str]

    def __init__(self, *, perturbation_sep: str = "+") -> None:
        self.perturbation_sep = perturbation_sep
        self._effects: Effects | None = None
        self._control = "control"

    @property
    def effects(self) -> Effects:
        """The mean shifts of the trained conditions.

        Raises
        ------
        NotTrainedError
            Before :meth:`fit`.
        """
        if self._effects is None:
            raise NotTrainedError(f"{type(self).__name__} is not fitted; call fit(train) first.")
        return self._effects

    def fit(self, train: Cells) -> Self:
        """Learn from training cells, controls included.

        Parameters
        ----------
        train
            N cells; every context with perturbed cells needs control cells.

        Returns
        -------
        The baseline itself.

        Raises
        ------
        InputError
            If there are no perturbed cells, or no control cells beside them.
        """
        self._effects = measure_effects(train)
        self._control = train.control
        self._fit(train)
        return self

    def _fit(self, train: Cells) -> None:  # noqa: B027 (not every baseline learns more)
        pass

    @abstractmethod
    def _shift(self, perturbation: str, context: str) -> np.ndarray:
        """Shift of a perturbation with a canonical label that is not the control, shape (G,)."""

    def shift(self, perturbation: str, context: str = "") -> np.ndarray:
        """Predicted mean shift in log expression.

        Parameters
        ----------
        perturbation
            Label, such as ``"A"`` or ``"A+B"``; the control does not shift.
        context
            Covariate values joined with ``" | "``; it need not have been trained on.

        Returns
        -------
        numpy.ndarray of float64, shape (G,)

        Raises
        ------
        UnknownNameError
            If the baseline knows nothing of this perturbation.
        NotTrainedError
            Before :meth:`fit`.
        """
        label = canonical(perturbation, self.perturbation_sep, self._control)
        if label == self._control:
            return np.zeros(len(self.effects.genes))
        return self._shift(label, context)

    def predict(self, controls: Cells, perturbation: str) -> np.ndarray:
        """Move control cells by the shift of their contexts.

        Parameters
        ----------
        controls
            N control cells with the genes of the training data.
        perturbation
            Label, as in :meth:`shift`.

        Returns
        -------
        numpy.ndarray of float32, shape (N, G)
            Log expression, log(1 + 10,000 counts / size factor); linear, so values below 0 occur.

        Raises
        ------
        InputError
            If the genes are not those of the training data.
        UnknownNameError
            If the baseline knows nothing of this perturbation.
        """
        if controls.genes != self.effects.genes:
            raise InputError(
                "The genes of the control cells are not those of the training cells; read them "
                "with Cells.from_anndata(adata, fields, genes=train.genes)."
            )
        shifts = {c: self.shift(perturbation, str(c)) for c in dict.fromkeys(controls.contexts)}
        moved_NG = controls.log_normalized().toarray()
        for context, shift_G in shifts.items():
            moved_NG[controls.contexts == context] += shift_G.astype(np.float32)
        return moved_NG

    def _parts(self, label: str) -> tuple[str, ...]:
        return parts(label, self.perturbation_sep, self._control)
