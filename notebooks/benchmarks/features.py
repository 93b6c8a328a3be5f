"""What do features tell of perturbations never seen? The effect prior alone, by source.

Each of Norman's perturbations that was measured alone, and each of Papalexi's knock-outs that has
an effect in the full benchmark, is held out of training wherever it occurs, and its effect is
predicted from the features of the others: gene sets (Reactome, GO),
their leading components instead of whole sets, co-expression in the training controls, random
numbers and gene sets of other genes (shuffled) as controls of the method, and all of them.
No network is trained. Scores are means over the held-out perturbations; weights are the shares of
a perturbation's own variance (part and features) for one never seen, averaged over the splits. A
source that does not beat its own shuffles has none (``celldit/effects/features/shuffled.py``);
"believed" is the share of the splits in which at least one source does.

    python notebooks/benchmarks/features.py docs/results/features.csv
"""

from __future__ import annotations

import sys
import time
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd

import celldit as cd
from celldit.compute import threads
from celldit.conditions import Condition, ConditionTable
from celldit.data import Cells, Fields
from celldit.effects import EffectPrior
from celldit.effects.features.features import read_features
from celldit.effects.fit_prior import fit_prior
from celldit.evaluation.baselines import MeanShift
from celldit.latent.anchor import fit_anchor

N_TOKENS, TOKEN_DIM = 6, 8


KNOCK_OUTS = ["IFNGR1", "IFNGR2", "IRF1", "JAK2", "SMAD4", "STAT1"]


def norman() -> tuple[ad.AnnData, list[str]]:
    """Norman's screen, set up, and the perturbations that were measured alone."""
    adata = cd.datasets.norman()
    cd.CellDiT.setup_anndata(adata, perturbation_key="perturbation", size_factor_key="total_umis")
    labels = adata.obs["perturbation"].astype(str)
    return adata, sorted({p for p in labels if "+" not in p and p != "control"})


def papalexi() -> tuple[ad.AnnData, list[str]]:
    """Papalexi's screen, set up, and its knock-outs with a strong effect."""
    adata = cd.datasets.papalexi()
    cd.CellDiT.setup_anndata(
        adata, perturbation_key="perturbation", covariate_keys=["replicate"],
        size_factor_key="total_umis",
    )  # fmt: skip
    return adata, KNOCK_OUTS


def sources_of(adata: ad.AnnData) -> dict[str, dict[str, pd.DataFrame]]:
    """Feature tables of every set of sources.

    They do not depend on what is held out: co-expression looks at control cells alone, and these
    are in every training set.
    """
    single: dict[str, pd.DataFrame] = {}
    names = ("reactome", "go", "expression")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # incomplete sources are what is measured here
        for name in names:
            single[name] = cd.pp.gene_features(adata, name, allow_missing=True)
    labels = adata.obs["perturbation"].astype(str)
    every = sorted({part for label in labels for part in label.split("+")} - {"control"})
    rng = np.random.default_rng(0)
    informed = dict(single)
    single["random"] = pd.DataFrame(rng.normal(size=(len(every), 64)), index=every)
    sets = single["reactome"].loc[[gene for gene in every if gene in single["reactome"].index]]
    shuffled = sets.set_axis(rng.permutation(sets.index), axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        leading = {
            f"{name}, 64 components": {
                name: cd.pp.gene_features(adata, name, n_components=64, allow_missing=True)
            }
            for name in ("reactome", "go")
        }
    return {
        "none": {},
        **{name: {name: table} for name, table in single.items()},
        **leading,
        "reactome, shuffled": {"reactome": shuffled},
        "all but random": informed,
        "all": single,
    }


def scores(predicted_G: np.ndarray, measured_G: np.ndarray) -> tuple[float, float]:
    """Pearson r (0 for a constant prediction) and squared error over squared effect."""
    r = float(np.corrcoef(predicted_G, measured_G)[0, 1]) if predicted_G.std() > 0 else 0.0
    return r, float(((predicted_G - measured_G) ** 2).sum() / (measured_G**2).sum())


def shares(prior: EffectPrior) -> dict[str, float]:
    """Share of each source, and of the perturbation's own part, in the variance of its effect."""
    weight = dict(zip(prior.kernel.terms, prior.of_unseen.weights.tolist(), strict=True))
    own = {t: w for t, w in weight.items() if t == "part" or t.startswith("feature:")}
    return {t.removeprefix("feature:"): w / sum(own.values()) for t, w in own.items()}


def measure(name: str, adata: ad.AnnData, held_out: list[str]) -> list[dict[str, object]]:
    """Rows of one screen."""
    rows: list[dict[str, object]] = []
    cells = Cells.from_anndata(adata, Fields.from_anndata(adata))
    log = cells.log_normalized()
    sources = {label: read_features(tables) for label, tables in sources_of(adata).items()}
    for target in held_out:
        has_it = np.array([target in p.split("+") for p in adata.obs["perturbation"].astype(str)])
        train = cells.take(~has_it)
        places = sorted(set(cells.contexts[cells.perturbations == target]))
        truth = {}
        for where in places:
            here = cells.contexts == where
            treated = np.asarray(log[here & (cells.perturbations == target)].mean(0)).ravel()
            truth[where] = treated - np.asarray(log[here & cells.is_control].mean(0)).ravel()
        anchor = fit_anchor(train.log_normalized(), N_TOKENS, TOKEN_DIM, 0)
        z = train.log_normalized() @ anchor.loadings - anchor.offset
        table = ConditionTable.from_cells(train, "+")
        readout = anchor.loadings * np.repeat(anchor.scale, TOKEN_DIM) ** 2
        conditions = [Condition((target,), None, where) for where in places]
        fitted = MeanShift().fit(train)
        found = [scores(fitted.shift(target, where), truth[where]) for where in places]
        r, nmse = np.mean(found, axis=0)
        rows.append({"screen": name, "sources": "mean shift", "target": target, "known": True,
                     "pearson": r, "nmse": nmse, "seconds": 0.0})  # fmt: skip
        for label, features in sources.items():
            start = time.perf_counter()
            prior = fit_prior(z, table, features=features)
            shifts = prior.estimate(conditions).mean @ readout.T
            seconds = time.perf_counter() - start
            found = [scores(s, truth[where]) for s, where in zip(shifts, places, strict=True)]
            r, nmse = np.mean(found, axis=0)
            known = any(target in names for k, (names, _) in features.items() if k != "random")
            weights = {f"weight_{k}": v for k, v in shares(prior).items()}
            believed = float(len(prior.uninformative) < len(features)) if features else None
            rows.append({"screen": name, "sources": label, "target": target, "known": known,
                         "pearson": r, "nmse": nmse, "seconds": seconds, "believed": believed,
                         **weights})  # fmt: skip
        print(name, target, flush=True)
    return rows


def main(out: Path) -> None:
    """Write one row per set of sources."""
    screens = {"norman": norman, "papalexi": papalexi}
    rows = [row for name, load in screens.items() for row in measure(name, *load())]
    frame = pd.DataFrame(rows)
    groups = frame.groupby(["screen", "sources"], sort=False)
    means = groups.mean(numeric_only=True).drop(columns="known", errors="ignore")
    means.insert(0, "held_out", groups.size())
    means.insert(1, "described", groups["known"].sum())
    means = means.round({c: 1 if c == "seconds" else 3 for c in means.columns})
    print(means.to_string())
    means.reset_index().to_csv(out, index=False)


if __name__ == "__main__":
    with threads():
        main(Path(sys.argv[1]))
