"""celldit, simple baselines and published methods under the measures of 2026, in one run.

    python notebooks/benchmarks/side_by_side.py [--seeds 0 1 2]
        [--problems papalexi norman kang tal1] [--peers DIR --peer scgen --peer cellflow ...]
        [--data DIR] [--quick]

Every method predicts what was held out. "closed" is the share of the way from no change (0) to a
replicate of the measurement with control cells of its own (1), in the mean over Pearson r, noise-
free squared error and energy distance; "composite" the mean score in the challenge's measures,
where 0 is the mean shift of what was trained on. celldit has two rows: with the network as far as
it is used, and the effect model alone. Published methods run in environments
of their own (docs/evaluation.md) and are judged at each point of their training; the best by
composite is kept, which is more than a user could do. They predict log expression; counts are drawn
from it by Poisson at the size of the control cell.

Writes docs/results/side_by_side.csv, one row for each problem, method and seed, and the table
between the marks in README.md and docs/evaluation.md. Rows that are there are not computed again.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from held_out import HeldOut, Problem, pose, problems
from methods import baseline_methods, celldit_method
from pages import ROOT, put
from peers import peer_methods
from scipy import sparse

import celldit as cd
from celldit.data.cells import Cells
from celldit.data.fields import Fields
from celldit.errors import CellditError
from celldit.evaluation.challenge.scores import compare_panels
from celldit.evaluation.resampling import progress
from celldit.training import TrainingConfig

RESULTS = ROOT / "docs" / "results" / "side_by_side.csv"
BASE, FLOOR = "mean shift", "no change"
METRICS = ("pearson", "nmse", "energy")
OURS = ("celldit", "celldit, effect model alone")
# Marks a mean over one or two seeds where other rows have more.
FEWER = {1: "¹", 2: "²"}
SIGNS = {"¹": "one seed", "²": "two seeds"}
TAL1 = {
    "perturbation_key": "perturbation",
    "control": "control",
    "covariate_keys": ["cell_type"],
    "size_factor_key": "size_factor",
}


def posed_problems(
    asked: list[str], data: Path | None, quick: bool
) -> list[tuple[Problem, HeldOut]]:
    """What is held out: knock-outs in a replicate, pairs, cell types, and Tal1 in a lineage."""
    found = []
    for problem in problems(full=not quick):
        if problem.dataset in asked:
            found.append((problem, pose(problem)))
    if "tal1" in asked:
        if data is None:
            raise SystemExit("tal1 is not bundled: give the folder of tal1_chimera.h5ad as --data.")
        adata = ad.read_h5ad(data / "tal1_chimera.h5ad")
        # Its size factors have mean 1 over all cells; as counts they know of no other cell.
        adata.obs["size_factor"] *= float(np.median(np.asarray(adata.X.sum(1))))
        cd.CellDiT.setup_anndata(adata, **TAL1)
        for lineage in ("Endothelium", "Neural crest"):
            problem = Problem("tal1", lineage, "context", (lineage,))
            found.append((problem, pose(problem, adata)))
    return found


def ours(posed: HeldOut, seed: int) -> dict[str, ad.AnnData]:
    """With the network, and the effect model alone, which is trained without it."""
    whole = celldit_method(posed, seed)
    model = cd.CellDiT(posed.train)
    config = TrainingConfig(new_cells=False, flow_epochs=0)
    model.train(seed=seed, config=config, enable_progress_bar=False)
    alone = model.predict(posed.controls, perturbations=posed.perturbations, seed=seed)
    return dict(zip(OURS, (whole, alone), strict=True))


def with_counts(predicted: ad.AnnData, posed: HeldOut, seed: int) -> ad.AnnData:
    """Counts drawn from predicted log expression, at the median size of the control cells."""
    if {"counts", "edited_counts"} & set(predicted.layers):
        return predicted
    rng = np.random.default_rng(seed)
    log = predicted.X.toarray() if sparse.issparse(predicted.X) else np.asarray(predicted.X)
    shares = np.expm1(np.clip(log, 0.0, None)) / 1e4
    fields = Fields.from_anndata(posed.train)
    size = float(np.median(Cells.from_anndata(posed.controls, fields).size_factors))
    result = predicted.copy()
    result.layers["edited_counts"] = sparse.csr_matrix(rng.poisson(shares * size).astype(np.int32))
    return result


def predict(
    posed: HeldOut, methods: Mapping[str, Callable], seed: int
) -> tuple[dict[str, ad.AnnData], dict[str, tuple[str, float]]]:
    """Predictions by row, several for a method with several points; method and seconds of each."""
    blind = replace(posed, truth=posed.truth[:0].copy())
    found, about = {}, {}
    for name, method in methods.items():
        started = time.perf_counter()
        try:
            predicted = method(blind, seed)
        except CellditError as error:
            print(f"  {name}: not run ({error})", flush=True)
            continue
        seconds = round(time.perf_counter() - started, 1)
        one = isinstance(predicted, Mapping)
        for point, cells in (predicted if one else {name: predicted}).items():
            row = point if not one or point in OURS else f"{name}, {point}"
            found[row] = with_counts(cells, posed, seed)
            about[row] = (row if row in OURS else name, seconds)
        print(f"  {name}: {seconds} s", flush=True)
    return found, about


def rows_of(
    problem: Problem, posed: HeldOut, methods: Mapping[str, Callable], seed: int
) -> pd.DataFrame:
    """Run methods on a problem, and score what they predict; of several points the best is kept."""
    predictions, about = predict(posed, methods, seed)
    table = compare_panels(predictions, posed.truth, posed.controls, baseline=BASE, seed=seed)
    measures = table.attrs["measures"]
    plain = cd.tl.compare(
        dict(predictions), posed.truth, posed.controls, equal_cells=True, n_repeats=3, seed=seed
    )
    records = pd.DataFrame(plain.attrs["by_condition"])
    for row in predictions:
        way = progress(records, row, "no change", METRICS, seed=seed)
        ends = [way.share, way.low, way.high]
        plain.loc[row, ["closed", "closed_low", "closed_high"]] = ends
    table.attrs, plain.attrs = {}, {}
    table = table.join(plain).drop(index="ceiling").round(5)
    table["method"] = [about[row][0] for row in table.index]
    table["seconds"] = [about[row][1] for row in table.index]
    table["point"] = table.index
    table.index.name = None
    best = table.groupby("method", sort=False)["composite"].idxmax().dropna()
    return (
        table.loc[best]
        .reset_index(drop=True)
        .assign(
            dataset=problem.dataset,
            problem=problem.name,
            seed=seed,
            measures="; ".join(measures),
            date=time.strftime("%Y-%m-%d"),
        )
    )


def render(table: pd.DataFrame) -> str:
    """Every method: the way closed, in the mean over seeds, ours with its interval."""
    methods = list(dict.fromkeys(m for m in table["method"] if m not in (*OURS, FLOOR)))
    methods += [m for m in OURS[::-1] if m in set(table["method"])]
    lines = ["| held out | " + " | ".join(methods) + " |", "|---" * (len(methods) + 1) + "|"]
    for (dataset, problem), rows in table.groupby(["dataset", "problem"], sort=False):
        cells = []
        for method in methods:
            own = rows[rows["method"] == method]
            shown = "-"
            if own["closed"].notna().any():
                shown = f"{own['closed'].mean():.2f}"
                low, high = own["closed_low"].mean(), own["closed_high"].mean()
                if method in OURS and np.isfinite(low):
                    shown += f" ({low:.2f} to {high:.2f})"
                shown += mark(own, table)
            cells.append(shown)
        lines.append(f"| {dataset}: {problem} | " + " | ".join(cells) + " |")
    return finish(lines, table)


def short(table: pd.DataFrame) -> str:
    """The best other method of each problem, the effect model alone, and celldit."""
    lines = [
        "| held out | mean shift | best other method | effect model alone | celldit |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for (dataset, problem), rows in table.groupby(["dataset", "problem"], sort=False):
        closed = rows.groupby("method")["closed"].mean()
        if not set(OURS) <= set(closed.index):
            continue
        best = closed.drop([*OURS, FLOOR]).idxmax()
        shown = [
            f"{closed[method]:.2f}{mark(rows[rows['method'] == method], table)}"
            for method in (BASE, best, OURS[1], OURS[0])
        ]
        lines.append(f"| {dataset.capitalize()}, {problem} | {' | '.join(shown)} |")
    return finish(lines, table)


def mark(own: pd.DataFrame, table: pd.DataFrame) -> str:
    """What stands behind a mean over fewer seeds than other rows have."""
    seeds = own["seed"].nunique()
    return FEWER.get(seeds, "") if seeds < table["seed"].nunique() else ""


def finish(lines: list[str], table: pd.DataFrame) -> str:
    """The table with what is to be known of all of it below."""
    text = "\n".join(lines)
    marked = [f"{sign} {named}" for sign, named in SIGNS.items() if sign in text]
    return f"{text}\n\n{'; '.join([when(table), *marked])}.\n"


def when(table: pd.DataFrame) -> str:
    """Dates, machine and seeds."""
    seeds = ", ".join(str(s) for s in sorted(set(table["seed"])))
    dates = sorted(set(table["date"]))
    days = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return f"{days}; 2 cores; seeds {seeds}"


def write_pages(table: pd.DataFrame) -> None:
    """Put the tables between the marks in README.md and docs/evaluation.md."""
    put("README.md", "benchmark", short(table))
    put("docs/evaluation.md", "benchmark", render(table))


def main() -> None:
    """Run what is missing, and write the table."""
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--problems", nargs="+", default=["papalexi", "norman", "kang"])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--peer", action="append", default=[])
    parser.add_argument("--methods", nargs="+", help="Some of the methods; all by default.")
    parser.add_argument("--only", help="One held-out problem, by its name.")
    parser.add_argument("--quick", action="store_true", help="The problems of README.md only.")
    parser.add_argument("--again", action="store_true", help="Compute rows again that are there.")
    asked = parser.parse_args()
    methods: dict[str, Callable] = dict(baseline_methods())
    if asked.peer:
        methods.update(peer_methods(asked.peer, asked.peers or Path("environments")))
    # One function makes both rows of celldit.
    methods[OURS[0]] = ours
    if asked.methods:
        methods = {name: m for name, m in methods.items() if name in {BASE, FLOOR, *asked.methods}}
    done = pd.read_csv(RESULTS) if RESULTS.is_file() else pd.DataFrame()
    for problem, posed in posed_problems(asked.problems, asked.data, asked.quick):
        if asked.only not in (None, problem.name):
            continue
        for seed in asked.seeds:
            print(f"{problem.dataset}, {problem.name}, seed {seed}", flush=True)
            there = set()
            if len(done):
                same = done["dataset"].eq(problem.dataset) & done["problem"].eq(problem.name)
                same &= done["seed"].eq(seed)
                if asked.again:
                    made = [*methods, *(OURS if OURS[0] in methods else ())]
                    done = done[~(same & done["method"].isin(made))]
                else:
                    there = set(done.loc[same, "method"])
            missing = {n: m for n, m in methods.items() if n in (BASE, FLOOR) or n not in there}
            if set(missing) <= {BASE, FLOOR} and {BASE, FLOOR} <= there:
                continue
            new = rows_of(problem, posed, missing, seed)
            new = new[~new["method"].isin(there)]
            shown = ["method", "composite", "closed", "closed_low", "closed_high", "nmse"]
            print(new[shown].to_string(), flush=True)
            done = pd.concat([done, new], ignore_index=True)
            done.to_csv(RESULTS, index=False)
    write_pages(done)
    print(render(done))


if __name__ == "__main__":
    main()
