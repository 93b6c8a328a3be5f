"""Gene sets: what carries a shift, what the network reads together, what cells express."""

from __future__ import annotations

from collections.abc import Sequence

import anndata as ad
import numpy as np
import pandas as pd
import torch

from celldit.arguments import check_whole
from celldit.conditions import Condition
from celldit.data.cells import Cells
from celldit.data.labels.columns import obs_column
from celldit.errors import InputError
from celldit.inference import request
from celldit.inference.attribution import Attribution, attribute, read_by_tokens, view_names
from celldit.inference.counterfactual import control_means
from celldit.inference.solver import SolverConfig
from celldit.model import CellDiT
from celldit.pl.gene_names import GeneNames
from celldit.tl.cells import read_cells, store, text_rows, trained_parts, writable
from celldit.training.trained import Trained

REST = "outside the tokens"
N_GENES = 5
BATCH = 2048


def programs(
    adata: ad.AnnData,
    model: CellDiT,
    perturbation: str | Sequence[str],
    *,
    groupby: str | None = None,
    dose: object = None,
    time: float | None = None,
    key_added: str = "celldit_programs",
    max_cells: int = 500,
    seed: int = 0,
) -> pd.DataFrame:
    """Say how much of a predicted shift each gene set carries, in every context.

    The network's velocity is a sum over its tokens (gene sets, modules or genes, whatever the
    tokenizer makes), so its part of the shift is divided exactly. The effect model's part is
    divided by what the tokens see of it (:mod:`celldit.inference.attribution`). Shares are lengths
    along the shift over its own length; a program that works against it has a negative share.

    Parameters
    ----------
    adata
        Cells of which the controls are asked; with the model's genes.
    model
        A trained model whose network attends to gene sets, which is the default.
    perturbation
        One or several perturbations.
    groupby
        Column of ``adata.obs`` by which to tell the cells of a context apart, such as cell types
        that the model was not told; None for none.
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
        One row for each perturbation, context, group and program, the strongest first. Columns:
        ``perturbation``, ``context`` and the one of `groupby`; ``program``; ``share`` of the whole
        shift, which sums to 1, and its two parts ``effect_model`` and ``network``; ``size``, the
        length of the program's own shift in units of log expression; and ``genes``, those that it
        moves most, with the change of their log expectation. ``uns[key_added]`` holds the table,
        and for each perturbation, context and group the shift by program along the latent's
        dimensions (``latent``) and in genes (``genes``), which sum to the whole.

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
    >>> table = cd.tl.programs(adata, model, "STAT1")
    >>> bool(table.groupby("context")["share"].sum().round(5).eq(1).all())
    True
    """
    trained = trained_parts(model)
    trained.flow.views  # noqa: B018 - refuses other networks before anything is read
    check_whole(max_cells, "max_cells")
    target = writable(adata, key_added)
    labels = request.labels_of(trained, perturbation)
    names_N = None if groupby is None else obs_column(adata, groupby, "groupby").astype(str)
    measured = read_cells(adata, trained)
    rows = _control_rows(measured, max_cells, seed)
    cells = measured.take(rows)
    z_NKD = trained.autoencoder.encode(cells)
    conditions = [
        condition
        for label in labels
        for condition in request.counterfactual_conditions(cells, label, trained.fields, dose, time)
    ]
    many_NKD = torch.cat([z_NKD] * len(labels))
    groups = None if names_N is None else names_N.iloc[rows].tolist() * len(labels)
    means = control_means(cells, z_NKD)
    found = attribute(trained, many_NKD, conditions, SolverConfig(), groups, means)
    names = GeneNames.of(adata.var, None)
    table = _table(found, trained, groupby, names)
    asked = [
        "|".join(part for part in (_label(c, trained), c.context, group) if part)
        for c, group in zip(found.conditions, found.groups, strict=True)
    ]
    entries = {
        "table": table,
        "asked": np.array(asked, dtype=object),
        "programs": np.array([*found.names, REST], dtype=object),
        "latent": found.parts_QRF.astype(np.float32),
        "genes": found.genes_QRG.astype(np.float32),
    }
    store(target, key_added, entries)
    return table


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
    names = np.array(view_names(trained), dtype=object)
    check_whole(max_cells, "max_cells")
    target = writable(adata, key_added)
    labels = request.labels_of(trained, perturbation)
    measured = read_cells(adata, trained)
    cells = measured.take(_control_rows(measured, max_cells, seed))
    z_NKD = trained.autoencoder.encode(cells)
    means, fields = control_means(cells, z_NKD), trained.fields
    before: dict[Condition, np.ndarray] = {}
    frames = []
    for label in labels:
        asked = request.counterfactual_conditions(cells, label, fields, dose, time)
        for condition in dict.fromkeys(asked):
            own_NKD = z_NKD[[other == condition for other in asked]]
            control = condition.control()
            if control not in before:
                before[control] = read_by_tokens(trained, own_NKD, control, SolverConfig(), means)
            read_TT = read_by_tokens(trained, own_NKD, condition, SolverConfig(), means)
            said = {
                "perturbation": label,
                "context": condition.context,
                "reader": np.repeat(names, len(names)),
                "token": np.tile(names, len(names)),
                "attention": read_TT.ravel(),
                "difference": (read_TT - before[control]).ravel(),
            }
            frames.append(pd.DataFrame(said))
    table = text_rows(pd.concat(frames, ignore_index=True))
    store(target, key_added, {"table": table})
    return table


