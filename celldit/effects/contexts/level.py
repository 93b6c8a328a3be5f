"""How the level that a context starts from bends the effect.

Where treated cells go to a common level rather than by a common shift, the effect in a context is
the smaller the more of it is there already:

    shift of a context = usual shift - w (level of its controls - mean level of controls),

w = 0 for a common shift, 1 for a common level. The slope w is the same in all dimensions of the
latent, hence in all genes, and it holds for every perturbation, at its highest dose in full.

It is estimated by leaving contexts out. With S the covariance of the shifts y, x the levels and B
the rows of a context, the error of what the others predict is linear in w,

    P⁻¹ (S⁻¹ (y + w x))_B,   P = (S⁻¹)_BB,

so that the slope with the least error, each context weighed by its precision, is a quotient of sums
over contexts. In S the effect that a perturbation has everywhere is left open, so that contexts are
compared with each other alone; and S is the same in all dimensions: one of its own for each would
count those most in which the few shifts that were observed happen to vary least.

Both y and x hold the noise of the same controls, which alone would make a slope of 1; what that
adds to either sum is known and taken off (Oldham 1962; Fuller 1987). The slope's standard error is
the jackknife's over contexts (Tukey 1958). The slope is drawn towards zero by it (James & Stein
1961), and is zero where slopes of the other contexts do not predict a context better than none, or
where leaving contexts out of the whole model goes hardly better with it
(:mod:`celldit.effects.contexts.fit_level`). Its standard error stays in
the model as that of a random part of the slope, in each dimension one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

MIN_CONTEXTS = 3
# Levels of which more than this share is noise tell no slope.
MOST_NOISE = 0.5


@dataclass(frozen=True, eq=False)
class Level:
    """The slope on the level of the controls.

    Attributes
    ----------
    slope
        w, between 0 and 1; 0 for a common shift, whatever the level.
    sd
        Its standard error.
    centre_F
        Mean level of the controls of training, in the latent, shape (F,); empty without a slope.
    """

    slope: float = 0.0
    sd: float = 0.0
    centre_F: np.ndarray = field(default_factory=lambda: np.zeros(0))


def fit_slope(
    inverse_CC: np.ndarray,
    shifts_CF: np.ndarray,
    levels_CF: np.ndarray,
    amounts_C: np.ndarray,
    shared_CS: np.ndarray,
    groups: Sequence[np.ndarray],
) -> tuple[float, float]:
    """The slope and its standard error; zeros where the data tell none.

    Parameters
    ----------
    inverse_CC
        S⁻¹.
    shifts_CF, levels_CF
        y, and x with `amounts_C` multiplied in, in coordinates in which cells scatter by 1.
    amounts_C
        How much of an effect each condition may have, between 0 and 1.
    shared_CS
        Standard deviation by which the noise of S sets of controls enters y and, times `amounts_C`,
        x.
    groups
        Rows of each context.
    """
    if len(groups) < MIN_CONTEXTS:
        return 0.0, 0.0
    noise_CS = amounts_C[:, None] * shared_CS
    solved = [inverse_CC @ each for each in (shifts_CF, levels_CF, shared_CS, noise_CS)]
    cross_B, square_B, noise_B = np.zeros((3, len(groups)))
    n_dims = levels_CF.shape[1]
    for b, rows in enumerate(groups):
        shift, level, shared, noise = (each[rows] for each in solved)
        weighed = np.linalg.solve(inverse_CC[np.ix_(rows, rows)], np.hstack([level, noise]))
        of_level, of_noise = np.split(weighed, [n_dims], axis=1)
        # The noise of controls enters y with a minus, hence the product with a plus.
        cross_B[b] = (of_level * shift).sum() + n_dims * (of_noise * shared).sum()
        square_B[b] = (of_level * level).sum()
        noise_B[b] = n_dims * (of_noise * noise).sum()
    if noise_B.sum() > MOST_NOISE * square_B.sum():
        return 0.0, 0.0
    square_B -= noise_B
    slope = -cross_B.sum() / square_B.sum()
    left_out_B = -(cross_B.sum() - cross_B) / (square_B.sum() - square_B)
    n = len(groups)
    variance = (n - 1) / n * float(((left_out_B - left_out_B.mean()) ** 2).sum())
    gain = float((2 * left_out_B * cross_B + left_out_B**2 * square_B).sum())
    if slope <= 0 or gain >= 0 or variance >= slope**2 or not np.isfinite(variance):
        return 0.0, 0.0
    return min(float(slope - variance / slope), 1.0), float(np.sqrt(variance))
