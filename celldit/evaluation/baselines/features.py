"""Features of perturbations (of genes they act on, or of drugs), and a regression on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from celldit.data.cells import Cells
from celldit.errors import InputError, UnknownNameError, closest, examples
from celldit.evaluation.baselines.base import Baseline
from celldit.evaluation.baselines.ridge import RidgeFit, fit_ridge

# A column this large is not shrunk in practice: the mean effect of one perturbation.
INTERCEPT = 1e3


class FeatureRidge(Baseline):
    """Weighted ridge regression of the mean shifts on features of the perturbed genes or drugs.

    The features of a combination are the sum over its parts, beside a number of parts that is not
    shrunk, so that without informative features every part gets the mean effect. The strength is
    chosen by leaving one perturbation out, with all its contexts.

    Parameters
    ----------
    features
        A vector of F numbers for each perturbation that is trained on or asked for: a mapping, or a
        DataFrame with a row for each.
    perturbation_sep
        What stands between two perturbations of one cell.

    Raises
    ------
    InputError
        If the features cannot be used.
    """

    name = "ridge on features"
    ridge: RidgeFit
    _mean: np.ndarray
    _scale: np.ndarray

    def __init__(
        self,
        features: Mapping[str, Sequence[float] | np.ndarray] | pd.DataFrame,
        *,
        perturbation_sep: str = "+",
    ) -> None:
        super().__init__(perturbation_sep=perturbation_sep)
        self.features = _vectors(features)

    def _fit(self, train: Cells) -> None:
        effects = self.effects
        trained = sorted({part for p in effects.perturbations for part in self._parts(p)})
        table = np.stack([self._features_of(part) for part in trained])
        self._mean = table.mean(axis=0)
        spread = table.std(axis=0)
        # A feature that is the same for all trained perturbations cannot be learned from.
        self._scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 1e-12)
        self._scale /= np.sqrt(max(int(np.count_nonzero(self._scale)), 1))
        design_EF = np.stack([self._describe(p) for p in effects.perturbations])
        self.ridge = fit_ridge(design_EF, effects.shifts, effects.n_cells, effects.perturbations)

    def _features_of(self, name: str) -> np.ndarray:
        if name not in self.features:
            near = closest(name, self.features)
            hint = f" Did you mean {near!r}?" if near else ""
            raise UnknownNameError(f"There are no features of {name!r}; add them.{hint}")
        return self.features[name]

    def _describe(self, label: str) -> np.ndarray:
        names = self._parts(label)
        described = sum((self._features_of(n) - self._mean) * self._scale for n in names)
        return np.concatenate([[INTERCEPT * len(names)], np.asarray(described)])

    def _shift(self, perturbation: str, context: str) -> np.ndarray:
        return self._describe(perturbation) @ self.ridge.coefficients


def _vectors(
    features: Mapping[str, Sequence[float] | np.ndarray] | pd.DataFrame,
) -> dict[str, np.ndarray]:
    pairs = (
        zip(features.index, features.to_numpy(dtype=np.float64), strict=True)
        if isinstance(features, pd.DataFrame)
        else features.items()
    )
    vectors = {str(k): np.asarray(v, dtype=np.float64).ravel() for k, v in pairs}
    sizes = {len(v) for v in vectors.values()}
    if len(sizes) != 1 or 0 in sizes:
        raise InputError(
            f"Features must hold one vector of the same length for each perturbation, but hold "
            f"{len(vectors)} of lengths {sorted(sizes)}."
        )
    bad = [name for name, v in vectors.items() if not np.isfinite(v).all()]
    if bad:
        raise InputError(
            f"The features of {len(bad)} perturbations have missing or infinite values "
            f"({examples(bad)}); fill them or leave the perturbations out."
        )
    return vectors
