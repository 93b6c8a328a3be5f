"""The whole way once, on real data: train, predict what was held out, generate, judge."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import anndata as ad
import pandas as pd
from rich.console import Console
from rich.table import Table

from celldit import datasets
from celldit.cli.files import write_figure
from celldit.data import check_no_leak, setup_anndata, split
from celldit.data.fields import Fields
from celldit.errors import FileError
from celldit.evaluation.baselines import predict_baseline
from celldit.io.files import refuse_existing, write_h5ad
from celldit.io.replacing import made_whole
from celldit.model import CellDiT
from celldit.pl.effects.effect import effect
from celldit.progress import quietly
from celldit.report.numbers import LABELS, Verdict, judge
from celldit.report.report import report

if TYPE_CHECKING:
    from matplotlib.figure import Figure


CELLDIT = "celldit"
METRICS = ("pearson", "nmse", "energy")
#: Knock-outs that are held out in one replicate.
HELD_OUT = tuple(
    (knock_out, "rep_3")
    for knock_out in ("IFNGR1", "JAK2", "STAT1", "SMAD4", "IRF1", "BRD4", "STAT2", "UBE2L6")
)
#: What the demo writes, and what each file is.
FILES = {
    "predicted.h5ad": "control cells of replicate 3 as if each gene had been knocked out",
    "generated.h5ad": "new cells of all perturbations",
    "table.csv": "the table above",
    "effects.png": "predicted against measured effects",
    "report.html": "how good it is, in pictures, for a browser",
    "report.csv": "every number of the report",
    "report.json": "the same, for programs",
}
#: Ends the names of columns measured with equal numbers of cells.
EQUAL = "_equal"
#: Beside no change, which a report has anyway.
BASELINES = ("mean shift", "additive ridge", "nearest")


@dataclass(frozen=True, eq=False)
class DemoResult:
    """What the demo found: the table of methods, the files written, and the wall time in seconds.

    The table has the measures on all cells, and the same with equal numbers of cells (``_equal``).
    """

    table: pd.DataFrame
    paths: list[Path]
    seconds: float

    def verdicts(self, suffix: str = "") -> list[Verdict]:
        """celldit against the best baseline, on all cells or (``_equal``) with equal numbers."""
        values = self.table[[f"{m}{suffix}" for m in METRICS]].set_axis(list(METRICS), axis=1)
        return judge(values.to_dict("index"), METRICS, CELLDIT)


def run_demo(
    folder: Path,
    *,
    seed: int = 0,
    adata: ad.AnnData | None = None,
    held_out: Sequence[tuple[str, str]] = HELD_OUT,
    tokenizer: str = "gene_sets",
    max_epochs: int | None = None,
    n_cells: int = 1000,
    overwrite: bool = False,
    console: Console | None = None,
) -> DemoResult:
    """Train on a knock-out screen, predict held-out knock-outs, and compare with baselines.

    The files of :data:`FILES` go into the folder, each whole or not at all; FileError if one exists
    already (unless `overwrite`), or cannot be written. `adata` and `held_out` are other data, set
    up with one covariate, and the (perturbation, context) pairs to hold out of them, by default
    eight knock-outs in one replicate of :func:`celldit.datasets.papalexi`. `tokenizer` and
    `max_epochs` are as in :class:`celldit.CellDiT` and :meth:`celldit.CellDiT.train`, `n_cells` the
    new cells to generate; ``Console(quiet=True)`` is for silence.
    """
    started = time.perf_counter()
    console = console or Console()
    if folder.exists() and not folder.is_dir():
        raise FileError(f"{folder} is a file, where the demo needs a folder; name another.")
    paths = [folder / name for name in FILES]
    refuse_existing(paths, overwrite=overwrite)
    if adata is None:
        adata = datasets.papalexi()
        setup_anndata(
            adata,
            perturbation_key="perturbation",
            covariate_keys=["replicate"],
            size_factor_key="total_umis",
        )
    train, truth, controls = _sides(adata, held_out)
    labels = sorted(set(truth.obs[Fields.from_anndata(truth).perturbation_key].astype(str)))
    console.print(
        f"Training on {train.n_obs:,} cells x {train.n_vars} genes. Held out: "
        f"{', '.join(labels)}, {truth.n_obs:,} cells, to be predicted from "
        f"{controls.n_obs:,} control cells.",
        highlight=False,
    )
    model = CellDiT(train, tokenizer)
    model.train(max_epochs, seed=seed, enable_progress_bar=not console.quiet)
    with console.status("predicting"):
        predicted = model.predict(controls, perturbations=labels, seed=seed)
        baselines = {
            name: predict_baseline(name, train, controls, labels, seed=seed) for name in BASELINES
        }
        write_h5ad(folder / "predicted.h5ad", predicted)
    with console.status(f"generating {n_cells:,} cells"):
        write_h5ad(folder / "generated.h5ad", model.generate(n_cells, seed=seed))
    with console.status("comparing, and writing a report"), quietly():
        measured = ad.concat([controls, truth])
        measured.uns = controls.uns
        write_figure(folder / "effects.png", partial(draw_effects, measured, predicted))
        with warnings.catch_warnings():
            # Conditions too small for two halves: left out of every row alike.
            warnings.filterwarnings("ignore", message=".*scores are missing.*")
            report(
                predicted,
                truth,
                controls,
                folder / "report.html",
                name=CELLDIT,
                title="The demo: knock-outs in a replicate without them",
                baselines=baselines,
                metrics=METRICS,
                n_repeats=5,
                n_resamples=0,
                overwrite=True,
                seed=seed,
            )
    table = both_ways(folder / "report.json")
    with made_whole(folder / "table.csv") as path:
        table.to_csv(path)
    result = DemoResult(table, paths, time.perf_counter() - started)
    _conclude(result, model.flow_weight, predicted, console)
    return result


def _sides(
    adata: ad.AnnData, held_out: Sequence[tuple[str, str]]
) -> tuple[ad.AnnData, ad.AnnData, ad.AnnData]:
    """Cells to learn from, those held out, and the controls that predictions of them start from."""
    fields = Fields.from_anndata(adata)
    key, (where,) = fields.perturbation_key, fields.covariate_keys
    adata = adata.copy()
    split(adata, "pair", test=held_out)
    is_test = (adata.obs.pop("split") == "test").to_numpy()
    train, truth = adata[~is_test].copy(), adata[is_test].copy()
    check_no_leak(train, truth)
    own = (train.obs[key] == fields.control) & train.obs[where].isin(set(truth.obs[where]))
    return train, truth, train[own.to_numpy()].copy()


def both_ways(report: Path) -> pd.DataFrame:
    """The measures on all cells, and beside them with equal numbers of cells, as a report has them.

    Read back rather than computed again, so that one number has one value wherever it is told.
    """
    content = json.loads(report.read_text(encoding="utf-8"))
    whole, equal = (
        pd.DataFrame(content[part]).set_index("method") for part in ("summary", "equal_cells")
    )
    return equal.add_suffix(EQUAL).join(whole)[[*METRICS, *(f"{m}{EQUAL}" for m in METRICS)]]


def _conclude(
    result: DemoResult,
    weight: dict[str, float],
    predicted: ad.AnnData,
    console: Console,
) -> None:
    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    console.print(comparison_table(result.table))
    say(
        "Averages over the held-out conditions. The ceiling is half of the measured cells as a\n"
        "prediction of the other half; with equal cells, every method has as many as it has."
    )
    for manner, suffix in (("all cells", ""), ("equal cells", EQUAL)):
        verdicts = result.verdicts(suffix)
        n_wins = sum(verdict.wins for verdict in verdicts)
        say(f"\nOn {manner}, celldit beats every baseline in {n_wins} of {len(verdicts)} measures:")
        for verdict in verdicts:
            say(f"  {verdict}")
    for kind in dict.fromkeys(predicted.obs["extrapolation"].astype(str)):
        found = (
            "Trials on held-out conditions gave the network no weight here, so\nthese predictions "
            "are those of the effect model."
        )
        if weight[kind]:
            found = (
                f"By trials on held-out conditions, {weight[kind]:.0%} of what the\nnetwork adds "
                "to the effect model is used."
            )
        say(f"\nKind of prediction: {kind}. {found}")
    say("\nWritten:")
    for path, about in zip(result.paths, FILES.values(), strict=True):
        say(f"  {path}  {about}")
    say(f"All in {result.seconds:.0f} s.")


def comparison_table(table: pd.DataFrame) -> Table:
    """Draw what :func:`both_ways` returns."""
    drawn = Table("method", title="What was held out, predicted")
    for metric in METRICS:
        drawn.add_column(LABELS[metric], justify="right")
    for title, suffix in (("all cells", ""), ("equal cells", EQUAL)):
        drawn.add_section()
        drawn.add_row(f"[italic]{title}[/italic]")
        values = table[[f"{metric}{suffix}" for metric in METRICS]]
        for name, row in values.dropna(how="all").iterrows():
            drawn.add_row(f"  {name}", *(f"{value:.3f}" for value in row))
    return drawn


def draw_effects(measured: ad.AnnData, predicted: ad.AnnData, save: Path, show: bool) -> None:
    """Predicted against measured effects, with a title and a legend for who sees it alone."""
    from matplotlib import pyplot

    figure = cast("Figure", effect(measured, predicted, n_genes=6, show=show, return_fig=True))
    figure.suptitle("Shift of genes by knock-outs in a replicate predicted without them", y=1.03)
    first = figure.axes[0]
    named = {"a gene": first.collections[0], "predicted as measured": first.lines[0]}
    figure.legend(named.values(), named.keys(), loc="upper center", ncols=2, frameon=False,
                  bbox_to_anchor=(0.5, 0.0))  # fmt: skip
    figure.savefig(save, dpi=150, format="png", bbox_inches="tight")
    pyplot.close(figure)
