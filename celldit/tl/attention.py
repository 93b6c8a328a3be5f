"""Which gene sets the network reads together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd

from celldit.conditions import Condition
from celldit.errors import InputError
from celldit.inference import request
from celldit.inference.attribution import read_by_tokens, view_names
from celldit.inference.counterfactual import control_means
from celldit.inference.solver import SolverConfig
from celldit.tl.cells import read_cells, store, trained_parts, writable
from celldit.tl.programs import controls_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celldit.model import CellDiT

__all__ = ["attention"]


def attention(
    adata: ad.AnnData,
    model: CellDiT,
    perturbation: str | Sequence[str],
    *,
    dose: object = None,
    time: float | None = None,
    key_added: str = "celldit_attention",
    max_cells: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """Show the attention of the network that makes the prediction, token by token.

    For the control cells of each context on their way to a perturbation: how much each token (a
    gene set, module or gene) reads from each other, mean over cells, blocks, heads and the steps of
    the solver. Attention says where the network looks, not what causes what; what each gene set
    carries of the shift says :func:`celldit.tl.programs`.

    Parameters
    ----------
    adata
        Cells of which the controls are asked; with the model's genes.
    model
        A trained model whose network attends to gene sets, which is the default.
    perturbation
        One or several perturbations.
    dose, time
        As for :meth:`celldit.CellDiT.predict`.
    key_added
        Key in ``uns``.
    max_cells
        Most control cells of a context; more are thinned.
    seed
        Of the thinning.

    Returns
    -------
    pandas.DataFrame
        Also written to ``uns[key_added]``. Columns ``perturbation``, ``context``, ``reader``,
        ``token``, ``attention`` (sums to 1 over the tokens that a reader reads) and ``difference``
        (minus that of the same cells when nothing is done to them).

    Raises
    ------
    InputError
        If the network has no tokens of that kind, or no cell is a control.
    UnknownNameError
        If the model does not know a perturbation.
    NotTrainedError
        If the model was not trained.

    Examples
    --------
    >>> table = cd.tl.attention(adata, model, "STAT1")
    >>> sums = table.groupby(["context", "reader"])["attention"].sum()
    >>> bool(sums.round(5).eq(1).all())
    True
    """
    trained = trained_parts(model)
    names = view_names(trained)
    if max_cells < 1:
        raise InputError(f"max_cells={max_cells!r} must be at least 1.")
    target = writable(adata, copy=False)
    labels = request.labels_of(trained, perturbation)
    cells = controls_of(read_cells(adata, trained), trained.fields.control, max_cells, seed)
    z_NKD = trained.autoencoder.encode(cells)
    means, fields = control_means(cells, z_NKD), trained.fields
    before: dict[Condition, np.ndarray] = {}
    frames = []
    for label in labels:
        asked = request.counterfactual_conditions(cells, label, fields, dose, time)
        for condition in dict.fromkeys(asked):
            rows = [i for i, other in enumerate(asked) if other == condition]
            own_NKD = z_NKD[rows]
            control = condition.control()
            if control not in before:
                before[control] = read_by_tokens(trained, own_NKD, control, SolverConfig(), means)
            read_TT = read_by_tokens(trained, own_NKD, condition, SolverConfig(), means)
            frames.append(
                pd.DataFrame(
                    {
                        "perturbation": label,
                        "context": condition.context,
                        "reader": np.repeat(np.array(names, dtype=object), len(names)),
                        "token": np.tile(np.array(names, dtype=object), len(names)),
                        "attention": read_TT.ravel(),
                        "difference": (read_TT - before[control]).ravel(),
                    }
                )
            )
    table = pd.concat(frames, ignore_index=True)
    table.index = table.index.astype(str)
    store(target, key_added, {"table": table})
    return table
