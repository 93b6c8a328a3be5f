"""Effects of many conditions straight to disk: conditions x genes, some conditions in memory.

=====================  =====================================================================
``X``                  log fold change of each gene, natural logarithm, float32
``layers["sd"]``       its standard deviation, float32
``obs``                ``perturbation``, ``context``, ``extrapolation``; with doses or times
                       ``beyond_range``
``uns["celldit"]``     what made them
=====================  =====================================================================
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd

from celldit.conditions import Condition
from celldit.errors import FileError
from celldit.inference import request
from celldit.inference.effects.changes import BLOCK, effects_of
from celldit.inference.effects.table import (
    check_table,
    effect_conditions,
    effect_table,
    obs_of_effect,
)
from celldit.io.stream import append_rows, finish, growing_array, new_store, open_on_disk
from celldit.training.trained import Trained

PLACES = ("X", "layers/sd")
#: Bytes that must stay free beside the file.
SPARE = 1 << 26


def predict_effects(
    trained: Trained, requested: request.Counterfactuals, target: Path | None
) -> pd.DataFrame | ad.AnnData:
    """Predict log fold changes in all strata of training, into a checked path or a table."""
    time = request.check_time(requested.time, trained.fields)
    strata = sorted({c.stratum for c in trained.frequencies}, key=str)
    conditions = effect_conditions(trained, requested.labels, strata, requested.dose, time)
    request.warn_outside(conditions, trained.frequencies)
    if target is not None:
        return write_effects(trained, conditions, target)
    check_table(len(conditions), len(trained.genes))
    return effect_table(trained, conditions)


def write_effects(trained: Trained, conditions: Sequence[Condition], target: Path) -> ad.AnnData:
    """Predict log fold changes into a file that :func:`celldit.io.stream.check_out` let pass.

    X and the layer are left on disk. FileError if there is no room for them, said before any work,
    or the disk cannot take them.
    """
    genes = trained.genes
    check_room(target, len(conditions), len(genes))
    obs = []
    with new_store(target) as root:
        arrays = [
            growing_array(root["layers"] if "/" in place else root, place.split("/")[-1],
                          np.float32, (len(genes),))
            for place in PLACES
        ]  # fmt: skip
        effects = effects_of(trained, conditions)
        while block := list(islice(effects, BLOCK)):
            append_rows(arrays[0], np.stack([e.spread.mean_G for e in block]).astype(np.float32))
            append_rows(arrays[1], np.stack([e.sd_G for e in block]).astype(np.float32))
            obs.append(pd.DataFrame([obs_of_effect(trained, effect) for effect in block]))
        for array in arrays:
            array.attrs["encoding-type"], array.attrs["encoding-version"] = "array", "0.2.0"
        rows = pd.concat(obs, ignore_index=True)
        rows.index = rows.index.astype(str)
        finish(root, rows, genes, trained.made_by(what="effects"))
    return open_on_disk(target)


def check_room(target: Path, n_conditions: int, n_genes: int) -> None:
    """Raise FileError if the folder of `target` has no room for so many effects."""
    needed = len(PLACES) * 4 * n_conditions * n_genes + SPARE
    free = shutil.disk_usage(target.parent).free
    if free < needed:
        raise FileError(
            f"Effects of {n_conditions:,} conditions on {n_genes:,} genes need "
            f"{needed / 1e9:.1f} GB in {target.parent}, where {free / 1e9:.1f} GB are free; ask "
            "for fewer perturbations at a time, or choose a folder on a larger disk."
        )
