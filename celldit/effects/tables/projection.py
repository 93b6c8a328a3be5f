"""Effects on genes, read once by blocks, as sums that tell of shifts of a latent.

With L the loadings by which a decoder takes a shift y of the latent to log rates, d the effects
that a table gives for some of the genes, and W the inverse variances of these, all that the least
squares need is ``A = L W Lᵀ``, ``b = L W d`` and ``q = dᵀ W d``. What follows from them is in
:mod:`celldit.effects.tables.shrinkage`.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import numpy as np

from celldit.effects.tables.matching import MatchedTable
from celldit.errors import InputError

# A decoder is no better than so many units of log rate, however well a gene was measured.
LEAST_ERROR = 0.1
SAMPLE = 512
# Cells behind a row that does not say how many.
USUAL_CELLS = 100.0
USUAL_CONTROLS = 1000.0


@dataclass(frozen=True, eq=False)
class Projection:
    """A table as the latent sees it."""

    keys: tuple[tuple[str, ...], ...]  # the P perturbations, each by the sorted names of its parts
    gram_FF: np.ndarray  # A, for rows of noise 1
    right_PF: np.ndarray  # b
    square_P: np.ndarray  # q
    n_genes: int  # M, those that were matched
    noise_P: np.ndarray  # by how much the variance of each row's values is larger than W says
    scatter_P: np.ndarray  # that of a single row where several of one perturbation were averaged
    cells_P: np.ndarray  # behind each row, about
    controls: float  # control cells behind all rows, about

    def turned(self, rotation_FF: np.ndarray) -> Projection:
        """In coordinates y R of the latent."""
        back_FF = np.linalg.inv(rotation_FF)
        return replace(
            self,
            gram_FF=back_FF @ self.gram_FF @ back_FF.T,
            right_PF=self.right_PF @ back_FF.T,
        )


def project(given: MatchedTable, loadings_FG: np.ndarray) -> Projection:
    """Read the P rows of a table once, by blocks, in the latent of a decoder with these loadings.

    InputError if a value is infinite, or none is a number.
    """
    table = given.table
    loads_FM = loadings_FG[:, given.own].astype(np.float64)
    variance_M = typical_variance(given)
    weight_M = 1 / (variance_M + LEAST_ERROR**2)
    weighed_FM = loads_FM * weight_M
    n_rows = len(table)
    right_PF, square_P = np.zeros((n_rows, len(loads_FM))), np.zeros(n_rows)
    noise_P = np.ones(n_rows)
    for rows, values_BM, errors_BM in given.blocks():
        if np.isinf(values_BM).any():
            raise InputError(
                f"The table {given.name!r} holds infinite effects; drop these rows or genes."
            )
        missing_BM = np.isnan(values_BM)
        values_BM = np.where(missing_BM, 0, values_BM)
        right_PF[rows] = values_BM @ weighed_FM.T
        square_P[rows] = values_BM**2 @ weight_M
        if missing_BM.any():
            # As if all were measured, with as much more noise: the fewer values, the less is said.
            seen_B = ((~missing_BM @ weight_M) / weight_M.sum()).clip(1e-3)
            right_PF[rows] /= seen_B[:, None]
            square_P[rows] /= seen_B
            noise_P[rows] /= seen_B
        if errors_BM is not None:
            own_BM = np.where(np.isfinite(errors_BM), errors_BM, np.sqrt(variance_M)) ** 2
            noise_P[rows] *= ((own_BM + LEAST_ERROR**2) @ weight_M) / len(weight_M)
    cells_P = np.full(n_rows, USUAL_CELLS)
    if "n_cells" in table.obs:
        cells_P = table.obs["n_cells"].fillna(USUAL_CELLS).to_numpy(np.float64).clip(min=1)
    gram_FF = weighed_FM @ loads_FM.T
    sums = gram_FF, right_PF, square_P, len(weight_M)
    controls = USUAL_CONTROLS
    if "n_control" in table.obs:
        controls = float(table.obs.groupby("context")["n_control"].first().sum())
    return _pooled(Projection(given.keys, *sums, noise_P, noise_P, cells_P, max(controls, 1.0)))


def _pooled(each: Projection) -> Projection:
    """Rows of one perturbation in several contexts as one, each by its precision."""
    place: dict[tuple[str, ...], int] = {}
    of_row = np.array([place.setdefault(key, len(place)) for key in each.keys])
    if len(place) == len(each.keys):
        return each
    weight_P = 1 / each.noise_P
    whole = np.bincount(of_row, weight_P)
    right = np.zeros((len(place), each.right_PF.shape[1]))
    np.add.at(right, of_row, each.right_PF * weight_P[:, None])
    return replace(
        each,
        keys=tuple(place),
        right_PF=right / whole[:, None],
        square_P=np.bincount(of_row, each.square_P * weight_P) / whole,
        noise_P=1 / whole,
        scatter_P=np.bincount(of_row) / whole,
        cells_P=np.bincount(of_row, each.cells_P),
    )


def typical_variance(given: MatchedTable) -> np.ndarray:
    """Median squared standard error of each matched gene, estimated where there are none."""
    step = max(1, len(given.table) // SAMPLE)
    picked = []
    for rows, effects_BM, errors_BM in given.blocks():
        keep = np.arange(rows.start, rows.stop) % step == 0
        picked.append((effects_BM if errors_BM is None else errors_BM)[keep])
    values_RM = np.concatenate(picked).astype(np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        if given.table.errors is not None:
            variance_M = np.nanmedian(values_RM**2, axis=0)
        else:
            # Most perturbations do little to most genes: what scatters there is mostly noise.
            middle_M = np.nanmedian(values_RM, axis=0)
            variance_M = (1.4826 * np.nanmedian(np.abs(values_RM - middle_M), axis=0)) ** 2
    if not np.isfinite(variance_M).any():
        raise InputError(f"The table {given.name!r} holds no number for genes of the model.")
    return np.where(np.isfinite(variance_M), variance_M, np.nanmax(variance_M))
