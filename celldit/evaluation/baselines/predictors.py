"""The simple predictors: every control cell is moved by one shift, and each says which."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Self

import numpy as np

from celldit.arguments import check_known
from celldit.data.cells import Cells
from celldit.data.labels.labels import canonical, parts
from celldit.data.symbols import columns_of
from celldit.errors import InputError, NotTrainedError, UnknownNameError
from celldit.evaluation.baselines.effects import Effects, measure_effects
from celldit.evaluation.baselines.ridge import RidgeFit, fit_ridge
from celldit.evaluation.representation import fit_components


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
        """The mean shifts of the trained conditions; NotTrainedError before :meth:`fit`."""
        if self._effects is None:
            raise NotTrainedError(f"{type(self).__name__} is not fitted; call fit(train) first.")
        return self._effects

    def fit(self, train: Cells) -> Self:
        """Learn from N training cells; every context with perturbed cells needs control cells.

        InputError if there are no perturbed cells, or no control cells beside them.
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
        """Predict the mean shift in log expression, float64, shape (G,); that of the control is 0.

        `perturbation` is a label, such as ``"A"`` or ``"A+B"``; `context` holds covariate values
        joined with ``" | "``, and need not have been trained on. UnknownNameError if the baseline
        knows nothing of this perturbation; NotTrainedError before :meth:`fit`.
        """
        label = canonical(perturbation, self.perturbation_sep, self._control)
        if label == self._control:
            return np.zeros(len(self.effects.genes))
        return self._shift(label, context)

    def predict(self, controls: Cells, perturbation: str) -> np.ndarray:
        """Move N control cells, of the genes of training, by the shift of their contexts.

        Log expression comes back, log(1 + 10,000 counts / size factor), float32, shape (N, G);
        linear, so values below 0 occur. InputError if the genes are not those of the training data;
        UnknownNameError if the baseline knows nothing of this perturbation.
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


class NoChange(Baseline):
    """Every perturbation leaves the cells as they are."""

    name = "no change"

    def _shift(self, perturbation: str, context: str) -> np.ndarray:
        return np.zeros(len(self.effects.genes))


class MeanShift(Baseline):
    """Every perturbation does what the trained ones did on average, weighted by cells."""

    name = "mean shift"

    def _shift(self, perturbation: str, context: str) -> np.ndarray:
        return self.effects.average(np.arange(len(self.effects.perturbations)))


class MajorityVote(Baseline):
    """Every gene does what it does in most perturbations: the median of the trained shifts.

    Its sign is that of the majority; a gene that most perturbations leave alone stays where it is,
    which a mean does not manage.
    """

    name = "majority vote"
    _median: np.ndarray

    def _fit(self, train: Cells) -> None:
        self._median = np.median(self.effects.shifts, axis=0)

    def _shift(self, perturbation: str, context: str) -> np.ndarray:
        return self._median


class Additive(Baseline):
    """Weighted ridge regression of the mean shifts on the multi-hot design of perturbations.

    One row for each (perturbation, context), weighted by its number of cells; the strength of the
    ridge by leaving one condition out. Contexts share the effects, so that a context never seen
    perturbed can be predicted.
    """

    name = "additive"

    columns: dict[str, int]
    ridge: RidgeFit

    def _fit(self, train: Cells) -> None:
        labels = [self._parts(p) for p in self.effects.perturbations]
        self.columns = {part: i for i, part in enumerate(sorted({q for ps in labels for q in ps}))}
        design_EP = np.zeros((len(labels), len(self.columns)))
        for row, label in enumerate(labels):
            design_EP[row, [self.columns[part] for part in label]] = 1.0
        self.ridge = fit_ridge(design_EP, self.effects.shifts, self.effects.n_cells)

    def _shift(self, perturbation: str, context: str) -> np.ndarray:
        total_G = np.zeros(len(self.effects.genes))
        for part in self._parts(perturbation):
            check_known([part], self.columns, "perturbation")
            total_G += self.ridge.coefficients[self.columns[part]]
        return total_G


class NearestPerturbation(Baseline):
    """The effect of the most similar trained perturbation.

    Similarity is the share of parts in common (Jaccard). A trained perturbation is nearest to
    itself. Of the nearest, those in the context asked for count, or else all, averaged with their
    numbers of cells as weights.
    """

    name = "nearest perturbation"

    def _shift(self, perturbation: str, context: str) -> np.ndarray:
        labels = list(dict.fromkeys(self.effects.perturbations))
        nearest = [perturbation]
        if perturbation not in labels:
            similarity = np.array([self._similarity(perturbation, label) for label in labels])
            if similarity.max() <= 0:
                raise UnknownNameError.among(
                    "perturbation without a part in common with trained ones:",
                    perturbation,
                    labels,
                )
            ties = np.isclose(similarity, similarity.max(), rtol=1e-9, atol=1e-12)
            nearest = [labels[i] for i in np.flatnonzero(ties)]
        rows = np.concatenate([self.effects.find(label, context) for label in nearest])
        if rows.size == 0:
            rows = np.concatenate([self.effects.find(label) for label in nearest])
        return self.effects.average(rows)

    def _similarity(self, one: str, other: str) -> float:
        a, b = set(self._parts(one)), set(self._parts(other))
        return len(a & b) / len(a | b)


class LatentArithmetic(Baseline):
    """Mean latent difference between perturbed and control cells, added to control cells.

    After scGen (Lotfollahi et al. 2019), with 50 principal components in place of its autoencoder:
    every context counts the same, however many cells it has. A combination that was not trained on
    gets the differences of its parts, added up. The difference alone is decoded and added to the
    measured control cell, so the bias of the decoder cancels.
    """

    name = "latent arithmetic"

    directions: np.ndarray

    def _fit(self, train: Cells) -> None:
        self.directions = fit_components(train.log_normalized()).components_

    def _shift(self, perturbation: str, context: str) -> np.ndarray:
        known = dict.fromkeys(self.effects.perturbations)
        mean_G = np.zeros(len(self.effects.genes))
        for label in [perturbation] if perturbation in known else self._parts(perturbation):
            check_known([label], known, "perturbation")
            mean_G += self.effects.shifts[self.effects.find(label)].mean(axis=0)
        # A linear encoder: the difference of mean latents is the latent of the mean difference.
        return (self.directions @ mean_G) @ self.directions


class ControlCovariance(Baseline):
    """Genes move with the perturbed gene as they vary with it among control cells.

    The shift of a perturbation of gene g is ``a cov(x, x_g) / sd(x_g)``, with one number a for all
    perturbations, from least squares over the trained ones. A combination is the sum of its parts.
    Covariances are within contexts, averaged over cells.
    """

    name = "covariance of controls"

    _log: np.ndarray
    _scale: float

    def _fit(self, train: Cells) -> None:
        base = train.take(np.flatnonzero(train.is_control))
        log_KG = base.log_normalized().toarray().astype(np.float64)
        for context in dict.fromkeys(base.contexts):
            rows = base.contexts == context
            log_KG[rows] -= log_KG[rows].mean(axis=0)
        self._log = log_KG
        top = bottom = 0.0
        known = columns_of(
            (part for label in self.effects.perturbations for part in self._parts(label)),
            self.effects.genes,
        )
        for row, label in enumerate(self.effects.perturbations):
            if all(part in known for part in self._parts(label)):
                direction_G = self._direction(label)
                top += float(self.effects.n_cells[row] * (direction_G @ self.effects.shifts[row]))
                bottom += float(self.effects.n_cells[row] * (direction_G @ direction_G))
        if bottom == 0:
            raise InputError(
                "No trained perturbation names a gene that was measured, so the covariance of "
                "control cells says nothing of what perturbations do; use another baseline."
            )
        self._scale = top / bottom

    def _shift(self, perturbation: str, context: str) -> np.ndarray:
        return self._scale * self._direction(perturbation)

    def _direction(self, perturbation: str) -> np.ndarray:
        """Covariance of all genes with the perturbed ones, in units of these, shape (G,)."""
        total_G = np.zeros(len(self.effects.genes))
        named = self._parts(perturbation)
        columns = columns_of(named, self.effects.genes)
        for part in named:
            if part not in columns:
                raise UnknownNameError.among("gene", part, self.effects.genes)
            own_K = self._log[:, columns[part]]
            spread = float(own_K.std())
            if spread > 0:
                total_G += own_K @ self._log / (len(own_K) * spread)
        return total_G
