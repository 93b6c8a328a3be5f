"""``celldit benchmark``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from celldit.cli.guard import guard, say, say_json
from celldit.cli.options import Debug, Json, Quiet
from celldit.errors import UnknownNameError

if TYPE_CHECKING:
    import anndata as ad

    from celldit.evaluation.benchmark import Method, Posed, Problem


def benchmark(
    declared: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE.toml]", help="Data sets, problems, methods and seeds."),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder; what is finished there is kept.")
    ] = Path("results"),
    full: Annotated[
        bool,
        typer.Option(
            "--full/--quick",
            help="Also leave out each cell type, combination and pair alone, with three seeds "
            "(hours); or the six problems of the README (minutes).",
        ),
    ] = False,
    dataset: Annotated[
        list[str] | None, typer.Option(help="papalexi, kang or norman; repeat for several.")
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="Method, such as celldit; repeat for several.")
    ] = None,
    seed: Annotated[
        list[int] | None,
        typer.Option(help="Seed; repeat for several.", show_default="0; 0, 1, 2 with --full"),
    ] = None,
    max_epochs: Annotated[
        int | None, typer.Option(help="Most epochs of each stage.", show_default="by the data")
    ] = None,
    list_only: Annotated[
        bool, typer.Option("--list", help="List what would run, and stop.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Compute again what is finished.")
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare celldit with simple baselines on conditions that were held out.

    It can be stopped and started again: finished results stay. Writes benchmark.json, .csv and .md.
    Without FILE.toml it runs on the bundled data; docs/evaluation.md says what the file holds.
    """
    kept = f"Finished results stay in {output}; the same command goes on from there."
    with guard(debug=debug, quiet=quiet, kept=kept):
        from celldit.evaluation.benchmark import (
            Declaration,
            problems,
            read_declaration,
            run,
        )

        if declared is None:
            said = Declaration(problems(full=full), {}, seeds=(0, 1, 2) if full else (0,))
        else:
            said = read_declaration(declared)
        epochs = said.max_epochs if max_epochs is None else max_epochs
        methods = _methods(method or said.methods, epochs)
        requested = said.problems
        datasets = _choose("data set", dataset, list(dict.fromkeys(p.dataset for p in requested)))
        requested = [problem for problem in requested if problem.dataset in datasets]
        seeds = list(dict.fromkeys(seed or said.seeds))
        if list_only:
            _list(requested, list(methods), seeds, as_json)
            return
        results = run(
            requested,
            methods,
            output,
            data=said.data,
            seeds=seeds,
            overwrite=overwrite,
            report=None if quiet or as_json else _report,
        )
        if as_json:
            say_json(results)
            return
        say((output / "benchmark.md").read_text(encoding="utf-8"), quiet=quiet)
        say(f"The tables are in {output}: benchmark.md, .csv and .json.", quiet=quiet)


def celldit_method(posed: Posed, seed: int, *, max_epochs: int | None = None) -> ad.AnnData:
    """celldit as a method of the benchmark: default settings, nothing tuned to a problem.

    How to draw new cells, which is not asked for, is not learned; predictions are the same. Where a
    perturbation to predict, or a part of one, was never tried alone in training, it is given what
    its users would give it: the bundled pathways and terms, and the co-expression of the training
    controls.
    """
    from celldit.data.fields import Fields
    from celldit.data.labels.labels import parts
    from celldit.model import CellDiT
    from celldit.pp import gene_features
    from celldit.training.config import TrainingConfig

    fields = Fields.from_anndata(posed.train)
    trained, requested = (
        [parts(label, fields.perturbation_sep, fields.control) for label in set(labels)]
        for labels in (
            posed.train.obs[fields.perturbation_key].astype(str),
            posed.perturbations,
        )
    )
    alone = {names[0] for names in trained if len(names) == 1}
    train, features = posed.train, None
    if not {name for names in requested for name in names} <= alone:
        train = train.copy()
        features = gene_features(train, ["reactome", "go", "expression"], allow_missing=True)
    model = CellDiT(train, features=features)
    config = TrainingConfig(new_cells=False)
    model.train(max_epochs, seed=seed, config=config, enable_progress_bar=False)
    return model.predict(posed.controls, perturbations=posed.perturbations, seed=seed)


def _methods(requested: Sequence[str], max_epochs: int | None) -> dict[str, Method]:
    """The methods asked for, in that order; all when none is named."""
    from celldit.evaluation.benchmark import CELLDIT, baseline_methods

    measured_size: Method = partial(celldit_method, max_epochs=max_epochs)
    known: dict[str, Method] = {**baseline_methods(), CELLDIT: measured_size}
    return {name: known[name] for name in _choose("method", requested, list(known))}


def _choose(kind: str, requested: Sequence[str] | None, known: list[str]) -> list[str]:
    for name in requested or ():
        if name not in known:
            raise UnknownNameError.among(kind, name, known)
    return list(dict.fromkeys(requested)) if requested else known


def _report(done: int, total: int, cell: dict[str, Any]) -> None:
    what = f"[{done}/{total}] {cell['dataset']}, {cell['problem']}, {cell['method']}"
    if "skipped" in cell:
        say(f"{what}: not run")
        return
    numbers = " / ".join("-" if v is None else f"{v:.3f}" for v in cell["all_cells"].values())
    say(f"{what}, seed {cell['seed']}: {numbers} ({cell['seconds']:.1f} s)")


def _list(
    requested: Sequence[Problem], methods: Sequence[str], seeds: Sequence[int], as_json: bool
) -> None:
    if as_json:
        say_json(
            {
                "problems": [{"dataset": p.dataset, "held_out": p.held_out} for p in requested],
                "methods": list(methods),
                "seeds": list(seeds),
            }
        )
        return
    for problem in requested:
        say(f"{problem.dataset}: {', '.join(problem.held_out)}")
    say(f"methods: {', '.join(methods)}; seeds: {', '.join(map(str, seeds))}")