def token_activity(
    adata: ad.AnnData, model: CellDiT, *, key_added: str = "token_activity", copy: bool = False
) -> ad.AnnData | None:
    """Write the first eigengene of each gene set or module that the model was fitted with.

    An eigengene is the first principal component of the genes of a set, fitted on the training
    cells, signed so that a high value means that the set is expressed (Langfelder & Horvath 2007,
    BMC Systems Biology 1:54; Tomfohr, Lu & Kepler 2005, BMC Bioinformatics 6:225).

    Parameters
    ----------
    adata
        N measured or predicted cells with the model's genes.
    model
        A trained model with the tokenizer ``"gene_sets"`` or ``"modules"``.
    key_added
        Key in ``obsm`` and ``uns``.
    copy
        Return a changed copy instead of changing `adata`.

    Returns
    -------
    AnnData or None
        With ``copy=True`` the changed copy. Written: ``obsm[key_added]``, float32, shape (N, T),
        and ``uns[key_added]["names"]``, the names of the T sets.

    Raises
    ------
    InputError
        If the model's tokens are single genes, or genes are missing.
    NotTrainedError
        If the model was not trained.

    Examples
    --------
    >>> cd.tl.token_activity(adata, model)
    >>> "HALLMARK_INTERFERON_GAMMA_RESPONSE" in adata.uns["token_activity"]["names"]
    True
    """
    trained = trained_parts(model)
    tokenizer = trained.autoencoder.tokenizer
    if tokenizer.name not in ("gene_sets", "modules"):
        raise InputError(
            f"This model has the tokenizer {tokenizer.name!r}, whose tokens are single genes; "
            'token_activity needs one with tokenizer="gene_sets" or "modules".'
        )
    target = writable(adata, key_added, copy)
    cells = read_cells(adata, trained)
    activity_NT = np.zeros((cells.n_cells, tokenizer.n_identities), dtype=np.float32)
    for start in range(0, cells.n_cells, BATCH):
        rows = slice(start, start + BATCH)
        activity_NT[rows] = tokenizer(cells.take(rows)).values[:, :, 0].numpy()
    target.obsm[key_added] = activity_NT
    store(target, key_added, {"names": np.array(tokenizer.token_names, dtype=object)})
    return target if copy else None


def _control_rows(cells: Cells, max_cells: int, seed: int) -> np.ndarray:
    """Rows of control cells, at most so many of a context. InputError if there are none."""
    if not cells.is_control.any():
        raise InputError(
            f"No cell of adata is labelled {cells.control!r}; predictions start from control "
            "cells, so add some."
        )
    rng = np.random.default_rng(seed)
    kept = []
    for context in np.unique(cells.contexts[cells.is_control]):
        rows = np.flatnonzero(cells.is_control & (cells.contexts == context))
        kept.append(rng.permutation(rows)[:max_cells])
    return np.sort(np.concatenate(kept))


def _table(
    found: Attribution, trained: Trained, groupby: str | None, written: GeneNames
) -> pd.DataFrame:
    names = np.array([*found.names, REST], dtype=object)
    symbols = [written.symbol(gene) for gene in trained.genes]
    rest_QRF = found.rest_QF[:, None]
    effect_QRF = np.concatenate([found.effect_QTF, rest_QRF], axis=1)
    network_QRF = np.concatenate([found.network_QTF, np.zeros_like(rest_QRF)], axis=1)
    changes_QRG = found.genes_QRG
    frames = []
    for q, condition in enumerate(found.conditions):
        shift_F = found.shift_QF[q]
        square = float(shift_F @ shift_F)
        along_F = shift_F / square if square > 0 else shift_F
        effect_R, network_R = effect_QRF[q] @ along_F, network_QRF[q] @ along_F
        order = np.argsort(-(effect_R + network_R), kind="stable")
        frame = pd.DataFrame(
            {
                "perturbation": _label(condition, trained),
                "context": condition.context,
                **({} if groupby is None else {groupby: found.groups[q]}),
                "program": names,
                "share": effect_R + network_R,
                "effect_model": effect_R,
                "network": network_R,
                "size": np.linalg.norm(effect_QRF[q] + network_QRF[q], axis=1),
                "genes": [_most_moved(row, symbols) for row in changes_QRG[q]],
            }
        )
        frames.append(frame.iloc[order])
    return text_rows(pd.concat(frames, ignore_index=True))


def _label(condition: Condition, trained: Trained) -> str:
    return condition.label(trained.fields.perturbation_sep, trained.fields.control)


def _most_moved(change_G: np.ndarray, genes: Sequence[str]) -> str:
    strongest = np.argsort(-np.abs(change_G), kind="stable")[:N_GENES]
    return ", ".join(f"{genes[g]} {change_G[g]:+.2f}" for g in strongest)
