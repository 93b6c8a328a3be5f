"""Which perturbations to measure next."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal

import anndata as ad
import numpy as np
import pandas as pd

from celldit.arguments import check_known, check_number, check_whole, text_list
from celldit.compute import threads
from celldit.conditions import Condition
from celldit.data.labels.labels import parts
from celldit.data.query import Selection, selected
from celldit.effects.experiments import evenly_described, greedy_design, joint_covariance
from celldit.errors import InputError, OutOfMemoryError, examples
from celldit.inference import request
from celldit.memory import bound
from celldit.model import CellDiT
from celldit.tl.cells import read_cells, text_rows, trained_parts, writable
from celldit.training.trained import Trained

#: A batch that takes away less than this share of the variance teaches nothing of the others.
LEAST_GAIN = 1e-4


def next_perturbations(
    adata: ad.AnnData,
    model: CellDiT,
    candidates: Sequence[str] | None = None,
    *,
    n: int = 5,
    contexts: Sequence[str] | str | None = None,
    genes: Sequence[str] | None = None,
    target: Selection | None = None,
    about: Literal["others", "target", "both"] | None = None,
    n_cells: int = 100,
    key_added: str = "next_perturbations",
) -> pd.DataFrame:
    """Choose a batch of perturbations that leaves least unknown of the other candidates.

    Or, with `target`, least of how far each of them would bring the cells to a target state.

    What the model does not know of the candidates is their posterior covariance. Each pick is the
    one whose measurement would take away most of the variance that is left, its own and that of all
    others, so that a batch does not measure the same thing twice
    (:mod:`celldit.effects.experiments`).
    Perturbations teach about each other as far as the model finds that they are alike: by features,
    by shared parts of combinations, by the effect that all have in common, and between contexts.

    Parameters
    ----------
    adata
        Where the result is written.
    model
        A trained model.
    candidates
        Labels: perturbations never measured (with features, or known from a table of effects),
        combinations, or known perturbations in contexts that lack them; None for all that have
        features or effects measured elsewhere and were not in training.
    n
        How many to choose.
    contexts
        Contexts of training in which they would be measured and predicted; None for all.
    genes
        Genes to learn about; None for all.
    target
        Cells of a target state: a query of ``obs`` of `adata`, such as ``"cell_type == 'B'"``, or a
        boolean mask.
    about
        What to learn: ``"others"``, the whole effect of every candidate; ``"target"``, only how far
        it goes along the way from the controls of training to the target; ``"both"``, where either
        counts half. None for both where there is a target, and others where there is none.
    n_cells
        Cells for each perturbation and context. More of them tell more of one perturbation.
    key_added
        Key in ``uns``.

    Returns
    -------
    pandas.DataFrame
        Also written to ``uns[key_added]``. One row for each pick, the best first: ``perturbation``;
        ``gain``, the share of what is not known of the candidates that it takes away, given the
        picks before; ``of_others``, the part of it that it teaches about others; ``left``, the
        share that is left in those not picked; ``n_cells``, in all contexts together.

    Raises
    ------
    InputError
        If there is no candidate, the model has no perturbation to learn from, `about` and `target`
        do not go together, no cell is in the target, or a number cannot be used.
    UnknownNameError
        If nothing is known of a candidate, or a context or gene was not in training.
    NotTrainedError
        If the model was not trained.
    OutOfMemoryError
        If there are more candidates than the memory holds; said before the work.

    Examples
    --------
    >>> candidates = ["IRF1+JAK2", "IRF1+STAT1", "JAK2+STAT1"]
    >>> batch = cd.tl.next_perturbations(adata, model, candidates, n=2)
    >>> list(batch.columns)
    ['perturbation', 'gain', 'of_others', 'left', 'n_cells']
    """
    trained = trained_parts(model)
    writable(adata, key_added)
    check_whole(n, "n")
    check_number(n_cells, "n_cells")
    if n_cells == 0:
        raise InputError("n_cells=0 must be above 0; say how many each would be measured with.")
    prior = trained.population.prior
    if not prior.conditions:
        raise InputError(
            "The model was trained without perturbations, so it does not know how effects resemble "
            "each other; train it on some that were measured."
        )
    labels = _candidates(trained, candidates)
    loadings_FG = _loadings(trained, genes)
    wanted = _about(about, target)
    conditions, rows = _conditions(trained, labels, contexts)
    _check_size(len(labels), len(conditions), len(prior.rotation))
    n_controls = {c.stratum: size for c, size in trained.frequencies.items() if c.is_control}
    noise_Q = np.array([1 / n_cells + 1 / n_controls.get(c.stratum, n_cells) for c in conditions])
    with threads():
        # With the weights that are likeliest: where features did not beat their shuffles they are
        # not trusted with predictions, yet tell best which candidates may be alike.
        covariance_FQQ = joint_covariance(evenly_described(prior), conditions)
        effects_FG = np.linalg.inv(prior.rotation) @ loadings_FG
        weight_F = (effects_FG**2).sum(axis=1)
        if target is not None:
            way_G = _way(adata, trained, target, conditions) @ loadings_FG
            along_F = (effects_FG @ way_G) ** 2 / (way_G @ way_G)
            variance_F = np.diagonal(covariance_FQQ, axis1=1, axis2=2).sum(axis=1)
            halves = ((weight_F, wanted == "both"), (along_F, True))
            weight_F = sum(one / (one @ variance_F) for one, counts in halves if counts)
        about_Q = np.ones(len(conditions), dtype=bool)
        picks = greedy_design(covariance_FQQ, weight_F, rows, about_Q, noise_Q, n)
    if len(labels) > 1 and sum(pick.of_others for pick in picks) < LEAST_GAIN:
        warnings.warn(
            "Measuring one candidate would teach next to nothing of the others: the model finds "
            "nothing that they share, so any order is as good; give it features of them, "
            "CellDiT(adata, features=cd.pp.gene_features(adata)).",
            UserWarning,
            stacklevel=2,
        )
    table = pd.DataFrame(
        {
            "perturbation": [labels[pick.candidate] for pick in picks],
            "gain": [pick.gain for pick in picks],
            "of_others": [pick.of_others for pick in picks],
            "left": [pick.left for pick in picks],
            "n_cells": [int(n_cells * len(rows[pick.candidate])) for pick in picks],
        }
    )
    adata.uns[key_added] = text_rows(table)
    return table


def _about(about: str | None, target: Selection | None) -> str:
    if about is None:
        return "others" if target is None else "both"
    check_known([about], ("others", "target", "both"), "value of about")
    if (about == "others") != (target is None):
        raise InputError(
            f"about={about!r} goes {'without' if about == 'others' else 'with'} target=, the cells "
            "of a state to reach, such as target=\"cell_type == 'B'\"."
        )
    return about


def _way(
    adata: ad.AnnData, trained: Trained, target: Selection, conditions: Sequence[Condition]
) -> np.ndarray:
    """From the controls that candidates start at to the target, in the latent."""
    cells = read_cells(adata, trained).take(selected(adata, target, "target"))
    end_F = trained.autoencoder.encode(cells).flatten(1).double().numpy().mean(axis=0)
    starts = trained.population.prior.kernel.positions
    return end_F - np.mean([starts[c.stratum] for c in conditions], axis=0)


def _candidates(trained: Trained, candidates: Sequence[str] | None) -> list[str]:
    if candidates is None:
        candidates = sorted(
            (trained.featured | trained.elsewhere.parts) - set(trained.perturbations)
        )
        if not candidates:
            raise InputError(
                "The model has no features of perturbations that were not measured, nor effects of "
                "them from elsewhere, so it knows no candidate by itself; pass candidates=['A+B', "
                f"...], such as combinations of {examples(trained.perturbations)}."
            )
    labels = request.labels_of(trained, candidates)
    chosen = [label for label in dict.fromkeys(labels) if label != trained.fields.control]
    if not chosen:
        raise InputError("candidates holds nothing but the control; pass perturbations.")
    return chosen


def _check_size(n_candidates: int, n_conditions: int, n_dims: int) -> None:
    """Raise OutOfMemoryError if the covariance of so many conditions takes more than the memory."""
    # The covariance in each dimension, a copy, and what a pick takes from it.
    needed, (most, limit) = 8.0 * (3 * n_dims + 6) * n_conditions**2, bound()
    if needed > most:
        fit = max(int(n_candidates * np.sqrt(most / needed / 2)), 1)
        raise OutOfMemoryError(
            f"How {n_candidates:,} candidates in {n_conditions // n_candidates:,} contexts "
            f"resemble each other takes about {needed / 1e9:,.0f} GB to hold; {limit} is "
            f"{most / 1e9:,.0f} GB. Ask about fewer contexts, or pass candidates=[...] of at most "
            f"{fit:,}."
        )


def _loadings(trained: Trained, genes: Sequence[str] | None) -> np.ndarray:
    loadings_FG = trained.autoencoder.decoder.loadings.detach().double().cpu().numpy()
    if genes is None:
        return loadings_FG
    column = {gene: g for g, gene in enumerate(trained.genes)}
    wanted = text_list(genes, "genes")
    if not wanted:
        raise InputError("genes=[] names no gene; leave it out for all of them.")
    check_known(wanted, column, "gene")
    return loadings_FG[:, [column[gene] for gene in wanted]]


def _conditions(
    trained: Trained, labels: Sequence[str], contexts: Sequence[str] | str | None
) -> tuple[list[Condition], list[np.ndarray]]:
    """What would be measured: every candidate in every context that lacks it, and their rows."""
    strata = sorted({c.stratum for c in trained.frequencies}, key=str)
    if contexts is not None:
        chosen = text_list(contexts, "contexts")
        check_known(chosen, sorted({context for context, _ in strata}), "context of training")
        strata = [key for key in strata if key[0] in set(chosen)]
    fields = trained.fields
    conditions: list[Condition] = []
    rows = []
    for label in labels:
        names = parts(label, fields.perturbation_sep, fields.control)
        doses = request.resolve_dose(None, len(names), fields, label)
        own = [Condition(names, doses, *key) for key in strata]
        own = [c for c in own if c not in trained.frequencies]
        if not own:
            raise InputError(
                f"The candidate {label!r} was measured in every context asked for; leave it out of "
                "candidates."
            )
        rows.append(np.arange(len(conditions), len(conditions) + len(own)))
        conditions += own
    return conditions, rows
