"""How good is the effect prior alone? Against the additive ridge, on raw log expression.

No network is trained: the prior is fitted on principal components of the training cells, and its
mean shift is carried back to the genes. Every split of the quick benchmark, and further cell types.

    python notebooks/benchmarks/prior.py docs/results/prior.csv
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from held_out import COMBINATIONS, DATASETS, KANG_TYPES, KNOCK_OUTS, set_up

from celldit.conditions import Condition, ConditionTable
from celldit.data import Cells, Fields
from celldit.effects.fit_prior import fit_prior
from celldit.evaluation.baselines import Additive
from celldit.latent.anchor import fit_anchor

N_TOKENS, TOKEN_DIM = 6, 8
KANG = tuple(kind for kind in KANG_TYPES if kind != "DC")


def problems() -> dict[str, tuple[Cells, list[tuple[str, str]]]]:
    """Cells and held-out (perturbation, context) pairs of every split."""
    read = {}
    for name in DATASETS:
        adata = set_up(name)
        read[name] = Cells.from_anndata(adata, Fields.from_anndata(adata))
    found = {f"kang, {kind}": (read["kang"], [("IFNB", kind)]) for kind in KANG}
    found["norman, 3 combinations"] = read["norman"], [(label, "") for label in COMBINATIONS]
    found["papalexi, 8 pairs"] = read["papalexi"], [(label, "rep_3") for label in KNOCK_OUTS]
    return found


def scores(predicted_G: np.ndarray, measured_G: np.ndarray) -> tuple[float, float]:
    """Pearson r and squared error over squared effect."""
    r = float(np.corrcoef(predicted_G, measured_G)[0, 1])
    return r, float(((predicted_G - measured_G) ** 2).sum() / (measured_G**2).sum())


def main(out: Path) -> None:
    """Write one row per split and method."""
    rows = []
    for name, (cells, held_out) in problems().items():
        pairs = list(zip(cells.perturbations, cells.contexts, strict=True))
        is_held_out = np.array([pair in set(held_out) for pair in pairs])
        train = cells.take(~is_held_out)
        additive = Additive().fit(train)
        start = time.perf_counter()
        anchor = fit_anchor(train.log_normalized(), N_TOKENS, TOKEN_DIM, 0)
        z = train.log_normalized() @ anchor.loadings - anchor.offset
        prior = fit_prior(z, ConditionTable.from_cells(train, "+"))
        conditions = [Condition(tuple(p.split("+")), None, where) for p, where in held_out]
        readout = anchor.loadings * np.repeat(anchor.scale, TOKEN_DIM) ** 2  # orthonormal loadings
        shifts = prior.estimate(conditions).mean @ readout.T
        seconds = time.perf_counter() - start
        log = cells.log_normalized()
        found: dict[str, list[tuple[float, float]]] = {"additive ridge": [], "effect prior": []}
        for (label, where), shift_G in zip(held_out, shifts, strict=True):
            here = cells.contexts == where
            treated = np.asarray(log[here & (cells.perturbations == label)].mean(0)).ravel()
            control = np.asarray(log[here & cells.is_control].mean(0)).ravel()
            measured_G = treated - control
            found["effect prior"].append(scores(shift_G, measured_G))
            found["additive ridge"].append(scores(additive.shift(label, where), measured_G))
        for method, values in found.items():
            r, nmse = np.mean(values, axis=0)
            rows.append((name, method, round(r, 3), round(nmse, 3), round(seconds, 1)))
            print(*rows[-1])
    columns = ["held_out", "method", "pearson", "nmse", "seconds_of_prior"]
    pd.DataFrame(rows, columns=columns).to_csv(out, index=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
