"""What does a screen of another laboratory tell of perturbations that the user's own does not have?

Papalexi's and Norman's screens are cut in two: different cells, half of the genes each (drawn for
each, so that half of these are shared), a third of the perturbations in both, the rest in one of
them. The first is the user's, with cells; the second is known as a table of effects alone
(``cd.pp.effect_table``). Asked for are the perturbations that only the second has, in cells like
the user's, which are held out.

``nmse``
    Squared error of the mean log expression over the squared effect, each summed over perturbations
    and contexts, with the sampling noise of the measurement taken off both; 1 is no change.
``held``
    Share of log fold changes that 90% intervals hold, the noise of the measurement included, of
    genes that were measured to within a standard error of .5.
``source``
    *none*: the user's screen alone. *good*: the second screen. *half*: its effects times one half.
    *shuffled*: its rows dealt out at random, in two orders. *controls only*: the user's screen
    without a perturbed cell, with the second. *covariance*: what the user's controls say by their
    covariance (``cd.pp.control_effects``). *good, with the network*: the same trained in full.
``amplitude``, ``reliability``
    What was learned of the source on the shared perturbations.

    python notebooks/benchmarks/effects_elsewhere.py docs/results/effects_elsewhere.csv [SOURCE ...]

With names of sources only these are run, and added to what the file has.
A second table, ``effects_elsewhere_speed.csv``, is of 10,000 perturbations x 20,000 genes.
"""

from __future__ import annotations

import platform
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Collection
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import NamedTuple

import anndata as ad
import h5py
import numpy as np
import pandas as pd

import celldit as cd
from celldit.calibration.rates.means import mean_rates, measured_fold_change
from celldit.data import Cells, Fields
from celldit.effects.tables.reading import read_table
from celldit.effects.tables.table import EffectTable
from celldit.training import TrainingConfig

SEEDS = (0, 1, 2)
SHUFFLES = 2
EFFECT_MODEL = (
    "none", "good", "half", "controls only", "covariance",
    *(f"shuffled {i + 1}" for i in range(SHUFFLES)),
)  # fmt: skip
NETWORK = ("none, with the network", "good, with the network")
MIN_CELLS = 10
# Control cells that are moved, of each context.
MOVED = 150
Z = 1.6448536
MOST_NOISE = 0.5**2


class Halves(NamedTuple):
    """The user's cells, the other laboratory's, and cells of what only that perturbed."""

    own: ad.AnnData
    other: ad.AnnData
    hidden: ad.AnnData


