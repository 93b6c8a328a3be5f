"""Handing a problem to a peer as files, and reading what it predicted."""

from __future__ import annotations

import json
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from held_out import HeldOut

from celldit.data.cells import Cells
from celldit.data.fields import Fields
from celldit.data.labels.labels import parts
from celldit.errors import InputError

__all__ = ["read_points", "write_request"]


def write_request(posed: HeldOut, folder: Path, *, seed: int, steps: float = 1.0) -> None:
    """Write what a peer may know: training cells, control cells, and the labels to predict.

    Parameters
    ----------
    posed
        The problem; ``truth`` is not written.
    folder
        Where to; must exist.
    seed
        Of training.
    steps
        Factor on the length of training.
    """
    fields = Fields.from_anndata(posed.train)
    train = Cells.from_anndata(posed.train, fields)
    controls = Cells.from_anndata(posed.controls, fields, genes=train.genes)
    for name, cells in (("train", train), ("controls", controls)):
        _plain(cells, fields.control).write_h5ad(folder / f"{name}.h5ad")
    labels = sorted({*train.perturbations, *posed.perturbations} - {fields.control})
    request = {
        "asked": list(posed.perturbations),
        "parts": {p: list(parts(p, fields.perturbation_sep, fields.control)) for p in labels},
        "control": fields.control,
        "seed": seed,
        "steps": steps,
    }
    (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")


def read_points(posed: HeldOut, folder: Path) -> dict[str, ad.AnnData]:
    """Read the predictions of a peer, by the point of its training.

    Returns
    -------
    dict
        Log expression in ``X``, with the data set's own columns in ``obs``.

    Raises
    ------
    InputError
        If the peer wrote none.
    """
    fields = Fields.from_anndata(posed.train)
    controls = Cells.from_anndata(posed.controls, fields)
    covariates = controls.covariates.assign(context=controls.contexts).drop_duplicates("context")
    found = {}
    for path in sorted((folder / "points").glob("*.h5ad")):
        cells = ad.read_h5ad(path)
        obs = cells.obs.astype(str).merge(covariates, on="context", how="left")
        obs[fields.perturbation_key] = obs["perturbation"].to_numpy()
        kept = [fields.perturbation_key, *fields.covariate_keys]
        cells.obs = pd.DataFrame(obs[kept].to_numpy(), columns=kept, index=cells.obs_names)
        cells.uns["seconds"] = float(cells.uns["seconds"])
        found[path.stem] = cells
    if not found:
        raise InputError("The peer ended without a prediction.")
    return found


def _plain(cells: Cells, control: str) -> ad.AnnData:
    obs = pd.DataFrame(
        {
            "perturbation": cells.perturbations.astype(str),
            "context": cells.contexts.astype(str),
            "is_control": cells.perturbations == control,
            "size_factor": np.asarray(cells.size_factors, dtype=np.float64),
        },
        index=[str(name) for name in cells.names],
    )
    var = pd.DataFrame(index=list(cells.genes))
    return ad.AnnData(cells.counts.astype(np.float32), obs=obs, var=var)
