"""The comparators of the DiT: one interface, silent until trained."""

from __future__ import annotations

import pytest
import torch

from celldit.errors import UnknownNameError
from celldit.flow.anchored import AnchoredFlow, make_network, network_from_dict, network_to_dict
from celldit.nn.comparators import MLPConfig, UNetConfig
from celldit.nn.dit import DiTConfig

CONFIGS = [DiTConfig(16, 1, 2, dropout=0.0), MLPConfig(32, 2, dropout=0.0), UNetConfig(8, 2)]


def inputs(n_tokens=5, token_dim=3, n_cells=4):
    torch.manual_seed(0)
    return (
        torch.randn(n_cells, n_tokens, token_dim),
        torch.rand(n_cells),
        torch.randn(n_cells, n_tokens, 2 * token_dim),
        torch.randn(n_cells, 4),
    )


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: type(c).__name__)
@pytest.mark.parametrize("n_tokens", [1, 2, 5, 8])
def test_silent_until_trained_then_each_input_matters(config, n_tokens):
    network = make_network(n_tokens, 3, config).eval()
    arguments = inputs(n_tokens)
    assert network(*arguments).shape == arguments[0].shape
    assert (network(*arguments) == 0).all()
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    before = network(*arguments)
    for i in range(4):
        changed = list(arguments)
        changed[i] = changed[i].flip(0)
        assert not torch.allclose(network(*changed), before), i
    alone = network(*(a[1:2] for a in arguments))
    torch.testing.assert_close(alone, before[1:2], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: type(c).__name__)
def test_gradients_reach_the_output_first(config):
    network = make_network(5, 3, config)
    (network(*inputs()) - 1).square().mean().backward()
    moved = {name for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}
    assert "project_out.weight" in moved


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: type(c).__name__)
def test_configurations_are_written_and_read(config):
    assert network_from_dict(network_to_dict(config)) == config
    assert type(AnchoredFlow(5, 3, config).dit) is type(make_network(5, 3, config))


def test_a_network_that_is_not_known():
    with pytest.raises(UnknownNameError, match="unet"):
        network_from_dict({"network": "u-net"})


@pytest.mark.parametrize("config", [MLPConfig(16, 1), UNetConfig(8, 1)])
def test_a_model_trains_with_a_comparator(simulate_screen, config):
    from celldit import CellDiT
    from celldit.latent import LatentConfig
    from celldit.training import TrainingConfig

    adata = simulate_screen(180, 20)
    CellDiT.setup_anndata(adata, perturbation_key="perturbation")
    model = CellDiT(adata, "modules", LatentConfig(n_dims=6, token_dim=3), dit=config)
    settings = TrainingConfig(flow_steps_per_epoch=3, n_trials=1, flow_batch=16)
    model.train(1, config=settings, enable_progress_bar=False)
    assert model.generate(3, n_steps=2).n_obs == 3
