"""Are the probabilities of cd.tl.effects right, and does its order find the genes that change?

Conditions are held out, the effect model is fitted on the rest (no epoch of training: on these
problems the network gets no weight but in mixed populations), and every gene of every held-out
condition is asked for. In "seen" nothing is held out but half of the cells, controls included,
which judge. In "null" control cells are dealt into ten fake perturbations, or knock-outs are
taken that do nothing (T cells that are not stimulated).

Columns: ``called``, genes with a local false sign rate below 5%; ``wrong``, share of these whose
measured change has the other sign, ``by_noise``, how many would have it if every sign were right
and the measured change noisy, and ``wrong_free``, the share free of that, (wrong - by_noise) / (1 -
2 by_noise); ``wrong_expressed`` is the last among genes with at least 0.5 counts per 10,000 in
controls. ``responding`` genes are measured more than four standard errors from 0, ``found`` are
those of them that are called with the right sign. ``in_50`` ... ``in_95``: share of measured
changes inside the intervals, widened by the measurement's noise, or of no change where nothing was
done; ``responding_in_90`` likewise. ``score_90`` is the mean interval score (Gneiting & Raftery
2007) of 90% intervals so widened. ``changed`` is the share of genes that have probably (above .8)
changed by more than a quarter of a doubling, ``sd`` the median standard deviation in logarithms to
the base 2. ``order`` is the average precision with which genes measured to change (false discovery
rate 5%) come first by the table's order (local false sign rate), ``order_by_size`` by absolute log
fold change, means over conditions with five such genes.

Methods: "table", what cd.tl.effects says; "one normal", normal intervals with the standard
deviation of the release before, which has neither the shape of errors nor the noise of controls.

A seed is that of training, of the halves and of the dealt controls; there is a row for each, and
the row "mean", with the standard deviation over seeds of three columns.

    python notebooks/benchmarks/effect_doubt.py docs/results/effect_doubt.csv 3 /path/to/data

"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import torch
from held_out import COMBINATIONS, KANG_TYPES, STRONGER_KNOCK_OUTS, chimeras
from scipy import stats
from sklearn.metrics import average_precision_score

import celldit as cd
from celldit.calibration.effects import EffectCalibration, ErrorShape
from celldit.calibration.rates.fold_change import PSEUDO_RATE
from celldit.calibration.rates.means import mean_rates, measured_fold_change
from celldit.conditions import ConditionTable
from celldit.data import Cells
from celldit.data.fields import Fields
from celldit.inference.effects.changes import effects_of
from celldit.inference.effects.table import CHANGED
from celldit.training import TrainingConfig

SURE, RESPONDS, EXPRESSED, MIN_CELLS, PROBABLY = 0.05, 4.0, 0.5, 20, 0.8
LEVELS = (0.5, 0.8, 0.9, 0.95)
SETUP = {
    "kang": {"perturbation_key": "condition", "covariate_keys": ["cell_type"]},
    "norman": {"perturbation_key": "perturbation"},
    "papalexi": {"perturbation_key": "perturbation", "covariate_keys": ["replicate"]},
}


@dataclass(frozen=True, eq=False)
class Problem:
    """Training cells, cells that judge, and the conditions that they judge.

    Attributes
    ----------
    group, name
        What it is pooled with, and its own name.
    train, truth
        Cells; the latter with controls.
    wanted
        Label and context of each condition; None for all.
    own_controls
        Whether the cells that judge have controls of their own.
    setup
        Arguments of ``setup_anndata``.
    """

    group: str
    name: str
    train: ad.AnnData
    truth: ad.AnnData
    wanted: list[tuple[str, str]] | None
    own_controls: bool
    setup: dict[str, object]

    @property
    def nothing(self) -> bool:
        """Whether nothing was done to any cell that would change it."""
        return self.group.endswith(("null", "not stimulated"))


def held_out(group: str, name: str, cells: ad.AnnData, hidden: np.ndarray, setup: dict,
             wanted: list[tuple[str, str]]) -> Problem:  # fmt: skip
    """Some conditions hidden from training."""
    return Problem(group, name, cells[~hidden].copy(), cells.copy(), wanted, False, setup)


def problems(folder: Path | None, seed: int) -> Iterator[Problem]:
    """All of them."""
    papalexi, kang, norman = cd.datasets.papalexi(), cd.datasets.kang(), cd.datasets.norman()
    for rep in ("rep_1", "rep_2", "rep_3"):
        hidden = (papalexi.obs["replicate"] == rep) & papalexi.obs["perturbation"].isin(
            STRONGER_KNOCK_OUTS
        )
        wanted = [(name, rep) for name in STRONGER_KNOCK_OUTS]
        yield held_out("Papalexi, new replicate", f"eight knock-outs in {rep}", papalexi,
                       hidden.to_numpy(), SETUP["papalexi"], wanted)  # fmt: skip
    for kind in KANG_TYPES:
        hidden = (kang.obs["condition"] == "IFNB") & (kang.obs["cell_type"] == kind)
        yield held_out("Kang, new cell type", kind, kang, hidden.to_numpy(), SETUP["kang"],
                       [("IFNB", kind)])  # fmt: skip
    labels = norman.obs["perturbation"].astype(str)
    pairs = sorted({label for label in labels if "+" in label})
    for group in [list(COMBINATIONS), *([pair] for pair in pairs)]:
        hidden = labels.isin(group).to_numpy()
        known = {part for label in labels[~hidden] for part in label.split("+")}
        if all(part in known for label in group for part in label.split("+")):
            name = "three pairs at once" if len(group) > 1 else "one pair at a time"
            yield held_out(f"Norman, {name}", " and ".join(group), norman, hidden, SETUP["norman"],
                           [(label, "") for label in group])  # fmt: skip
    if folder is not None:
        yield from of_folder(folder)
    for data, cells in (("papalexi", papalexi), ("kang", kang), ("norman", norman)):
        half = np.random.default_rng(seed).random(cells.n_obs) < 0.5
        yield Problem(f"{data.capitalize()}, seen", "half of the cells", cells[half].copy(),
                      cells[~half].copy(), None, True, SETUP[data])  # fmt: skip
    for data, cells in (("papalexi", papalexi), ("kang", kang)):
        key = str(SETUP[data]["perturbation_key"])
        for deal in range(3):
            dealt = cells[(cells.obs[key] == "control").to_numpy()].copy()
            number = np.random.default_rng((seed, deal)).integers(0, 20, dealt.n_obs)
            dealt.obs[key] = [f"fake{i}" if i < 10 else "control" for i in number]
            yield Problem(f"{data.capitalize()}, null", f"deal {deal}", dealt, dealt.copy(), None,
                          False, SETUP[data])  # fmt: skip


def of_folder(folder: Path) -> Iterator[Problem]:
    """Problems of data that celldit does not bundle."""
    embryo = chimeras(folder / "tal1_chimera.h5ad")
    mutant = (embryo.obs["perturbation"] != "control").to_numpy()
    label = str(embryo.obs["perturbation"][mutant].iloc[0])
    setup = {"perturbation_key": "perturbation", "covariate_keys": ["cell_type"]}
    for tissue in ("Neural crest", "Endothelium"):
        hidden = mutant & (embryo.obs["cell_type"] == tissue).to_numpy()
        yield held_out("Tal1, new tissue", tissue, embryo, hidden, setup, [(label, tissue)])
    jurkat = ad.read_h5ad(folder / "datlinger_tcr.h5ad")
    column = next(c for c in jurkat.obs if jurkat.obs[c].astype(str).str.contains("un").any()
                  and jurkat.obs[c].nunique() == 2)  # fmt: skip
    resting = jurkat[jurkat.obs[column].astype(str).str.contains("un").to_numpy()].copy()
    yield Problem("Datlinger, not stimulated", "20 knock-outs", resting, resting.copy(), None,
                  False, {"perturbation_key": "perturbation"})  # fmt: skip


def prepared(adata: ad.AnnData, setup: dict[str, object]) -> ad.AnnData:
    """The same cells, set up."""
    size = "total_umis" if "total_umis" in adata.obs else None
    cd.CellDiT.setup_anndata(adata, control="control", size_factor_key=size, **setup)
    return adata


def plain(calibration: EffectCalibration) -> EffectCalibration:
    """The calibration with one normal distribution and controls known without error."""
    by_kind = {k: replace(own, shape=ErrorShape()) for k, own in calibration.by_kind.items()}
    return replace(calibration, shape=ErrorShape(), by_kind=by_kind, one_count=0.0,
                   control_scatter=0.0)  # fmt: skip


def genes_of(problem: Problem, seed: int) -> pd.DataFrame:
    """A row for each method, condition and gene."""
    model = cd.CellDiT(prepared(problem.train, problem.setup))
    model.train(0, seed=seed, config=TrainingConfig(new_cells=False), enable_progress_bar=False)
    truth = prepared(problem.truth, problem.setup)
    cells = Cells.from_anndata(truth, Fields.from_anndata(truth), genes=model.genes)
    table = ConditionTable.from_cells(cells, "+")
    index = {(c.label("+", "control"), c.context): i for i, c in enumerate(table.conditions)}
    enough = {key for key, i in index.items() if table.counts[i] >= MIN_CELLS}
    keys = [key for key in problem.wanted or sorted(enough) if key[0] != "control"
            and key in enough and ("control", key[1]) in enough]  # fmt: skip
    if not keys:
        return pd.DataFrame()
    rates = mean_rates(cells, table.index, set(index.values()))
    conditions = [table.conditions[index[key]] for key in keys]
    rows = []
    for method in ("table", "one normal"):
        trained = model.trained
        if method == "one normal":
            trained = replace(trained, calibration=plain(trained.calibration))
        for key, effect in zip(keys, effects_of(trained, conditions), strict=True):
            control, treated = rates[index["control", key[1]]], rates[index[key]]
            measured_G, both_G = measured_fold_change(control, treated)
            spread = effect.spread
            # The prediction is counted from the same controls, unless others judge.
            noise_G = both_G if problem.own_controls else treated.log_variance_G
            truth = measured_G, noise_G
            if problem.nothing:
                truth = np.zeros_like(measured_G), np.zeros_like(noise_G)
            at_G = spread.cdf(*truth)
            false_G = stats.norm.sf(np.abs(spread.mean_G) / spread.scale_G)
            rows.append(
                pd.DataFrame(
                    {
                        "method": method,
                        "condition": " in ".join(filter(None, key)),
                        "predicted": spread.mean_G,
                        "lfsr": spread.false_sign_G if method == "table" else false_G,
                        "measured": measured_G,
                        "noise": noise_G,
                        "measured_z": measured_G / np.sqrt(both_G),
                        "expressed": control.mean_G - PSEUDO_RATE >= EXPRESSED,
                        "at": at_G,
                        "score": interval_score(spread, *truth),
                        "changed": spread.exceeds(CHANGED * np.log(2)) > PROBABLY,
                        "sd": spread.sd_G / np.log(2),
                    }
                )
            )
    return pd.concat(rows, ignore_index=True).assign(group=problem.group, name=problem.name)


def interval_score(spread, measured_G: np.ndarray, noise_G: np.ndarray) -> np.ndarray:
    """Width of the 90% interval and 2 / 10% of what lies outside, (G,)."""
    low_G, high_G = (spread.quantile(q) for q in (0.05, 0.95))
    # Half widths and the noise add up in squares.
    half = 1.645 * np.sqrt(noise_G)
    low_G = spread.mean_G - np.hypot(spread.mean_G - low_G, half)
    high_G = spread.mean_G + np.hypot(high_G - spread.mean_G, half)
    outside_G = (low_G - measured_G).clip(0) + (measured_G - high_G).clip(0)
    return high_G - low_G + 20 * outside_G


def discovered(z: np.ndarray) -> np.ndarray:
    """Genes that are measured to change at a false discovery rate of 5%."""
    return stats.false_discovery_control(2 * stats.norm.sf(np.abs(z))) < 0.05


def summary(own: pd.DataFrame) -> dict[str, object]:
    """One row of the table."""
    sure = own["lfsr"] < SURE
    responds = own["measured_z"].abs() > RESPONDS
    other = np.sign(own["predicted"]) != np.sign(own["measured"])
    flips = pd.Series(stats.norm.sf(own["predicted"].abs() / np.sqrt(own["noise"])), own.index)

    def free(chosen: pd.Series) -> float:
        by_noise = flips[chosen].mean()
        return (other[chosen].mean() - by_noise) / (1 - 2 * by_noise)

    order, by_size = [], []
    for _, one in own.groupby(["name", "condition"]):
        changes = discovered(one["measured_z"].to_numpy())
        if changes.sum() >= 5:
            order.append(average_precision_score(changes, -one["lfsr"]))
            by_size.append(average_precision_score(changes, one["predicted"].abs()))
    centred = (own["at"] - 0.5).abs() * 2
    found = int((sure & responds & ~other).sum())
    return {
        "conditions": own.groupby(["name", "condition"]).ngroups,
        "genes": len(own),
        "called": int(sure.sum()),
        "called_share": sure.mean(),
        "wrong": other[sure].mean(),
        "by_noise": flips[sure].mean(),
        "wrong_free": free(sure),
        "wrong_expressed": free(sure & own["expressed"]),
        "responding": int(responds.sum()),
        "found": found,
        **{f"in_{100 * level:.0f}": (centred < level).mean() for level in LEVELS},
        "responding_in_90": (centred[responds] < 0.9).mean(),
        "score_90": own["score"].mean(),
        "changed": own["changed"].mean(),
        "sd": own["sd"].median(),
        "order": np.mean(order) if order else np.nan,
        "order_by_size": np.mean(by_size) if by_size else np.nan,
    }


def main(out: Path, n_seeds: int, folder: Path | None) -> None:
    """Write one row for each group of problems, method and seed, after each seed."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = []
    for seed in range(n_seeds):
        found, start = [], time.process_time()
        for problem in problems(folder, seed):
            found.append(genes_of(problem, seed))
        every = pd.concat(found, ignore_index=True)
        rows += [
            {"problem": group, "method": method, "seed": str(seed), **summary(own)}
            for (group, method), own in every.groupby(["group", "method"], sort=False)
        ]
        write(pd.DataFrame(rows), out)
        print(f"seed {seed}: {time.process_time() - start:.0f} s of one core", flush=True)


def write(table: pd.DataFrame, out: Path) -> None:
    """The rows of all seeds, and their means."""
    by = table.groupby(["problem", "method"], sort=False)
    means = by.mean(numeric_only=True).reset_index().assign(seed="mean")
    for name in ("called", "wrong_free", "in_90"):
        means[f"{name}_sd"] = by[name].std().to_numpy()
    both = pd.concat([means, table], ignore_index=True).round(4)
    both["machine"], both["date"] = "x86_64, one core", date.today().isoformat()
    both.to_csv(out, index=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None)
