"""Any AnnData either works or is refused in celldit's own words, quickly, and stays as it was.

``CELLDIT_FUZZ=3000`` asks for more inputs than the 200 of an ordinary run, ``CELLDIT_FUZZ_SEED``
for others. What happened is printed as a line of JSON.
"""

from __future__ import annotations

import json
import os
import resource
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings

from celldit import CellDiT
from celldit.errors import CellditError
from celldit.latent import LatentConfig
from celldit.nn.dit import DiTConfig
from celldit.training import TrainingConfig

N_INPUTS = int(os.environ.get("CELLDIT_FUZZ", "200"))
SEED = int(os.environ.get("CELLDIT_FUZZ_SEED", "20261123"))
#: One in so many of the inputs that can be used trains a model.
TRAIN_EVERY = 9
TINY = TrainingConfig(flow_steps_per_epoch=2, n_trials=1, flow_batch=16)


class Refused(Exception):
    """celldit said no; carries the time that took."""


def call(what: Any, *args: Any, seconds: float | None = 1.0, **options: Any) -> Any:
    """Call; a refusal must be celldit's own, in a sentence, and fast."""
    start = time.process_time()
    try:
        return what(*args, **options)
    except CellditError as error:
        text = str(error)
        assert len(text) > 20, text
        assert text.rstrip().endswith((".", "?", ")", "copy()")), text
        assert len(text) < 3000, "an error must not repeat a name of 10,000 letters"
        if seconds is not None:
            assert time.process_time() - start < seconds
        raise Refused(text) from error


def check_prediction(predicted: ad.AnnData) -> None:
    counts = predicted.layers["counts"]
    assert counts.dtype == np.int32
    assert counts.nnz == 0 or counts.data.min() >= 0
    for matrix in (predicted.X, predicted.layers["mean"]):
        assert np.isfinite(matrix.data).all()
        assert matrix.nnz == 0 or matrix.data.min() >= 0
    assert np.isfinite(predicted.obsm["X_celldit"]).all()


def drive(adata: ad.AnnData, plan: dict[str, Any], arguments: dict[str, Any], train: bool) -> None:
    call(CellDiT.setup_anndata, adata, **arguments)
    latent = LatentConfig(n_dims=3, token_dim=2)
    tokenizer = ["modules", "genes", "ranks", None][plan["seed"] % 4]
    model = call(CellDiT, adata, tokenizer, latent, dit=DiTConfig(width=8, depth=1, n_heads=1))
    if not train:
        return
    call(model.train, 1, config=TINY, enable_progress_bar=False, seconds=None)
    wanted = [*model.perturbations[:2], "no such thing"][: 1 + plan["seed"] % 3]
    check_prediction(call(model.predict, perturbations=wanted, dose=_dose(plan)))
    check_prediction(call(model.generate, 3))


def _dose(plan: dict[str, Any]) -> float | None:
    return None if plan["dose"] is None else 1.0


def test_hostile_anndata(hostile: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome: Counter[str] = Counter()
    longest = [0.0]

    @seed(SEED)
    @settings(
        max_examples=N_INPUTS,
        derandomize=False,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(plan=hostile.plans())
    def run(plan: dict[str, Any]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                adata = hostile.build(plan, tmp_path)
                before = hostile.snapshot(adata)
            except Exception:
                # anndata itself refuses to hold or to store this mix.
                outcome["not an AnnData"] += 1
                return
            train, start = plan["seed"] % TRAIN_EVERY == 0, time.process_time()
            try:
                drive(adata, plan, hostile.arguments(plan), train)
            except Refused:
                outcome["refused"] += 1
            else:
                outcome["usable"] += 1
                outcome["trained"] += train
            longest[0] = max(longest[0], time.process_time() - start)
            after = hostile.snapshot(adata)
        if "celldit" in adata.uns:
            for name in ("uns", "view"):
                before.pop(name), after.pop(name)
        assert after == before

    run()
    peak_mb = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
    found = {"kind": "anndata", "n": N_INPUTS, "seed": SEED, **outcome}
    with capsys.disabled():
        print("\n" + json.dumps({**found, "longest_s": round(longest[0], 2), "peak_mb": peak_mb}))
    assert longest[0] < 5
    assert outcome["usable"] > N_INPUTS // 10
    assert outcome["refused"] > N_INPUTS // 10
    assert outcome["trained"] >= 1