def halves(name: str, seed: int) -> Halves:
    """Cut a bundled screen in two."""
    rng = np.random.default_rng(seed)
    screen = getattr(cd.datasets, name)()
    labels = np.array(["+".join(sorted(x.split("+"))) for x in screen.obs["perturbation"]])
    screen.obs["perturbation"] = pd.Categorical(labels)
    names = rng.permutation(sorted(set(labels) - {"control"}))
    third = len(names) // 3
    shared, rest = names[:third], names[third:]
    own, other = rest[: len(rest) // 2], rest[len(rest) // 2 :]
    first = rng.random(screen.n_obs) < 0.5
    genes = [np.sort(rng.permutation(screen.n_vars)[: screen.n_vars // 2]) for _ in range(2)]

    def cells(of: np.ndarray, labelled: list[str], columns: np.ndarray) -> ad.AnnData:
        cut = screen[of & np.isin(labels, labelled)][:, columns].copy()
        return cut[np.asarray(cut.X.sum(axis=1)).ravel() > 0].copy()

    return Halves(
        cells(first, ["control", *shared, *own], genes[0]),
        cells(~first, ["control", *shared, *other], genes[1]),
        cells(first, [*other], genes[0]),
    )


def set_up(adata: ad.AnnData) -> ad.AnnData:
    """Say what the columns mean."""
    contexts = ["replicate"] if "replicate" in adata.obs else []
    cd.CellDiT.setup_anndata(
        adata, perturbation_key="perturbation", covariate_keys=contexts,
        size_factor_key="total_umis",
    )  # fmt: skip
    return adata


def log_expression(counts: np.ndarray, sizes: pd.Series | np.ndarray) -> np.ndarray:
    """log(1 + counts per 10,000)."""
    return np.log1p(counts / np.asarray(sizes, dtype=float)[:, None] * 1e4)


def dense(adata: ad.AnnData) -> np.ndarray:
    return np.asarray(adata.X.todense(), dtype=float)


def scores(model: cd.CellDiT, data: Halves) -> dict[str, float]:
    """Error of the mean shift, and how many log fold changes intervals hold."""
    controls = data.own[(data.own.obs["perturbation"] == "control").to_numpy()].copy()
    asked = sorted(set(data.hidden.obs["perturbation"].astype(str)))
    context = "replicate" if "replicate" in controls.obs else None
    where = controls.obs[context].astype(str) if context else pd.Series("", controls.obs_names)
    first = (where.groupby(where).cumcount() < MOVED).to_numpy()
    predicted = model.predict(set_up(controls[first].copy()), perturbations=asked)
    error = size = 0.0
    made = log_expression(
        np.asarray(predicted.layers["counts"].todense(), dtype=float),
        predicted.obs["size_factor"].to_numpy(float),
    )
    sides = {
        "control": (controls, log_expression(dense(controls), controls.obs["total_umis"])),
        "hidden": (data.hidden, log_expression(dense(data.hidden), data.hidden.obs["total_umis"])),
        "predicted": (predicted, made),
    }
    table = model.predict_effects(asked)
    held: list[np.ndarray] = []
    for label in asked:
        places = sorted(set(controls.obs[context])) if context else [None]
        for place in places:
            values = {}
            for name, (cells, log) in sides.items():
                rows = np.ones(len(log), dtype=bool)
                if name != "control":
                    rows &= (cells.obs["perturbation"].astype(str) == label).to_numpy()
                if context:
                    rows &= (cells.obs[context].astype(str) == place).to_numpy()
                values[name] = log[rows]
            truth, before = values["hidden"], values["control"]
            if len(truth) < MIN_CELLS:
                continue
            noise = sum(x.var(axis=0, ddof=1).sum() / len(x) for x in (truth, before))
            measured = truth.mean(axis=0) - before.mean(axis=0)
            # Edited cells keep what is random in them: compared with themselves.
            rows = first if context is None else first & (where == place).to_numpy()
            shift = values["predicted"].mean(axis=0) - sides["control"][1][rows].mean(axis=0)
            error += ((shift - measured) ** 2).sum() - noise
            size += (measured**2).sum() - noise
            held.append(_held(table, data, label, place, context))
    return {"nmse": error / size, "held": float(np.concatenate(held).mean())}


def _held(
    table: pd.DataFrame, data: Halves, label: str, place: str | None, context: str | None
) -> np.ndarray:
    """Whether each measured log fold change lies in its interval."""
    controls = data.own[(data.own.obs["perturbation"] == "control").to_numpy()]
    treated = data.hidden[(data.hidden.obs["perturbation"] == label).to_numpy()]
    both = ad.concat([controls, treated])
    if context:
        both = both[(both.obs[context].astype(str) == place).to_numpy()]
    both = set_up(both.copy())
    cells = Cells.from_anndata(both, Fields.from_anndata(both))
    rates = mean_rates(cells, (~cells.is_control).astype(int), {0, 1})
    fold, noise = measured_fold_change(rates[0], rates[1])
    rows = (table["perturbation"] == label) & ((table["context"] == place) if place else True)
    own = table[rows].set_index("gene").loc[list(cells.genes)]
    width = Z * np.sqrt(own["sd"].to_numpy() ** 2 + noise)
    inside = np.abs(own["log_fold_change"].to_numpy() - fold) <= width
    return np.asarray(inside[noise < MOST_NOISE])


def trained(
    data: Halves,
    tables: list[EffectTable],
    *,
    controls_only: bool = False,
    epochs: int | None = 0,
    seed: int = 0,
) -> cd.CellDiT:
    """A model of the user's cells."""
    own = data.own
    if controls_only:
        own = own[(own.obs["perturbation"] == "control").to_numpy()]
    # Numbers that tell nothing, for without a source nothing is known of a new perturbation, and
    # its name is refused; with them it is the mean of all.
    names = sorted(set(data.hidden.obs["perturbation"].astype(str)))
    names = sorted({part for name in names for part in name.split("+")})
    nothing = pd.DataFrame(np.random.default_rng(0).normal(size=(len(names), 4)), names)
    model = cd.CellDiT(set_up(own.copy()), features=nothing, effects=tables or None)
    config = TrainingConfig(new_cells=False)
    model.train(epochs, seed=seed, config=config, enable_progress_bar=False)
    return model


def shuffled(table: EffectTable, seed: int) -> EffectTable:
    """The same with effects dealt out to perturbations, all contexts of one together."""
    names = sorted(set(table.perturbations))
    dealt = dict(zip(names, np.random.default_rng(seed).permutation(names), strict=True))
    obs = table.obs.assign(perturbation=[dealt[name] for name in table.perturbations])
    return replace(table, obs=obs)


def covariance(own: ad.AnnData, name: str) -> EffectTable:
    """What the controls say; Papalexi knocks genes out, Norman activates them."""
    direction = "activation" if name == "norman" else "knock-out"
    return read_table(cd.pp.control_effects(set_up(own.copy()), direction=direction))


def study(name: str, seed: int, wanted: Collection[str]) -> list[dict[str, object]]:
    """Some sources for one cut."""
    data = halves(name, seed)
    table = read_table(cd.pp.effect_table(set_up(data.other.copy()), source="other", min_cells=10))
    tried: list[tuple[str, list[EffectTable], dict]] = [
        ("none", [], {}),
        ("good", [table], {}),
        (
            "half",
            [replace(table, effects=0.5 * table.effects[:], errors=0.5 * table.errors[:])],
            {},
        ),
        ("controls only", [table], {"controls_only": True}),
        ("covariance", [covariance(data.own, name)], {}),
    ]
    tried += [(f"shuffled {i + 1}", [shuffled(table, 100 * seed + i)], {}) for i in range(SHUFFLES)]
    tried += [
        ("none, with the network", [], {"epochs": None}),
        ("good, with the network", [table], {"epochs": None}),
    ]
    rows = []
    for source, tables, options in tried:
        if source not in wanted:
            continue
        model = trained(data, tables, seed=seed, **options)
        told = next(iter(model.trained.elsewhere.tables), None)
        rows.append(
            {
                "screen": name,
                "seed": seed,
                "source": source,
                **{k: round(v, 4) for k, v in scores(model, data).items()},
                "amplitude": round(told.amplitude, 3) if told else "",
                "reliability": round(told.reliability, 3) if told else "",
                "shared": len(told.shared) if told else "",
                "date": date.today().isoformat(),
                "machine": f"{platform.machine()}, 1 core",
            }
        )
        print(rows[-1], flush=True)
    return rows


def speed(folder: Path) -> dict[str, object]:
    """Read, match and use a table of 10,000 perturbations x 20,000 genes."""
    screen = set_up(cd.datasets.norman())
    path, rng = folder / "large.h5ad", np.random.default_rng(0)
    n, n_genes, block = 10_000, 20_000, 500
    genes = [*screen.var_names, *(f"other{i}" for i in range(n_genes - screen.n_vars))]
    labels = sorted(set(screen.obs["perturbation"].astype(str)) - {"control"})
    names = [*labels, *(f"gene{i}" for i in range(n - len(labels)))]
    empty = EffectTable(
        pd.DataFrame({"perturbation": names, "context": "", "direction": "", "n_cells": 100.0}),
        tuple(genes), np.zeros((n, 1), np.float32), source="large",
    )  # fmt: skip
    made = ad.AnnData(obs=empty.obs.set_index(pd.Index(names)), var=pd.DataFrame(index=genes))
    made.write_h5ad(path)
    with h5py.File(path, "a") as file:
        if "X" in file:
            del file["X"]
        for key in ("X", "layers/se"):
            data = file.create_dataset(key, (n, n_genes), np.float32)
            for start in range(0, n, block):
                values = rng.normal(0, 0.2, (block, n_genes)).astype(np.float32)
                data[start : start + block] = values if key == "X" else 0.2 + 0 * values
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    alone = cd.CellDiT(screen)
    start = time.perf_counter()
    alone.train(0, enable_progress_bar=False)
    without = time.perf_counter() - start
    start = time.perf_counter()
    model = cd.CellDiT(screen, effects=path)
    model.train(0, enable_progress_bar=False)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "perturbations": n, "genes": n_genes, "seconds_with_table": round(seconds, 1),
        "seconds_without": round(without, 1), "peak_gb_before": round(before / 1e6, 2),
        "peak_gb": round(peak / 1e6, 2), "known": len(model.trained.elsewhere.tables[0].keys),
        "date": date.today().isoformat(), "machine": f"{platform.machine()}, 1 core",
    }  # fmt: skip


def main() -> None:
    warnings.simplefilter("ignore")
    target = Path(sys.argv[1])
    some, rows = sys.argv[2:], []
    if some:
        rows = pd.read_csv(target, dtype=str, keep_default_na=False).to_dict("records")
    for wanted in [some] if some else [EFFECT_MODEL, NETWORK]:
        for seed in SEEDS:
            for name in ("norman", "papalexi"):
                rows += study(name, seed, wanted)
                pd.DataFrame(rows).to_csv(target, index=False)
    if some:
        return
    with tempfile.TemporaryDirectory() as folder:
        measured = pd.DataFrame([speed(Path(folder))])
    measured.to_csv(target.with_name(f"{target.stem}_speed.csv"), index=False)


if __name__ == "__main__":
    main()
