"""Does measuring what cd.tl.next_perturbations picks help more than other picks?

In retrospect: of the perturbations of a screen five, drawn at random, are known. Five more are
chosen from the rest, by the greedy design, by chance, or as different from each other and from the
known ones as possible (farthest point, in the features or parts that the effect model knows them
by). The effect model is fitted to the ten, and all others are predicted. Errors are squared errors
of mean shifts over squared effects, in units of log expression, sampling noise subtracted from
both: ``nmse_rest`` pooled over all that a strategy left, ``nmse`` over those that neither design
nor diversity chose, since what is left is easier where what is hard was taken. Twenty draws,
paired. ``p`` is a one-sided Wilcoxon test that the design has the smaller error. The latent is one
for all, learned without labels.

Papalexi: 25 knock-outs, features from Reactome. Norman: 31 activations and pairs, which share
parts. Simulated: 25 perturbations in five groups, whose features say which group.

    python notebooks/benchmarks/next_perturbations.py docs/results/next_perturbations.csv

With names of screens after it only their rows of the table are made again.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import torch
from scipy import sparse, stats

import celldit as cd
from celldit.conditions import ConditionTable
from celldit.effects.experiments import evenly_described, greedy_design, joint_covariance
from celldit.effects.fit_prior import fit_prior
from celldit.effects.prior import EffectPrior
from celldit.training import TrainingConfig

N_KNOWN, N_CHOSEN, N_DRAWS, N_RANDOM = 5, 5, 20, 1
STRATEGIES = ("design", "diversity")
SETUP = {"perturbation_key": "perturbation", "size_factor_key": "total_umis"}


@dataclass(frozen=True, eq=False)
class Screen:
    """Latents of a screen, and what the effect model may know of its perturbations."""

    z_NF: np.ndarray
    table: ConditionTable
    loadings_FG: np.ndarray
    features: dict

    @cached_property
    def full(self) -> EffectPrior:
        """The effect model of all that was measured."""
        return self.fit(self.labels)

    @property
    def labels(self) -> list[tuple[str, ...]]:
        """Perturbations, as their parts."""
        return sorted({c.parts for c in self.table.conditions if c.parts})

    def fit(self, labels: Sequence[tuple[str, ...]]) -> EffectPrior:
        """The effect model of these perturbations and all controls."""
        kept = [i for i, c in enumerate(self.table.conditions) if not c.parts or c.parts in labels]
        cells = np.isin(self.table.index, kept)
        place = np.full(len(self.table), -1)
        place[kept] = np.arange(len(kept))
        conditions = tuple(self.table.conditions[i] for i in kept)
        part = ConditionTable(conditions, place[self.table.index[cells]])
        return fit_prior(self.z_NF[cells], part, features=self.features)


def of_screen(adata: ad.AnnData, features: object = None, **setup: object) -> Screen:
    """Learn the latent once."""
    cd.CellDiT.setup_anndata(adata, control="control", **setup)
    model = cd.CellDiT(adata, features=features, tokenizer="modules")
    model.train(0, config=TrainingConfig(new_cells=False, n_trials=1), enable_progress_bar=False)
    trained = model.trained
    cells = trained.read(adata)
    z_NF = trained.autoencoder.encode(cells).flatten(1).double().numpy()
    loadings = trained.autoencoder.decoder.loadings.detach().double().numpy()
    return Screen(z_NF, ConditionTable.from_cells(cells, "+"), loadings, dict(trained.features))


def papalexi() -> Screen:
    """Knock-outs with features."""
    adata = cd.datasets.papalexi()
    cd.CellDiT.setup_anndata(adata, control="control", covariate_keys=["replicate"], **SETUP)
    features = cd.pp.gene_features(adata, source="reactome", allow_missing=True)
    return of_screen(adata, features, **SETUP, covariate_keys=["replicate"])


def norman() -> Screen:
    """Activations, alone and in pairs."""
    adata = cd.datasets.norman()
    return of_screen(adata, **SETUP)


def simulated() -> Screen:
    """Perturbations in groups that features tell."""
    rng, n_genes = np.random.default_rng(0), 200
    names = [f"P{i:02d}" for i in range(25)]
    base_G = rng.gamma(1, 1, n_genes) + 0.05
    groups_5G = rng.normal(0, 0.8, (5, n_genes)) * (rng.random((5, n_genes)) < 0.3)
    sizes = [9, 7, 5, 3, 1]
    group = np.repeat(np.arange(5), sizes)
    counts, obs = [], []
    for name, of in (("control", None), *zip(names, group, strict=True)):
        log_G = np.zeros(n_genes) if of is None else groups_5G[of] + rng.normal(0, 0.2, n_genes)
        rate_G = base_G * np.exp(log_G)
        n = 400 if of is None else 80
        counts.append(rng.poisson(rng.gamma(4, 2000 * rate_G / rate_G.sum() / 4, (n, n_genes))))
        obs += [name] * n
    matrix = sparse.csr_matrix(np.concatenate(counts).astype(np.float32))
    frame = pd.DataFrame({"perturbation": obs}, index=[f"c{i}" for i in range(len(obs))])
    adata = ad.AnnData(matrix, frame, pd.DataFrame(index=[f"gene{g}" for g in range(n_genes)]))
    rows = np.eye(5)[group] + rng.normal(0, 0.1, (25, 5))
    return of_screen(adata, pd.DataFrame(rows, index=names), perturbation_key="perturbation")


def conditions_of(screen: Screen, label: tuple[str, ...]) -> list:
    """Its conditions in every context."""
    return [c for c in screen.table.conditions if c.parts == label]


def by_design(screen: Screen, prior: EffectPrior, rest: list[tuple[str, ...]]) -> list[int]:
    """What cd.tl.next_perturbations does."""
    asked, rows = [], []
    for label in rest:
        own = conditions_of(screen, label)
        rows.append(np.arange(len(asked), len(asked) + len(own)))
        asked += own
    covariance_FQQ = joint_covariance(evenly_described(prior), asked)
    weight_F = ((np.linalg.inv(prior.rotation) @ screen.loadings_FG) ** 2).sum(axis=1)
    n_cells = dict(zip(screen.table.conditions, screen.table.counts, strict=True))
    noise_Q = np.array([1 / n_cells[c] + 1 / n_cells[c.control()] for c in asked])
    about_Q = np.ones(len(asked), dtype=bool)
    picks = greedy_design(covariance_FQQ, weight_F, rows, about_Q, noise_Q, N_CHOSEN)
    return [pick.candidate for pick in picks]


def by_diversity(
    screen: Screen, prior: EffectPrior, rest: list[tuple[str, ...]], known: list[tuple[str, ...]],
    rng: np.random.Generator,
) -> list[int]:  # fmt: skip
    """Farthest points in the features, or the parts, of perturbations."""
    every = [*known, *rest]
    parts = sorted({part for label in every for part in label})
    described = [np.array([[part in label for part in parts] for label in every], dtype=float)]
    for names, matrix in screen.features.values():
        dense = np.asarray(matrix.todense() if sparse.issparse(matrix) else matrix, dtype=float)
        place = {name: i for i, name in enumerate(names)}
        zero = np.zeros(dense.shape[1])
        rows = [
            np.sum([dense[place[p]] if p in place else zero for p in label], axis=0)
            for label in every
        ]
        rows = np.array(rows)
        described.append(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9))
    x = np.concatenate(described, axis=1)
    chosen = list(range(len(known)))
    picked = []
    for _ in range(N_CHOSEN):
        distance = np.linalg.norm(x[:, None] - x[chosen][None], axis=2).min(axis=1)
        distance[chosen] = -1
        best = np.flatnonzero(distance >= distance.max() - 1e-9)
        pick = int(rng.choice(best))
        chosen.append(pick)
        picked.append(pick - len(known))
    return picked


def error(screen: Screen, prior: EffectPrior, judged: list[tuple[str, ...]]) -> float:
    """Squared error over squared effect of perturbations that were not measured."""
    asked = [c for label in judged for c in conditions_of(screen, label)]
    full = screen.full
    row = {c: i for i, c in enumerate(full.conditions)}
    asked = [c for c in asked if c in row]
    basis = np.linalg.inv(full.rotation)
    rows = [row[c] for c in asked]
    measured = full.shifts[rows] @ basis @ screen.loadings_FG
    noise = full.noise[rows].sum() * ((basis @ screen.loadings_FG) ** 2).sum()
    predicted = prior.estimate(asked).mean @ screen.loadings_FG
    whole = (measured**2).sum() - noise
    return float((((measured - predicted) ** 2).sum() - noise) / whole)


def draws(name: str, screen: Screen) -> list[dict[str, object]]:
    """One row for each draw and strategy."""
    found = []
    for seed in range(N_DRAWS):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(screen.labels))
        known = [screen.labels[i] for i in order[:N_KNOWN]]
        rest = [screen.labels[i] for i in order[N_KNOWN:]]
        prior = screen.fit(known)
        picks = {
            "design": [by_design(screen, prior, rest)],
            "diversity": [by_diversity(screen, prior, rest, known, rng)],
            "chance": [rng.permutation(len(rest))[:N_CHOSEN].tolist() for _ in range(N_RANDOM)],
        }
        # What the two that choose leave is what all are judged on.
        gone = {i for name_ in STRATEGIES for i in picks[name_][0]}
        judged = [label for i, label in enumerate(rest) if i not in gone]
        for strategy, choices in picks.items():
            errors = []
            for choice in choices:
                taken = {rest[i] for i in choice}
                fitted = screen.fit([*known, *taken])
                own = [[label for label in some if label not in taken] for some in (judged, rest)]
                errors.append([error(screen, fitted, some) for some in own])
            nmse, nmse_rest = np.mean(errors, axis=0).round(4)
            chosen = " ".join("+".join(rest[i]) for i in choices[0])
            found.append({"screen": name, "draw": seed, "strategy": strategy, "nmse": nmse,
                          "nmse_rest": nmse_rest, "chosen": chosen})  # fmt: skip
        print(name, seed, [row["nmse"] for row in found[-3:]], flush=True)
    return found


SCREENS = {"simulated": simulated, "Norman": norman, "Papalexi": papalexi}


def main(out: Path, names: Sequence[str]) -> None:
    """Write the draws, and print what they amount to."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    parts = dict(list(pd.read_csv(out).groupby("screen"))) if names else {}
    for name in names or SCREENS:
        today = {"machine": "x86_64, one core", "date": date.today().isoformat()}
        parts[name] = pd.DataFrame(draws(name, SCREENS[name]())).assign(**today)
        table = pd.concat([parts[some] for some in SCREENS if some in parts])
        table.to_csv(out, index=False)
    for name, own in table.groupby("screen", sort=False):
        for column in ("nmse", "nmse_rest"):
            wide = own.pivot(index="draw", columns="strategy", values=column)
            tests = {
                other: round(
                    stats.wilcoxon(wide["design"], wide[other], alternative="less").pvalue, 4
                )
                for other in ("chance", "diversity")
            }
            print(name, column, wide.mean().round(3).to_dict(), "p", tests)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
