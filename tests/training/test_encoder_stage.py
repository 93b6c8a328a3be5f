"""Attention is let into the latent for what it says of molecules that it has not seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
import torch
from scipy import sparse

import celldit.training.encoder_stage as stage
from celldit.data.cells import Cells
from celldit.data.fields import Fields, setup_anndata
from celldit.latent import Autoencoder, LatentConfig
from celldit.tokenizers import resolve
from celldit.training import TrainingConfig
from celldit.training.checkpoints import Checkpoints, Part
from celldit.training.trainer import quiet_lightning, trainer_defaults

CONFIG = TrainingConfig(latent_batch=64, latent_rate=5e-3)


@pytest.fixture(scope="module")
def cells(_tiny_screen: ad.AnnData) -> Cells:
    return Cells.from_anndata(_tiny_screen, Fields.from_anndata(_tiny_screen))


def start(cells: Cells, kind: str = "set", **options: Any) -> Autoencoder:
    shape = {"n_dims": 6, "token_dim": 3, "width": 16, "depth": 1} | options
    config = LatentConfig(kind=kind, **shape)
    return Autoencoder.start(cells, resolve("modules").fit(cells), config, 0)


def learn(model: Autoencoder, cells: Cells, epochs: int, part: Part | None = None) -> stage.Learned:
    order = np.random.default_rng(0).permutation(cells.n_cells)
    n = cells.n_cells // 5
    with quiet_lightning():
        return stage.learn_encoder(
            model,
            cells.take(np.sort(order[n:])),
            cells.take(np.sort(order[:n])),
            CONFIG,
            n_epochs=epochs,
            n_steps=epochs * -(-(cells.n_cells - n) // CONFIG.latent_batch),
            seed=0,
            trainer_arguments=trainer_defaults({"enable_progress_bar": False}, "latent"),
            part=part,
        )


def correlation(theta: float | None) -> float:
    """Of the two parts of counts of mean 20 and inverse dispersion 2."""
    rng = np.random.default_rng(0)
    counts = sparse.csr_matrix(rng.poisson(20 * rng.gamma(2, 0.5, (40_000, 1))), dtype=np.float32)
    theta_G = None if theta is None else np.array([theta])
    encoded, others = stage.split_counts(counts, theta_G, rng)
    assert (encoded + others != counts).nnz == 0
    assert encoded.mean() / counts.mean() == pytest.approx(stage.ENCODED, abs=0.01)
    return float(np.corrcoef(encoded.toarray()[:, 0], others.toarray()[:, 0])[0, 1])


def test_parts_of_overdispersed_counts_are_independent_at_their_dispersion() -> None:
    assert abs(correlation(2.0)) < 0.02
    assert correlation(None) > 0.5


def test_training_cells_are_split_anew_and_held_out_cells_once(cells: Cells) -> None:
    model = start(cells)
    training = stage.SplitBatches(cells, model, cells.n_cells, seed=0)
    first = training[0].counts.dense()
    order = training.order
    training.shuffle()
    second = training[0].counts.dense()
    back = np.argsort(training.order)
    assert not torch.equal(first[np.argsort(order)], second[back])
    held_out = stage.SplitBatches(cells, model, cells.n_cells, seed=None)
    assert torch.equal(held_out[0].counts.dense(), held_out[0].counts.dense())


def test_size_factors_are_shared_out_like_molecules(cells: Cells) -> None:
    batch = stage.SplitBatches(cells, start(cells), 8, seed=None)[0]
    expected = torch.from_numpy(cells.size_factors[:8]) * (1 - stage.ENCODED)
    torch.testing.assert_close(batch.size_B, expected)
    seen = cells.counts[:8].sum(axis=1)
    assert (np.ravel(seen) >= batch.counts.dense().sum(1).numpy()).all()


def test_without_worth_the_latent_stays_linear_and_attention_is_learned(
    cells: Cells, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "WORTH", 0.0)
    model = start(cells)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    learned = learn(model, cells, 2)
    assert not learned.attends
    assert not model.attends
    changed = {n for n, t in model.state_dict().items() if not torch.equal(before[n], t)}
    assert changed
    assert all(name.startswith("set_encoder.") for name in changed)
    assert all(p.requires_grad for p in model.parameters())


def test_with_worth_attention_is_let_into_the_latent(
    cells: Cells, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "WORTH", 2.0)
    model = start(cells)
    z = model.encode(cells)
    assert learn(model, cells, 2).attends
    assert model.attends
    assert not torch.allclose(model.encode(cells), z, atol=1e-4)


def test_an_encoder_that_attends_and_learns_nothing_stays_as_it_is(
    cells: Cells, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "WORTH", 0.0)
    model = start(cells)
    torch.nn.init.normal_(model.project.weight, std=0.1)
    z = model.encode(cells)
    assert not learn(model, cells, 2).attends
    assert torch.equal(model.encode(cells), z)


def test_the_decoder_alone_does_not_count_as_a_gain_of_attention(
    cells: Cells, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []

    def watch(self: stage.SplitStage, *_: Any, **__: Any) -> None:
        runs.append(self.model.project.weight.requires_grad)
        self.at_start, self.best = 1.0, 0.9 if runs[-1] else 0.905

    monkeypatch.setattr(stage, "maximize", watch)
    assert not learn(start(cells), cells, 2).attends
    assert runs == [True, False]


def test_what_linear_encoders_miss_attention_is_let_in_for() -> None:
    rng = np.random.default_rng(0)
    place_N1 = rng.uniform(-2, 2, (1_000, 1))
    waves_G, phases_G = rng.integers(1, 4, 40), rng.uniform(0, 2 * np.pi, 40)
    rate_NG = np.exp(1.5 * np.cos(waves_G * place_N1 + phases_G) + 2)
    counts = rng.poisson(rate_NG).astype(np.float32)
    adata = ad.AnnData(counts)
    adata.var_names = [f"gene{i}" for i in range(40)]
    setup_anndata(adata)
    cells = Cells.from_anndata(adata, Fields.from_anndata(adata))
    model = start(cells, n_dims=2, token_dim=1)
    assert learn(model, cells, 40).attends


def test_only_counts_are_split(cells: Cells) -> None:
    assert stage.can_split(start(cells))
    assert not stage.can_split(start(cells, "pca"))


def test_what_is_finished_is_not_learned_again(
    cells: Cells, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = Checkpoints(tmp_path, 10, {}).part("latent")
    once = learn(start(cells), cells, 2, part)
    assert "latent-encoder" in part.checkpoints.parts()
    monkeypatch.setattr(stage, "maximize", None)
    again = learn(start(cells), cells, 2, part)
    assert again.attends == once.attends
    assert all(torch.equal(once.attention[name], t) for name, t in again.attention.items())
