"""Whose random numbers are whose: the one list of streams, and the keys of cells and draws.

A random number belongs to the seed, to a cell by its name, and to a stream: what it is for. What
is drawn once a condition is known belongs to the condition, too. It never belongs to the place of
a cell in a request, so a cell is the same to the byte whatever else is asked for, in any order, in
one call or several. Streams of one key are independent (Philox, :mod:`celldit.flow.noise`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

#: Standard normal noise and uniform numbers (:func:`celldit.flow.noise.cell_noise`).
SOURCE_STREAM = 0
"""Where the flow from noise starts."""
TIME_STREAM = 1 << 18
"""At which of two times of training a cell is that is sent to one between them."""
COMPOSITION_STREAM = 1 << 19
"""Which condition a new cell has."""
SIZE_STREAM = 1 << 20
"""Its library size."""
RESPONSE_STREAM = 3 << 19
"""Whether it responds to what is done to it."""
OWN_GENE_STREAM = 1 << 22
"""Whether it keeps the gene that is knocked out; the further parts have the streams that follow."""
CONTROLS_STREAM = 1 << 21
"""Latents that stand in for controls (:mod:`celldit.calibration.reference_controls`)."""
STATE_STREAM = 1 << 23
"""Its state."""
EDIT_STREAM = 1 << 24
"""Averages of an edit; the draws 1, 2, ... have the streams that follow."""
SDE_STREAM = 1 << 25
"""Steps of an SDE, likewise."""

#: Counts (:func:`cell_generator`).
COUNTS_STREAM = 0
"""Those of a cell."""
MOVED_STREAM = 1
"""Those of a new cell that was sent on to another time."""


def keys_of(names: Iterable[object]) -> np.ndarray:
    """A number for each name, the same for the same name everywhere, int64, shape (N,)."""
    digests = [
        hashlib.blake2b(str(name).encode("utf-8", "surrogatepass"), digest_size=8).digest()
        for name in names
    ]
    return np.frombuffer(b"".join(digests), dtype="<i8").astype(np.int64)


def draw_keys(cells_N: np.ndarray, conditions_N: np.ndarray) -> np.ndarray:
    """Keys of cells under conditions, from the keys of both, int64, shape (N,)."""
    return _mixed(cells_N.view(np.uint64) + _mixed(conditions_N.view(np.uint64))).view(np.int64)


def _mixed(x: np.ndarray) -> np.ndarray:
    """A bijection that scatters 64 bits (splitmix64; Steele, Lea, Flood 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def cell_generator(seed: int, key: int, stream: int = COUNTS_STREAM) -> np.random.Generator:
    """The random numbers of one cell, for its counts."""
    start = [0, 0, 0, stream]
    return np.random.Generator(np.random.Philox(key=[seed % 2**64, key % 2**64], counter=start))


def short_seed(seed: int) -> int:
    """What of a seed scikit-learn and umap take, which is below 2^32."""
    return seed % 2**32
