"""A model from a folder is used once, in small, before it is handed out.

Each part of a folder can be whole by itself and yet not fit the others: a length scale that is
text, a condition that no part knows. This shows when it is loaded, rather than in the middle of
somebody's work.
"""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd

from celldit.data.labels.columns import CONTEXT_SEP
from celldit.io.folders import whole_model
from celldit.io.model_folder import to_folder

if TYPE_CHECKING:
    from celldit.conditions import Condition
    from celldit.model import CellDiT


#: Conditions that are tried: some are enough to read every setting.
_TRIED = 2


def rehearse(model: CellDiT, name: str) -> None:
    """Write a model, ask it for effects, a prediction and two new cells; `name` is its folder.

    FileError if any of it fails.
    """
    with whole_model(name, ": it cannot be used"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config, vocab, _ = to_folder(model.trained)
        json.dumps([config, vocab], allow_nan=False)
        repr(model)
        # The first perturbed conditions, of different perturbations.
        by_label = {c.parts: c for c in reversed(model.conditions) if not c.is_control}
        for condition in list(reversed(by_label.values()))[:_TRIED]:
            request = _request(model, condition)
            model.predict_effects(**request)
            model.predict(_cells(model, condition), n_steps=1, solver="euler", **request)
        if model.trained.new_cell_model.learned:
            model.generate(2, n_steps=1, solver="euler")


def _request(model: CellDiT, condition: Condition) -> dict[str, Any]:
    fields = model.fields
    request: dict[str, Any] = {
        "perturbations": condition.label(fields.perturbation_sep, fields.control)
    }
    if condition.doses is not None:
        request["dose"] = fields.perturbation_sep.join(str(dose) for dose in condition.doses)
    if condition.time is not None:
        request["time"] = condition.time
    return request


def _cells(model: CellDiT, condition: Condition) -> ad.AnnData:
    """Two control cells in the stratum of a condition, with one count of every gene."""
    fields, counts = model.fields, np.ones((2, len(model.genes)), dtype=np.float32)
    values = [condition.context]
    if len(fields.covariate_keys) > 1:
        values = condition.context.split(CONTEXT_SEP)
    columns: dict[str, Any] = dict(zip(fields.covariate_keys, values, strict=False))
    if fields.size_factor_key is not None:
        columns[fields.size_factor_key] = float(counts.shape[1])
    if fields.time_key is not None:
        columns[fields.time_key] = condition.time
    obs = pd.DataFrame({key: [value] * 2 for key, value in columns.items()}, index=["a", "b"])
    return ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=list(model.genes)))
