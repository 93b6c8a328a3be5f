"""One page for a collaborator who installs nothing."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np

from celldit.arguments import check_known, check_seed, check_whole, text_list
from celldit.compute import threads
from celldit.conditions.strata import StratumKey
from celldit.data.cells import Cells
from celldit.data.checks import check_anndata
from celldit.data.query import query_fields, selected
from celldit.errors import InputError
from celldit.inference import request
from celldit.io.files import check_page, refuse_existing
from celldit.io.replacing import made_whole
from celldit.pl.gene_names import GeneNames
from celldit.report.explore.content import content
from celldit.report.explore.page import render
from celldit.training.trained import Trained

if TYPE_CHECKING:
    from celldit.model import CellDiT


#: Above this a page opens slowly, and mail servers refuse it.
MOST_BYTES = 10_000_000


def explore(
    adata: ad.AnnData,
    model: CellDiT,
    path: str | os.PathLike[str],
    perturbations: Sequence[str] | str | None = None,
    *,
    contexts: Sequence[str] | str | None = None,
    targets: Mapping[str, Any] | None = None,
    dose: object = None,
    time: float | None = None,
    title: str | None = None,
    max_cells: int = 150,
    overwrite: bool = False,
    seed: int = 0,
) -> Path:
    """Write a page in which predicted effects can be explored, in one file without a network.

    It shows, for a perturbation and a context: how far the prediction reaches; every gene's change
    with its doubt, as a volcano plot and a table that can be searched, sorted and downloaded;
    control cells before and after in one plane; the gene sets that carry the shift; and all
    perturbations ranked by how near they bring the cells to a target state.

    Parameters
    ----------
    adata
        Measured cells, set up or with the columns that the model knows.
    model
        A trained model.
    path
        Where to write the page (``.html``).
    perturbations
        Labels, new combinations included; None for all of training.
    contexts
        Contexts with control cells in `adata`; None for all of them.
    targets
        States to reach, by name: a query of ``obs`` or a boolean mask of cells each. Every measured
        perturbation is a target anyway.
    dose, time
        Where the training data have them.
    title
        Of the page.
    max_cells
        Most control cells of a context that are shown before and after.
    overwrite
        Replace a file that is there.
    seed
        Of the choice of cells.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    InputError
        If plotly is not installed, no context has control cells, a number or target cannot be used,
        or the page would be larger than 10 MB.
    UnknownNameError
        If a perturbation or context is not known.
    FileError
        If the file exists or cannot be written.
    NotTrainedError
        If the model was not trained.

    Examples
    --------
    >>> from celldit.report import explore
    >>> page = explore(adata, model, "explore.html", ["STAT1", "IRF1+JAK2"])  # doctest: +SKIP
    """
    from celldit.model import CellDiT

    if not isinstance(model, CellDiT):
        raise InputError(
            f"model must be a CellDiT, not {type(model).__name__}; the AnnData comes first: "
            "cd.report.explore(adata, model, path)."
        )
    trained = model.trained
    check_anndata(adata, "adata")
    check_whole(max_cells, "max_cells")
    check_seed(seed)
    out = check_page(path)
    if importlib.util.find_spec("plotly") is None:
        raise InputError(
            "The page is drawn with plotly, which is not installed; pip install 'celldit[explore]'."
        )
    refuse_existing([out], overwrite=overwrite)
    fields = query_fields(adata, trained.fields)
    cells = Cells.from_anndata(adata, fields, genes=trained.genes)
    control = trained.fields.control
    labels = [name for name in request.labels_or_all(trained, perturbations) if name != control]
    shown = _contexts(trained, cells, contexts, time)
    if targets is not None and not isinstance(targets, Mapping):
        raise InputError("targets must be a dict of names and queries, such as {'B cells': ...}.")
    masks = {
        str(name): selected(adata, chosen, f"targets[{str(name)!r}]")
        for name, chosen in (targets or {}).items()
    }
    with threads():
        found = content(
            trained, cells, labels, shown, masks, dose=dose, max_cells=max_cells, seed=seed
        )
    names = GeneNames.of(adata.var, None)
    if names.differ:
        found["symbols"] = [names.symbol(gene) for gene in trained.genes]
    page = render(found, "What these cells would do" if title is None else str(title))
    if len(page) > MOST_BYTES:
        raise InputError(
            f"The page would hold {len(page) / 1e6:.0f} MB ({len(labels)} perturbations, "
            f"{len(shown)} contexts, {len(trained.genes)} genes), more than opens quickly; pass "
            "fewer perturbations= or contexts=."
        )
    with made_whole(out) as place:
        place.write_bytes(page)
    return out


def _contexts(
    trained: Trained, cells: Cells, contexts: Sequence[str] | str | None, time: float | None
) -> list[StratumKey]:
    """Contexts with controls at hand, the largest first, each at its time."""
    when = request.check_time(time, trained.fields)
    own = cells.contexts[cells.is_control].astype(str)
    if not len(own):
        raise InputError(
            f"No cell of adata is labelled {trained.fields.control!r}, and the page shows control "
            "cells before and after; add control cells."
        )
    names, counts = np.unique(own, return_counts=True)
    chosen = list(names[np.argsort(-counts, kind="stable")])
    if contexts is not None:
        chosen = text_list(contexts, "contexts")
        check_known(chosen, list(names), "context with control cells")
    if trained.fields.time_key is not None and when is None:
        known = sorted({c.time for c in trained.frequencies if c.time is not None})
        raise InputError(f"The page shows one time; pass time=, for example time={known[-1]:g}.")
    return [(str(name), when) for name in chosen]
