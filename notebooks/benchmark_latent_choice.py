"""Which latent predicts held-out conditions better, principal components or set attention?

The same splits, training and metrics; only ``latent=`` differs.

    python notebooks/benchmark_latent_choice.py docs/results/latent_choice.csv
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from benchmark_calibration import SETUP
from benchmark_prior import problems

import celldit as cd

CHOSEN = ("kang, CD14 Mono", "norman, 3 combinations", "papalexi, 8 pairs")
MEASURES = ["pearson", "nmse", "energy"]


def main(out: Path) -> None:
    """Write one row per split and latent."""
    rows = []
    for name, (cells, held_out) in problems().items():
        if name not in CHOSEN:
            continue
        data = name.split(",")[0]
        adata = getattr(cd.datasets, data)()
        cd.CellDiT.setup_anndata(adata, size_factor_key="total_umis", **SETUP[data])
        pairs = zip(cells.perturbations, cells.contexts, strict=True)
        is_held_out = np.array([pair in set(held_out) for pair in pairs])
        contexts = {where for _, where in held_out}
        control = adata[cells.is_control & np.isin(cells.contexts, list(contexts))]
        for latent in ("pca", "set"):
            start = time.perf_counter()
            model = cd.CellDiT(adata[~is_held_out], latent=latent)
            model.train(enable_progress_bar=False)
            seconds = time.perf_counter() - start
            predicted = model.predict(control, perturbations=[label for label, _ in held_out])
            scores = cd.tl.evaluate(predicted, adata[is_held_out], control, metrics=MEASURES)
            means = scores.groupby("metric")["value"].mean().round(3)
            trust = max(model.trust[kind]["shift"] for kind in ("new context", "new combination"))
            rows.append((name, latent, *means[MEASURES], trust, round(seconds)))
            print(*rows[-1], flush=True)
    pd.DataFrame(rows, columns=["held_out", "latent", *MEASURES, "trust", "seconds"]).to_csv(
        out, index=False
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
