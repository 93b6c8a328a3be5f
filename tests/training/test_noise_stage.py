"""The flow from noise learns on weights of its own; that from control cells stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
import torch
from scipy import sparse

from celldit import CellDiT
from celldit.errors import InputError
from celldit.training import TrainingConfig


@pytest.fixture(scope="module")
def pair(_tiny_screen: ad.AnnData, train_tiny: Callable[..., Any]) -> tuple[CellDiT, CellDiT]:
    """The same training without and with the stage, on cells of two kinds that no label tells."""
    adata = _tiny_screen.copy()
    rng = np.random.default_rng(0)
    counts = adata.X.toarray()
    kind = rng.random(adata.n_obs) < 0.5
    counts[kind, :15] += rng.poisson(30, (int(kind.sum()), 15))
    adata.X = sparse.csr_matrix(counts)
    steps = {"flow_steps_per_epoch": 60, "flow_rate": 5e-3, "noise_patience": 9}
    models = [
        train_tiny(adata, max_epochs=4, config={**steps, "flow_epochs": 1, "noise_epochs": n})
        for n in (0, 4)
    ]
    return models[0], models[1]


def test_predictions_do_not_depend_on_the_stage(pair: tuple[CellDiT, CellDiT]) -> None:
    without, with_stage = (model.predict(perturbations=["A"]) for model in pair)
    assert without.obsm["X_celldit"].tobytes() == with_stage.obsm["X_celldit"].tobytes()
    assert (without.layers["counts"] != with_stage.layers["counts"]).nnz == 0


def test_generated_cells_do(pair: tuple[CellDiT, CellDiT]) -> None:
    without, with_stage = (model.generate(50).obsm["X_celldit"] for model in pair)
    assert np.abs(without - with_stage).max() > 1e-4


def test_what_is_kept_is_no_worse_than_before(pair: tuple[CellDiT, CellDiT]) -> None:
    assert pair[0].history["noise"] == []
    course = pair[1].history["noise"]
    assert len(course) == 4
    assert all(np.isfinite(row["held_out_error"]) for row in course)
    assert min(row["held_out_error"] for row in course) < course[0]["before"]


def test_a_mixed_batch_goes_to_both_networks(pair: tuple[CellDiT, CellDiT]) -> None:
    flow = pair[1].trained.flow
    assert flow.from_noise is not None
    briefing_rows = torch.zeros(6, dtype=torch.int64)
    from celldit.conditions.briefing import Briefing

    trained = pair[1].trained
    briefing = Briefing.of(trained.population, list(trained.frequencies), trained.shape)
    noisy, plain = (briefing.tell(briefing_rows, from_noise=flag) for flag in (True, False))
    pairs = [(getattr(noisy, n), getattr(plain, n)) for n in type(noisy).__dataclass_fields__]
    mixed = type(noisy)(*(None if a is None else torch.cat([a[:3], b[3:]]) for a, b in pairs))
    x_BKD, t_B = torch.randn(6, *trained.shape), torch.rand(6)
    with torch.no_grad():
        both = flow(x_BKD, t_B, mixed)
        torch.testing.assert_close(both[:3], flow(x_BKD, t_B, noisy)[:3])
        torch.testing.assert_close(both[3:], flow(x_BKD, t_B, plain)[3:])


def test_both_networks_are_saved(pair: tuple[CellDiT, CellDiT], tmp_path: Path) -> None:
    for i, model in enumerate(pair):
        model.save(tmp_path / str(i))
        again = CellDiT.load(tmp_path / str(i))
        assert (again.trained.flow.from_noise is None) == (i == 0)
        cells = [m.generate(40).layers["counts"] for m in (model, again)]
        assert (cells[0] != cells[1]).nnz == 0


@pytest.mark.parametrize("name", ["noise_epochs", "noise_patience"])
def test_negative_numbers_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=name):
        TrainingConfig(**{name: -1})
