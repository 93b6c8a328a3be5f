"""Go on from a trained model with other data: other genes, perturbations, contexts.

The latent space stays that of the trained model: its encoder is carried over by the names of the
genes, so that what the flow learned still holds. The decoder is fitted to the new data, from where
it was. The effect prior keeps every effect that was observed before and takes the new ones beside
them; the flow starts at its trained weights.
"""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from celldit.compute import one_at_a_time, threads
from celldit.conditions.population import Population
from celldit.data.fields import Fields
from celldit.data.store import CellStore
from celldit.effects.fit_prior import fit_prior, joined
from celldit.errors import InputError
from celldit.flow.anchored import AnchoredFlow
from celldit.latent.autoencoder import Autoencoder
from celldit.latent.transfer import match_autoencoder
from celldit.training.autoencoder import kept_autoencoder
from celldit.training.config import TrainingConfig
from celldit.training.design import Design, Run
from celldit.training.fit import Learner, checked_table
from celldit.training.latents import LatentFile
from celldit.training.loop.trainer import quiet_lightning
from celldit.training.trained import Trained

# Weights that are good already are moved by smaller steps than new ones.
GENTLE = TrainingConfig(flow_rate=3e-4)


def check_fields(trained: Fields, given: Fields) -> None:
    """Refuse data whose conditions are not of the kind that the model knows.

    Raises
    ------
    InputError
        Naming the field.
    """
    n_trained, n_given = len(trained.covariate_keys), len(given.covariate_keys)
    if n_trained != n_given:
        raise InputError(
            f"The model was trained with {n_trained} covariates {list(trained.covariate_keys)}, "
            f"these data were set up with {n_given} {list(given.covariate_keys)}; set them up with "
            "as many, in the same order."
        )
    for name in ("dose_key", "time_key"):
        if (getattr(trained, name) is None) != (getattr(given, name) is None):
            has, lacks = ("has", "have none")
            if getattr(trained, name) is None:
                has, lacks = ("has no", "have one")
            raise InputError(
                f"The model {has} {name}, these data {lacks}; set them up alike, or train a new "
                "model."
            )


def fine_tune(
    trained: Trained, cells: CellStore, fields: Fields, run: Run, min_overlap: float
) -> Trained:
    """Train on new cells, from a trained model, which is not changed.

    Parameters
    ----------
    trained
        The model.
    cells, fields
        The new training cells, and what their columns mean.
    run
        Settings.
    min_overlap
        Least share of the model's genes that the cells must have.

    Raises
    ------
    InputError
        If too few genes are shared.
    """
    check_fields(trained.fields, fields)
    autoencoder = trained.autoencoder
    parts = autoencoder.tokenizer, autoencoder.config, trained.flow.config
    design = Design(fields, *parts, trained.features)
    table = checked_table(cells, fields)
    holding = run.checkpoints(cells, design, trained.model_id)
    with one_at_a_time(), holding as checkpoints, threads(), quiet_lightning():
        matched, match = match_autoencoder(
            autoencoder, cells.genes, cells=cells, min_overlap=min_overlap
        )

        def adapted() -> Autoencoder:
            matched.adapt_decoder(cells, run.seed)
            return matched

        part = None if checkpoints is None else checkpoints.part("latent")
        adapted_autoencoder = kept_autoencoder(part, cells.genes, adapted)

        def estimate(z_NKD: torch.Tensor | LatentFile) -> Population:
            prior = fit_prior(z_NKD, table, features=design.features, seed=run.seed)
            prior = joined(prior, trained.population.prior, run.seed)
            return with_references(Population.fit(z_NKD, table, prior), trained.population)

        def make_flow(population: Population) -> AnchoredFlow:
            return copy.deepcopy(trained.flow).train()

        learned = Learner(cells, table, adapted_autoencoder, design, run, checkpoints).learn(
            estimate,
            make_flow,
            {
                **trained.trained_with,
                "fine_tuned": {"from": trained.model_id, "genes": str(match), **run.to_dict()},
            },
            weight=trained.flow_weight,
            # The trained flow has seen these; they do not say what it does with others.
            never_hold_out=trained.population.prior.conditions,
        )
    return with_what_was_known(learned, trained)


def with_references(new: Population, earlier: Population) -> Population:
    """Simple estimates from new cells, with contexts of before that these do not have."""
    return replace(
        new,
        references={**earlier.references, **new.references},
        factors={**earlier.factors, **new.factors},
    )


def with_what_was_known(new: Trained, earlier: Trained) -> Trained:
    """The new model with what only the earlier one knows: genes, contexts, conditions."""
    frequencies = Counter(dict(earlier.frequencies))
    frequencies.update(dict(new.frequencies))
    kept = new.states.only_in(earlier.states)
    place = {gene: i for i, gene in enumerate(earlier.genes)}
    by_gene: dict[str, Any] = {}
    # What is known of single genes is of use if it is known of all.
    if all(gene in place for gene in new.genes):
        column_G = np.array([place[gene] for gene in new.genes], dtype=np.int64)
        rates = {key: rate_G[column_G] for key, rate_G in earlier.control_rates.items()}
        by_gene["control_rates"] = {**rates, **new.control_rates}
        for name in ("calibration", "mean_calibration", "temporal_means"):
            by_gene[name] = getattr(new, name).with_earlier(getattr(earlier, name), column_G)
    return replace(
        new,
        frequencies=dict(frequencies),
        states=new.states.with_earlier(earlier.states),
        new_cell_model=new.new_cell_model.with_earlier(earlier.new_cell_model, kept),
        # Of data without times nothing is learned of time, and contexts have other numbers now.
        time_course=new.time_course
        if new.temporal_means.means
        else replace(earlier.time_course, flow=None),
        **by_gene,
    )
