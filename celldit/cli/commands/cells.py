"""Commands that write cells: predict, generate, interpolate, trajectory, embed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import celldit as cd
from celldit.cli import options
from celldit.cli.command import Answer, command
from celldit.cli.files import claim, named_pairs, write_table
from celldit.io.files import read_h5ad, refuse_existing, write_h5ad

if TYPE_CHECKING:
    import anndata as ad


@command(group=options.SAMPLING)
def predict(
    model: options.ModelFolder,
    perturbation: options.NamedPerturbations,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="File to write (.h5ad, .zarr); with --shard, a folder."
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Argument(
            metavar="DATA.h5ad",
            help="Cells to perturb: the controls in it. A model's folder holds no cells.",
        ),
    ] = None,
    effects_output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Log fold changes with their sd as well (.csv, .zarr, .h5ad)."
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Make one of N shards only; one that is there already is not made again.",
        ),
    ] = None,
    counts_layer: options.CountsLayer = None,
    missing: Annotated[
        Literal["refuse", "impute"],
        typer.Option(help="Genes that the data lack: refuse, or impute from the model's controls."),
    ] = "refuse",
    sampler: Annotated[
        Literal["transport", "inversion", "edit"],
        typer.Option(help="How the flow moves a cell; see CellDiT.predict."),
    ] = "transport",
    n_avg: Annotated[
        int | None,
        typer.Option(help="Draws of noise averaged at each step of edit.", show_default="4"),
    ] = None,
    t_start: Annotated[
        float | None,
        typer.Option(
            help="Flow time at which edit starts; later keeps more of the cell.", show_default="0"
        ),
    ] = None,
    device: options.Device = "cpu",
    overwrite: bool = False,
    **sampling: Any,
) -> Answer:
    """Predict control cells as if they had been perturbed.

    Example: celldit predict model screen.h5ad -p STAT1 -p IRF1+JAK2 -o predicted.h5ad
    """
    if data is None:
        raise typer.BadParameter(
            "DATA.h5ad is missing: a model's folder holds no cells, so say which to perturb."
        )
    if shard is None:
        claim(output, overwrite=overwrite)
    as_table = effects_output is not None and effects_output.suffix not in (".h5ad", ".zarr")
    if effects_output is not None and as_table:
        refuse_existing([effects_output], overwrite=overwrite)
    elif effects_output is not None:
        claim(effects_output, overwrite=overwrite)
    from celldit.inference.maps.edit import EditConfig

    edit: dict[str, Any] = {"n_avg": n_avg, "t_start": t_start}
    edit = {name: value for name, value in edit.items() if value is not None}
    loaded = cd.CellDiT.load(model).to(device)
    predicted = loaded.predict(
        read_h5ad(data),
        perturbations=perturbation,
        sampler=sampler,
        edit=EditConfig(**edit) if edit else None,
        out=output,
        overwrite=overwrite,
        shard=shard,
        counts_layer=counts_layer,
        missing=missing,
        **sampling,
    )
    if effects_output is not None:
        asked = {name: sampling[name] for name in ("dose", "time") if name in sampling}
        if as_table:
            write_table(loaded.predict_effects(perturbation, **asked), effects_output)
        else:
            loaded.predict_effects(perturbation, **asked, out=effects_output, overwrite=overwrite)
    kinds = predicted.obs["extrapolation"].astype(str)
    label = loaded.fields.perturbation_key
    assert label is not None
    by_label = dict(zip(predicted.obs[label].astype(str), kinds, strict=True))
    said = [f"{predicted.n_obs:,} predicted cells are in {output}."]
    said += [f"  {name}: {kind}" for name, kind in by_label.items()]
    if effects_output is not None:
        said.append(f"Their effects are in {effects_output}.")
    return Answer({"output": str(output), "n_cells": predicted.n_obs, "predicted": by_label}, said)


@command(group=options.SAMPLING)
def generate(
    model: options.ModelFolder,
    n_cells: Annotated[int, typer.Argument(metavar="N", help="How many cells.")],
    output: options.CellsOutput,
    perturbation: Annotated[
        str | None,
        typer.Option("--perturbation", "-p", metavar="LABEL", help="Label.", show_default="all"),
    ] = None,
    covariate: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN=VALUE", help="Value of a covariate; repeat for several."),
    ] = None,
    like: Annotated[
        Path | None, typer.Option(help="Follow the composition of this .h5ad file.")
    ] = None,
    counts_layer: options.CountsLayer = None,
    device: options.Device = "cpu",
    overwrite: bool = False,
    **sampling: Any,
) -> Answer:
    """Generate cells that never were.

    Example: celldit generate model 1000 -p STAT1 --covariate replicate=rep_1 -o new.h5ad
    """
    covariates = named_pairs(covariate, "--covariate takes COLUMN=VALUE, not {}.", empty=True)
    claim(output, overwrite=overwrite)
    loaded = cd.CellDiT.load(model).to(device)
    generated = loaded.generate(
        n_cells,
        perturbation=perturbation,
        covariates=covariates or None,
        like=None if like is None else read_h5ad(like),
        counts_layer=counts_layer,
        out=output,
        overwrite=overwrite,
        **sampling,
    )
    said = f"{generated.n_obs:,} new cells are in {output}."
    return Answer({"output": str(output), "n_cells": generated.n_obs}, [said])


@command(group=options.DRAWN)
def interpolate(
    model: options.ModelFolder,
    data: options.Screen,
    output: options.CellsOutput,
    start: Annotated[str | None, typer.Option(metavar="LABEL", help="First condition.")] = None,
    end: Annotated[str | None, typer.Option(metavar="LABEL", help="Last condition.")] = None,
    start_cell: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="First cell, in place of --start; repeat for several."),
    ] = None,
    end_cell: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Last cell, in place of --end; repeat for several."),
    ] = None,
    share: Annotated[
        list[float],
        typer.Option(metavar="NUMBER", help="How far along the way, 0 to 1; repeat for several."),
    ] = [0.0, 0.25, 0.5, 0.75, 1.0],  # noqa: B006
    dose: options.Dose = None,
    overwrite: bool = False,
    **drawn: Any,
) -> Answer:
    """Show cells on the way from one condition to another, or from one observed cell to another.

    Between conditions each control cell goes from what it would be under the first to what it would
    be under the last; the control's label is allowed.

    Example: celldit interpolate model screen.h5ad --start control --end STAT1 -o way.h5ad
    """
    cells, conditions = (start_cell, end_cell), (start, end)
    if all(conditions) == all(cells) or (any(conditions) and any(cells)):
        raise typer.BadParameter("Give --start and --end, or --start-cell and --end-cell.")
    claim(output, overwrite=overwrite)
    loaded = cd.CellDiT.load(model)
    ask: Callable[..., ad.AnnData] = loaded.interpolate_cells if start_cell else loaded.interpolate
    first, last = cells if start_cell else conditions
    ends: dict[str, Any] = {"start": first, "end": last, "shares": share}
    if not start_cell:
        ends["dose"] = dose
    way = ask(read_h5ad(data), **ends, out=output, overwrite=overwrite, **drawn)
    said = f"{way.n_obs:,} cells on the way are in {output}."
    return Answer({"output": str(output), "n_cells": way.n_obs}, [said])


@command(group=options.DRAWN)
def trajectory(
    model: options.ModelFolder,
    data: options.Screen,
    output: options.CellsOutput,
    time: Annotated[
        list[float],
        typer.Option(
            metavar="NUMBER",
            help="Time of the cells, where the data have times; repeat for several.",
        ),
    ],
    overwrite: bool = False,
    **drawn: Any,
) -> Answer:
    """Show cells at other times, those between the trained ones included.

    Example: celldit trajectory model day10.h5ad --time 10.25 --time 10.5 -o path.h5ad
    """
    claim(output, overwrite=overwrite)
    loaded = cd.CellDiT.load(model)
    path = loaded.trajectory(read_h5ad(data), times=time, out=output, overwrite=overwrite, **drawn)
    return Answer(
        {"output": str(output), "n_cells": path.n_obs, "time_course": loaded.time_course},
        [f"{path.n_obs:,} cells are in {output}.", f"Between the times of training: "
         f"{loaded.time_course}"],
    )  # fmt: skip


@command()
def embed(
    model: options.ModelFolder,
    data: options.Screen,
    output: options.AnnDataOutput,
    key_added: Annotated[str, typer.Option(metavar="KEY", help="Name in obsm.")] = "X_celldit",
) -> Answer:
    """Write the cells with the model's latent of each, for neighbours and clusters.

    Example: celldit embed model screen.h5ad -o embedded.h5ad
    """
    adata = read_h5ad(data)
    cd.tl.embed(adata, cd.CellDiT.load(model), key_added=key_added)
    write_h5ad(output, adata)
    n_cells, n_dims = adata.obsm[key_added].shape
    said = f"{n_cells:,} cells, each with {n_dims} numbers in obsm[{key_added!r}], are in {output}."
    return Answer({"output": str(output), "n_cells": n_cells, "n_dims": n_dims}, [said])
