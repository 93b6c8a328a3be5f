"""Commands that compare predictions with cells: evaluate, baseline, submission."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import celldit as cd
from celldit.arguments import check_plain
from celldit.cli import options
from celldit.cli.command import Answer, command, note
from celldit.cli.files import named_pairs, read_lines, read_screen, set_up, write_table
from celldit.errors import FileError, InputError
from celldit.io.files import check_page, read_h5ad, refuse_existing, write_h5ad

if TYPE_CHECKING:
    import anndata as ad
    import pandas as pd


@command(columns=options.SCREEN)
def evaluate(
    predicted: options.Predicted,
    truth: Annotated[
        Path, typer.Argument(metavar="TRUTH.h5ad", help="Measured cells, raw counts.")
    ],
    columns: dict[str, Any],
    output: options.Table = None,
    control_cells: options.ControlCells = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE.html", help="Report to write, with pictures; .csv, .json too."),
    ] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE.h5ad", help="Another prediction for the report; repeat for several."
        ),
    ] = None,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Add the simple predictors to the report.")
    ] = False,
    predicted_effects: Annotated[
        Path | None,
        typer.Option(metavar="FILE.csv", help="Predicted effects with sd, for the report."),
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Measure; repeat for several; or all.")
    ] = None,
    preset: Annotated[
        Literal["vcc2026"] | None,
        typer.Option(help="The six scored measures of Arc's challenge, in place of --metric."),
    ] = None,
    engine: Annotated[
        Literal["cell-eval2", "celldit"],
        typer.Option(help="Who computes the preset; the values are the same."),
    ] = "cell-eval2",
    min_cells: options.MinCells = 10,
    seed: options.Seed = 0,
    overwrite: bool = False,
    quiet: bool = False,
    as_json: bool = False,
) -> Answer:
    """Score predicted cells against measured ones.

    What the columns of TRUTH.h5ad mean is read from the file if it was set up, else taken from the
    prediction; the options say otherwise.

    Example: celldit evaluate predicted.h5ad screen.h5ad --report report.html -o scores.csv
    """
    if output is None and report is None and quiet and not as_json:
        raise typer.BadParameter("--quiet without --output, --report or --json has no result.")
    if report is None and (baseline or baselines or predicted_effects):
        raise typer.BadParameter(
            "--baseline, --baselines and --predicted-effects belong to --report FILE.html."
        )
    others = named_pairs(baseline, "--baseline {} must be NAME=FILE.h5ad.")
    from celldit.evaluation.expression import (
        align_genes,
        seen_in_training,
        seen_note,
        truth_fields,
    )

    if report is not None:
        check_page(report)
        pages = [report, report.with_suffix(".csv"), report.with_suffix(".json")]
        refuse_existing(pages, overwrite=overwrite)
    table_of_effects = _read_effects(predicted_effects)
    guess, measured = read_h5ad(predicted), read_h5ad(truth)
    set_up(measured, columns, _assumed(guess, measured))
    # Scores, baselines and report then find the genes in one order, and none notes another.
    guess = align_genes(guess, measured.var_names, "predicted")
    controls = measured
    if control_cells is not None:
        controls = align_genes(read_h5ad(control_cells), measured.var_names, "control")
    given_baselines = {name: read_h5ad(Path(path)) for name, path in others.items()}
    if baselines:
        names = [predicted.stem, *given_baselines]
        given_baselines |= _simple(guess, measured, controls, names, seed)
    _check_library_sizes(measured, guess)
    # One name may be that of a list, such as all.
    metrics: Any = metric[0] if metric is not None and len(metric) == 1 else metric
    chosen: dict[str, Any] = {"metrics": metrics, "min_cells": min_cells, "seed": seed}
    with warnings.catch_warnings():
        # A screen holds more than was predicted, which is nothing to warn of.
        warnings.filterwarnings("ignore", message=".*conditions are not scored.*")
        table = cd.tl.evaluate(guess, measured, controls, preset=preset, engine=engine, **chosen)
    if preset is None:
        table = _predicted_only(table)
    for name, reason in table.attrs["not_scored"].items():
        note(f"{name} is not scored: {reason}.", quiet=quiet)
    seen = seen_in_training(guess, truth_fields(measured, controls))
    if seen:
        note(seen_note(seen), quiet=quiet)
    write_table(table, output)
    said = [_shown(table)]
    if report is not None:
        cd.tl.report(
            guess,
            measured,
            controls,
            report,
            name=predicted.stem,
            baselines=given_baselines,
            effects=table_of_effects,
            overwrite=overwrite,
            **chosen,
        )
        said.append(f"The report is in {report}, its numbers beside it as .csv and .json.")
    if output is not None or report is None:
        said.append(f"The table is in {output}." if output else "Keep it with --output FILE.")
    return Answer(table.astype(object).where(table.notna(), None).to_dict("records"), said)


def _simple(
    guess: ad.AnnData, measured: ad.AnnData, controls: ad.AnnData, taken: Sequence[str], seed: int
) -> dict[str, ad.AnnData]:
    """The simple predictors, but for no change, which a report has anyway.

    InputError if one of the names that are `taken` is theirs.
    """
    from celldit.evaluation.compare import with_baselines

    found, _ = with_baselines(dict.fromkeys(taken, guess), measured, controls, True, seed=seed)
    return {name: one for name, one in found.items() if name not in {*taken, "no change"}}


def _read_effects(path: Path | None) -> pd.DataFrame | None:
    if path is None:
        return None
    import pandas as pd

    check_plain(path)
    try:
        # A gene named NA is a gene.
        return pd.read_csv(path, keep_default_na=False, na_values={"sd": [""]})
    except (OSError, ValueError) as error:
        raise FileError(f"The effects cannot be read from {path} ({error}).") from error


def _assumed(guess: ad.AnnData, measured: ad.AnnData) -> dict[str, Any]:
    """What the prediction knows of measured cells that do not say themselves what they hold."""
    from celldit.data.fields import Fields, is_set_up

    if not is_set_up(guess):
        return {}
    known = Fields.from_anndata(guess).arguments()
    # A prediction keeps its own counts and library sizes, under names of its own.
    for name in ("counts_layer", "size_factor_key", "dose_key", "time_key"):
        known.pop(name, None)
    trained_on = guess.uns["celldit"].get("trained_on", {})
    for name, there in (("counts_layer", measured.layers), ("size_factor_key", measured.obs)):
        if name in trained_on and trained_on[name] in there:
            known[name] = str(trained_on[name])
    return known


def _check_library_sizes(measured: ad.AnnData, guess: ad.AnnData) -> None:
    """Refuse a truth that would be normalised to another library size than the prediction."""
    import numpy as np

    from celldit.data.cells import Cells
    from celldit.data.fields import Fields

    fields = Fields.from_anndata(measured)
    if fields.size_factor_key is not None or "size_factor" not in guess.obs:
        return
    n_predicted = float(np.median(guess.obs["size_factor"]))
    n_measured = float(np.median(Cells.from_anndata(measured, fields).size_factors))
    if not 0.5 < n_predicted / n_measured < 2:
        raise InputError(
            f"The predicted cells have a library size of {n_predicted:,.0f} (median), but the "
            f"counts of a measured cell sum to {n_measured:,.0f}; name the column of the measured "
            "library sizes with --size-factor-key."
        )


def _predicted_only(table: pd.DataFrame) -> pd.DataFrame:
    """Leave out what was measured but not predicted."""
    reasons = table.attrs["not_scored"]
    left_out = [name for name, reason in reasons.items() if reason.startswith("0 predicted")]
    contexts = table["context"]
    # As the names of conditions are written.
    names = table["perturbation"] + (" in " + contexts).where(contexts != "", "")
    kept = table[~names.isin(left_out)].reset_index(drop=True)
    kept.attrs["not_scored"] = {k: why for k, why in reasons.items() if k not in left_out}
    return kept


def _shown(table: pd.DataFrame) -> str:
    if "measure" in table:
        shown = table if (table["context"] != "").any() else table.drop(columns="context")
        return str(shown.to_string(index=False, float_format=lambda v: f"{v:.4g}", na_rep="-"))
    wide = table.pivot(index=["perturbation", "context"], columns="metric", values="value")
    wide = wide[list(dict.fromkeys(table["metric"]))]
    return str(wide.T.to_string(float_format=lambda v: f"{v:.4g}", na_rep="-"))


@command(columns=options.SCREEN)
def baseline(
    train: Annotated[
        Path, typer.Argument(metavar="TRAIN.h5ad", help="Cells to learn from, raw counts.")
    ],
    perturbation: options.NamedPerturbations,
    output: options.AnnDataOutput,
    columns: dict[str, Any],
    name: Annotated[
        str,
        typer.Option(
            help="no change, mean shift, majority vote, additive ridge, nearest, "
            "latent arithmetic or covariance of controls."
        ),
    ] = "additive ridge",
    control_cells: options.ControlCells = None,
    seed: options.Seed = 0,
) -> Answer:
    """Predict with a simple baseline, in the layout of celldit predict.

    Example: celldit baseline screen.h5ad -p STAT1 --name nearest --perturbation-key perturbation
    -o nearest.h5ad
    """
    from celldit.evaluation.baselines import predict_baseline

    screen = read_screen(train, columns)
    base = screen if control_cells is None else read_h5ad(control_cells)
    predicted = predict_baseline(name, screen, base, perturbation, seed=seed)
    write_h5ad(output, predicted)
    return Answer(
        {"output": str(output), "baseline": name, "n_cells": predicted.n_obs},
        [f"{predicted.n_obs:,} cells predicted by {name!r} are in {output}."],
    )


@command(columns=("perturbation_key", "control"))
def submission(
    predicted: options.Predicted,
    controls: Annotated[
        Path, typer.Argument(metavar="CONTROL.h5ad", help="Measured control cells, raw counts.")
    ],
    output: options.AnnDataOutput,
    columns: dict[str, Any],
    panel: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Genes of the panel in order, one a line."),
    ] = None,
    perturbations: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Perturbations asked for, one a line."),
    ] = None,
) -> Answer:
    """Write the file of Arc's challenge of 2026, and check it.

    Raw counts, genes in the order of the panel (that of CONTROL.h5ad by default), and
    obs["target"], with control cells as non-targeting. The prediction says which column holds
    labels, and what the control's is.

    Example: celldit submission predicted.h5ad controls.h5ad --panel panel.txt -o submission.h5ad
    """
    from celldit.data.fields import Fields, is_set_up
    from celldit.evaluation.challenge.submission import submission as make

    guess, base = read_h5ad(predicted), read_h5ad(controls)
    known = Fields.from_anndata(guess) if is_set_up(guess) else Fields()
    made = make(
        guess,
        list(base.var_names.astype(str)) if panel is None else read_lines(panel),
        base,
        perturbation_key=columns.get("perturbation_key")
        or known.perturbation_key
        or "perturbation",
        control_label=columns.get("control", [known.control, *known.other_controls]),
        perturbations=None if perturbations is None else read_lines(perturbations),
    )
    write_h5ad(output, made)
    n_labels = made.obs["target"].nunique() - 1
    said = {"output": str(output), "n_cells": made.n_obs, "n_perturbations": n_labels}
    return Answer(
        {**said, "n_genes": made.n_vars},
        [
            f"{made.n_obs:,} cells of {n_labels} perturbations and controls, {made.n_vars:,} "
            f"genes, are in {output}; counts, order of genes and labels are as the challenge wants "
            "them."
        ],
    )
