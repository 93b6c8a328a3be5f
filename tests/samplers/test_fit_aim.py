"""Weights are found where there is something to find, and tied where there is little."""

from __future__ import annotations

import numpy as np
import pytest

from celldit.samplers.aim import START_WEIGHTS
from celldit.samplers.fit_aim import _least_squares


def test_weights_are_found() -> None:
    rng = np.random.default_rng(0)
    products = []
    for _ in range(50):
        decoded_G, straight_G, further_G = rng.normal(size=(3, 300))
        measured_G = 0.9 * decoded_G + 0.3 * straight_G + 0.6 * further_G
        each_4G = np.stack([decoded_G, straight_G, further_G, measured_G + rng.normal(0, 0.1, 300)])
        products.append(each_4G @ each_4G.T)
    assert _least_squares(products) == pytest.approx((0.9, 0.3, 0.6), abs=0.03)
    # No more is made up for than reading can lose, and the rest is believed at most as it is.
    larger = np.outer([1, 1, 1, 3], [1, 1, 1, 3])
    a, b, c = _least_squares([p * larger for p in products])
    assert a + b < 1.201
    assert c == 1
    # One condition says half of it.
    one = np.array([1, 1e-9, 1e-9, 1.0])
    few = _least_squares([np.outer(one, one) + 1e-12 * np.eye(4)])
    assert START_WEIGHTS[0] < few[0] < 1
