from __future__ import annotations

import pytest
import torch

from celldit.flow.losses import energy_distance_loss, velocity_loss


def points(n, seed=0, shift=0.0, shape=(3,)):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, *shape, generator=generator, dtype=torch.float64) + shift


def test_velocity_loss_is_the_mean_squared_error():
    a, b = points(5, 0, shape=(2, 3)), points(5, 1, shape=(2, 3))
    torch.testing.assert_close(velocity_loss(a, b), torch.nn.functional.mse_loss(a, b))


def test_energy_distance_of_a_worked_example():
    x, y = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [5.0], [5.0]])
    # 2 E|X-Y| = 2 (1+5+5+1+3+3)/6 = 6; E|X-X'| = 2; E|Y-Y'| = (4+4+0)/3.
    assert float(energy_distance_loss(x, y)) == pytest.approx(6 - 2 - 8 / 3)


def test_the_energy_distance_is_unbiased():
    # Between small samples of one distribution the mean is 0; a biased estimate would be positive.
    values = torch.stack(
        [energy_distance_loss(points(5, 2 * s), points(7, 2 * s + 1)) for s in range(800)]
    )
    assert abs(float(values.mean())) < 4 * float(values.std()) / 800**0.5
    assert float((values < 0).double().mean()) > 0.3


def test_the_energy_distance_is_symmetric_ordered_and_blind_to_order_and_place():
    x, y, far = points(40, 0), points(50, 1, shift=1.0), points(50, 1, shift=2.0)
    torch.testing.assert_close(energy_distance_loss(x, y), energy_distance_loss(y, x))
    torch.testing.assert_close(
        energy_distance_loss(x, y), energy_distance_loss(x.flip(0), y.roll(3, 0))
    )
    torch.testing.assert_close(energy_distance_loss(x, y), energy_distance_loss(x + 5, y + 5))
    assert 0 < float(energy_distance_loss(x, y)) < float(energy_distance_loss(x, far))


def test_energy_distance_has_the_right_gradient():
    x, y = points(4, 0).requires_grad_(), points(5, 1).requires_grad_()
    assert torch.autograd.gradcheck(energy_distance_loss, (x, y))


def test_gradients_are_finite_where_points_coincide():
    x = torch.ones(4, 3, dtype=torch.float64, requires_grad=True)
    value = energy_distance_loss(x, torch.ones(5, 3, dtype=torch.float64))
    value.backward()
    assert float(value.detach()) == 0
    assert bool(torch.isfinite(x.grad).all())


def test_descent_brings_one_set_onto_the_other():
    x, y = points(60, 0).requires_grad_(), points(60, 1, shift=1.5)
    optimizer = torch.optim.Adam([x], lr=0.1)
    before = float(energy_distance_loss(x, y).detach())
    for _ in range(80):
        optimizer.zero_grad()
        energy_distance_loss(x, y).backward()
        optimizer.step()
    assert float(energy_distance_loss(x, y).detach()) < 0.05 * before


def test_tokens_are_flattened():
    x, y = points(6, 0, shape=(2, 3)), points(6, 1, shape=(2, 3))
    torch.testing.assert_close(
        energy_distance_loss(x, y), energy_distance_loss(x.flatten(1), y.flatten(1))
    )


def test_one_point_alone_has_no_distance():
    assert float(energy_distance_loss(points(1), points(4))) == 0
