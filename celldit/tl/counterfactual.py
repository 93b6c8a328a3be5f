"""Write counterfactuals beside the observed counts."""

from __future__ import annotations

import warnings
from typing import Literal

import anndata as ad
import numpy as np
from scipy import sparse

from celldit.data.counts import read_counts
from celldit.data.genes import match_genes
from celldit.data.query import query_fields
from celldit.errors import InputError, examples
from celldit.inference.maps.edit import EditConfig
from celldit.model import CellDiT
from celldit.tl.cells import read_cells, store, trained_parts, writable


def counterfactual(
    adata: ad.AnnData,
    model: CellDiT,
    perturbation: str,
    *,
    dose: object = None,
    time: float | None = None,
    key_added: str = "celldit",
    sampler: Literal["transport", "inversion", "edit"] = "transport",
    solver: str | None = None,
    n_steps: int = 8,
    grid: Literal["uniform", "quadratic", "cosine"] = "uniform",
    guidance: float = 1.0,
    guidance_interval: tuple[float, float] = (0.0, 1.0),
    edit: EditConfig | None = None,
    seed: int = 0,
    batch_size: int = 512,
    copy: bool = False,
) -> ad.AnnData | None:
    """Predict the control cells of `adata` as if they had been perturbed, in place.

    The rows of cells that are not controls hold what was observed, so that predicted and measured
    perturbed cells stand in one matrix. Where `adata` has no perturbation column, every cell counts
    as a control. For a separate AnnData of predicted cells use :meth:`celldit.CellDiT.predict`.

    Parameters
    ----------
    adata
        N cells x G genes of raw counts, with all genes of the model (in any order, others allowed).
    model
        A trained model.
    perturbation
        Label such as ``"STAT1"`` or ``"IRF1+JAK2"``.
    dose, time
        Where the training data have them.
    key_added
        Prefix of the keys that are written.
    sampler, solver, n_steps, grid, guidance, guidance_interval, edit, seed, batch_size
        As in :meth:`celldit.CellDiT.predict`.
    copy
        Return a changed copy instead of changing `adata`.

    Returns
    -------
    AnnData or None
        With ``copy=True`` the changed copy. These keys are written:

        ``layers["{key_added}_mean"]``
            Expected counts of each control cell at its own size factor, float32 CSR. Genes that the
            model does not know keep their observed counts.
        ``layers["{key_added}_counts"]``
            Counts drawn from the negative binomial, int32 CSR.
        ``obsm["X_{key_added}"]``
            Latent, float32: where a control cell would be, and where any other cell is.
        ``obs["{key_added}_predicted"]``
            Whether the row is a prediction (True) or observed (False).
        ``uns["{key_added}"]["counterfactual"]``
            What made it: perturbation, sampler, solver, seed, model, version.

    Raises
    ------
    InputError
        If genes are missing, there are no control cells, or a number cannot be used.
    UnknownNameError
        If nothing is known of the perturbation.
    NotTrainedError
        If the model was not trained.

    Examples
    --------
    >>> import celldit as cd
    >>> cd.tl.counterfactual(adata, model, "STAT1")            # doctest: +SKIP
    >>> adata.layers["celldit_mean"], adata.obsm["X_celldit"]  # doctest: +SKIP
    """
    trained = trained_parts(model)
    if not isinstance(perturbation, str):
        raise InputError(
            "counterfactual takes one perturbation at a time, such as 'STAT1'; for several call "
            "model.predict(adata, perturbations=[...])."
        )
    target = writable(adata, key_added, copy)
    cells = read_cells(adata, trained)
    if not cells.is_control.any():
        raise InputError(
            f"No cell of adata is labelled {trained.fields.control!r}; predictions start from "
            "control cells, so add some."
        )
    observed = read_counts(adata, query_fields(adata, trained.fields).counts_layer, None)
    position = match_genes(adata.var_names, trained.genes)
    _warn_unknown_genes(adata, position)
    controls = adata[cells.is_control]
    predicted = model.predict(
        controls.to_memory() if adata.isbacked else controls,
        perturbations=[perturbation],
        dose=dose,
        time=time,
        sampler=sampler,
        solver=solver,
        n_steps=n_steps,
        grid=grid,
        guidance=guidance,
        guidance_interval=guidance_interval,
        edit=edit,
        seed=seed,
        batch_size=batch_size,
    )
    layers = {
        name: _merged(predicted.layers[name], observed, cells.is_control, position)
        for name in ("mean", "counts")
    }
    latent = trained.autoencoder.at_own_size(trained.autoencoder.encode(cells))
    latent[cells.is_control] = predicted.obsm["X_celldit"]
    target.layers[f"{key_added}_mean"] = layers["mean"].astype(np.float32)
    target.layers[f"{key_added}_counts"] = layers["counts"].astype(np.int32)
    target.obsm[f"X_{key_added}"] = latent
    target.obs[f"{key_added}_predicted"] = cells.is_control
    made_by = {**predicted.uns["celldit"]["made_by"], "perturbation": perturbation}
    made_by["n_predicted"] = int(cells.is_control.sum())
    store(target, key_added, {"counterfactual": made_by})
    return target if copy else None


def _merged(
    predicted: sparse.csr_matrix,
    observed: sparse.csr_matrix,
    is_predicted: np.ndarray,
    position: np.ndarray,
) -> sparse.csr_matrix:
    """The observed matrix (N, G) with some rows predicted, in the genes at some positions."""
    at = (np.ones(len(position), dtype=np.float32), (np.arange(len(position)), position))
    to_columns = sparse.csr_matrix(at, shape=(len(position), observed.shape[1]))
    kept = np.ones(observed.shape[1], dtype=np.float32)
    kept[position] = 0
    rows = predicted @ to_columns + observed[is_predicted] @ sparse.diags(kept)
    order = np.argsort(np.argsort(is_predicted, kind="stable"), kind="stable")
    merged = sparse.vstack([observed[~is_predicted], rows], format="csr")[order]
    merged.eliminate_zeros()
    return merged


def _warn_unknown_genes(adata: ad.AnnData, position: np.ndarray) -> None:
    unknown = np.delete(np.asarray(adata.var_names), position)
    if len(unknown):
        warnings.warn(
            f"The model does not know {len(unknown)} genes of adata ({examples(unknown)}); they "
            "keep their observed counts.",
            UserWarning,
            stacklevel=3,
        )
