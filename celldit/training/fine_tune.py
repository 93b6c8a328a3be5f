"""Go on from a trained model with other data: other genes, perturbations, contexts.

The latent space stays that of the trained model: its encoder is carried over by the names of the
genes, so that what the flow learned still holds. The decoder is fitted to the new data, from where
it was. The effect prior keeps every effect that was observed before and takes the new ones beside
them; the flow starts at its trained weights.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np

from celldit.compute import one_at_a_time, threads
from celldit.data.fields import Fields
from celldit.data.store import CellStore
from celldit.errors import InputError
from celldit.latent.autoencoder import Autoencoder
from celldit.latent.transfer import match_autoencoder
from celldit.training.config import TrainingConfig
from celldit.training.design import Design, Run
from celldit.training.fit import checked_table, kept_autoencoder, learn
from celldit.training.loop.trainer import quiet_lightning
from celldit.training.trained import Trained

# Weights that are good already are moved by smaller steps than new ones.
GENTLE = TrainingConfig(flow_rate=3e-4)


def check_fields(trained: Fields, given: Fields) -> None:
    """Refuse data whose conditions the model does not know; InputError names the field."""
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

    InputError unless the cells have at least a share `min_overlap` of its genes.
    """
    check_fields(trained.fields, fields)
    autoencoder = trained.autoencoder
    parts = autoencoder.tokenizer, autoencoder.config, trained.flow.config
    design = Design(fields, *parts, trained.features)
    table = checked_table(cells, fields)
    holding = run.checkpoints(cells, design, trained.model_id)
    with one_at_a_time, holding as checkpoints, threads(), quiet_lightning():
        matched, match = match_autoencoder(
            autoencoder, cells.genes, cells=cells, min_overlap=min_overlap
        )

        def adapted() -> Autoencoder:
            matched.adapt_decoder(cells, run.seed)
            return matched

        adapted_autoencoder = kept_autoencoder(checkpoints, cells.genes, adapted)

        fine_tuned = {"from": trained.model_id, "genes": str(match), **run.to_dict()}
        trained_with = {**trained.trained_with, "fine_tuned": fine_tuned}
        learned = learn(
            cells, table, adapted_autoencoder, design, run, checkpoints, trained_with, trained
        )
    return with_what_was_known(learned, trained)


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
