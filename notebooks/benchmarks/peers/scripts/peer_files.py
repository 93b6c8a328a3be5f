"""What every peer reads and writes; knows neither celldit nor the peer.

A folder holds ``train.h5ad`` and ``controls.h5ad`` (raw counts in ``X``; ``perturbation``,
``context``, ``is_control`` and ``size_factor`` in ``obs``) and ``request.json``. The peer writes
``points/<name>.h5ad``, one for each point of its training that shall be judged.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

SCALE = 1e4


@dataclass(frozen=True)
class Request:
    """What is asked of a peer.

    ``parts`` maps every label, of training cells or asked for, to the names that it is made of.
    ``steps`` multiplies the length of training; tests set it below 1.
    """

    folder: Path
    train: ad.AnnData
    controls: ad.AnnData
    asked: list[str]
    parts: dict[str, list[str]]
    control: str
    seed: int
    steps: float

    @property
    def names(self) -> list[str]:
        """Every single part, sorted."""
        return sorted({name for names in self.parts.values() for name in names})

    @property
    def contexts(self) -> list[str]:
        """Every context, sorted."""
        return sorted({*self.train.obs["context"], *self.controls.obs["context"]})

    @property
    def trained(self) -> set[str]:
        """Labels that training cells have."""
        return set(self.train.obs["perturbation"])


def read_request() -> Request:
    """Read the folder that the command line names."""
    folder = Path(sys.argv[1])
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    sides = {}
    for side in ("train", "controls"):
        cells = ad.read_h5ad(folder / f"{side}.h5ad")
        for key in ("perturbation", "context"):
            cells.obs[key] = cells.obs[key].astype(str)
        sides[side] = cells
    return Request(folder=folder, **sides, **request)


def log_expression(cells: ad.AnnData) -> sparse.csr_matrix:
    """``log(1 + 10,000 counts / size factor)``, float32, shape (N, G)."""
    scale = sparse.diags(SCALE / cells.obs["size_factor"].to_numpy(dtype=np.float64))
    log = sparse.csr_matrix(scale @ sparse.csr_matrix(cells.X)).astype(np.float32)
    log.data = np.log1p(log.data)
    return log


def log_of_sampled(mean_NG: Any, inverse_dispersion: Any, sizes_N: Any, seed: int) -> np.ndarray:
    """Log expression of counts drawn from a negative binomial, float32, shape (N, G)."""
    rng = np.random.default_rng(seed)
    mean = np.maximum(np.asarray(mean_NG, dtype=np.float64), 1e-12)
    theta = np.broadcast_to(np.asarray(inverse_dispersion, dtype=np.float64), mean.shape)
    counts = rng.poisson(rng.gamma(theta, mean / theta))
    return np.log1p(SCALE * counts / np.asarray(sizes_N)[:, None]).astype(np.float32)


class Points:
    """Writes the prediction of each point of training, and the seconds it took to get there."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.folder = request.folder / "points"
        self.folder.mkdir(exist_ok=True)
        self.started = time.perf_counter()
        self.predicting = 0.0
        # Decoders run away on cells unlike those of training; celldit's own stops there, too.
        self.most = float(log_expression(request.train).max()) + float(np.log(2))

    def save(self, name: str, predict: Any) -> None:
        """Predict every label asked for; ``predict(label)`` gives log expression of all controls.

        It raises ``LookupError`` for a label of which the peer knows nothing. No value may exceed
        twice the highest rate seen in training.
        """
        before = time.perf_counter()
        trained_for = before - self.started - self.predicting
        blocks, frames = [], []
        for label in self.request.asked:
            log = np.asarray(predict(label), dtype=np.float32)
            blocks.append(np.minimum(log, self.most))
            frames.append(
                pd.DataFrame(
                    {"perturbation": label, "context": self.request.controls.obs["context"].values}
                )
            )
        spent = time.perf_counter() - before
        obs = pd.concat(frames, ignore_index=True)
        obs.index = obs.index.astype(str)
        var = pd.DataFrame(index=self.request.train.var_names)
        cells = ad.AnnData(np.concatenate(blocks), obs=obs, var=var)
        cells.uns["seconds"] = trained_for + spent
        # Under its name only when whole: a peer may be stopped at any time.
        cells.write_h5ad(self.folder / f"{name}.part")
        (self.folder / f"{name}.part").rename(self.folder / f"{name}.h5ad")
        self.predicting += time.perf_counter() - before
