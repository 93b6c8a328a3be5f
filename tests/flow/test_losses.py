from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from celldit.errors import InputError
from celldit.flow.losses import energy_distance_loss, mmd_loss, velocity_loss

SET_LOSSES = [energy_distance_loss, mmd_loss]


def points(n, seed=0, shift=0.0, shape=(3,)):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, *shape, generator=generator, dtype=torch.float64) + shift


def test_velocity_loss_is_the_mean_squared_error():
    a, b = points(5, 0, shape=(2, 3)), points(5, 1, shape=(2, 3))
    torch.testing.assert_close(velocity_loss(a, b), torch.nn.functional.mse_loss(a, b))
    torch.testing.assert_close(velocity_loss(a, b, torch.full((5,), 7.0)), velocity_loss(a, b))


@given(counts=st.lists(st.integers(0, 4), min_size=4, max_size=4).filter(any))
@settings(deadline=None, max_examples=20)
def test_a_weight_is_a_number_of_copies(counts):
    a, b, weight = points(4, 0), points(4, 1), torch.tensor(counts)
    copies = torch.repeat_interleave(torch.arange(4), weight)
    torch.testing.assert_close(
        velocity_loss(a, b, weight.double()), velocity_loss(a[copies], b[copies])
    )


def test_velocity_loss_of_weights_that_are_all_zero_is_zero():
    a = points(3).requires_grad_()
    loss = velocity_loss(a, points(3, 1), torch.zeros(3))
    loss.backward()
    assert float(loss.detach()) == 0
    assert bool((a.grad == 0).all())


def test_energy_distance_of_a_worked_example():
    x, y = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [5.0], [5.0]])
    # 2 E|X-Y| = 2 (1+5+5+1+3+3)/6 = 6; E|X-X'| = 2; E|Y-Y'| = (4+4+0)/3.
    assert float(energy_distance_loss(x, y)) == pytest.approx(6 - 2 - 8 / 3)


def test_mmd_of_a_worked_example():
    x, y = torch.tensor([[0.0], [1.0]]).double(), torch.tensor([[0.0], [2.0]]).double()

    # Distances between the sets 0, 2, 1, 1: the (lower) median, and with it the unit, is 1.
    def k(distance):
        return float(torch.exp(-(torch.tensor(distance).double() ** 2) / 2))

    expected = k(1.0) + k(2.0) - 2 * (k(0.0) + k(2.0) + 2 * k(1.0)) / 4
    assert float(mmd_loss(x, y, bandwidths=[1.0])) == pytest.approx(expected)


@pytest.mark.parametrize("loss", SET_LOSSES)
def test_set_losses_are_unbiased(loss):
    # Between small samples of one distribution the mean is 0; a biased estimate would be positive.
    values = torch.stack([loss(points(5, 2 * s), points(7, 2 * s + 1)) for s in range(800)])
    assert abs(float(values.mean())) < 4 * float(values.std()) / 800**0.5
    assert float((values < 0).double().mean()) > 0.3


@pytest.mark.parametrize("loss", SET_LOSSES)
def test_set_losses_are_symmetric_ordered_and_blind_to_order_and_place(loss):
    x, y, far = points(40, 0), points(50, 1, shift=1.0), points(50, 1, shift=2.0)
    torch.testing.assert_close(loss(x, y), loss(y, x))
    torch.testing.assert_close(loss(x, y), loss(x.flip(0), y.roll(3, 0)))
    torch.testing.assert_close(loss(x, y), loss(x + 5, y + 5))
    assert 0 < float(loss(x, y)) < float(loss(x, far))


def test_energy_distance_has_the_right_gradient():
    x, y = points(4, 0).requires_grad_(), points(5, 1).requires_grad_()
    assert torch.autograd.gradcheck(energy_distance_loss, (x, y))


def test_mmd_has_the_gradient_at_a_constant_median():
    x, y = points(4, 0).requires_grad_(), points(5, 1)
    unit = torch.cdist(x.detach(), y).median()

    def kernel(a, b):
        square = (a[:, None] - b).square().sum(-1) / unit**2
        return (torch.exp(-square / 2) + torch.exp(-square / 8)) / 2

    def by_hand(x):
        own, other = kernel(x, x), kernel(y, y)
        within = (own.sum() - own.trace()) / 12 + (other.sum() - other.trace()) / 20
        return within - 2 * kernel(x, y).mean()

    (gradient,) = torch.autograd.grad(mmd_loss(x, y, bandwidths=(1.0, 2.0)), x)
    (expected,) = torch.autograd.grad(by_hand(x), x)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("loss", SET_LOSSES)
def test_gradients_are_finite_where_points_coincide(loss):
    x = torch.ones(4, 3, dtype=torch.float64, requires_grad=True)
    value = loss(x, torch.ones(5, 3, dtype=torch.float64))
    value.backward()
    assert float(value.detach()) == 0
    assert bool(torch.isfinite(x.grad).all())


@pytest.mark.parametrize("loss", SET_LOSSES)
def test_descent_brings_one_set_onto_the_other(loss):
    x, y = points(60, 0).requires_grad_(), points(60, 1, shift=1.5)
    optimizer = torch.optim.Adam([x], lr=0.1)
    before = float(energy_distance_loss(x, y).detach())
    for _ in range(80):
        optimizer.zero_grad()
        loss(x, y).backward()
        optimizer.step()
    assert float(energy_distance_loss(x, y).detach()) < 0.05 * before


@pytest.mark.parametrize("loss", SET_LOSSES)
def test_groups_are_averaged_and_small_ones_left_aside(loss):
    x, y = points(11, 0), points(12, 1, shift=0.5)
    x_groups = torch.tensor([0] * 5 + [3] * 4 + [7] + [9])
    y_groups = torch.tensor([3] * 6 + [0] * 4 + [7] * 2)
    expected = (loss(x[:5], y[6:10]) + loss(x[5:9], y[:6])) / 2
    torch.testing.assert_close(loss(x, y, x_groups, y_groups), expected)


@pytest.mark.parametrize("loss", SET_LOSSES)
def test_without_a_group_large_enough_the_loss_is_zero_and_differentiable(loss):
    x = points(3).requires_grad_()
    value = loss(x, points(3, 1), torch.tensor([0, 1, 2]), torch.tensor([0, 1, 2]))
    value.backward()
    assert float(value.detach()) == 0
    assert bool((x.grad == 0).all())


def test_tokens_are_flattened():
    x, y = points(6, 0, shape=(2, 3)), points(6, 1, shape=(2, 3))
    torch.testing.assert_close(
        energy_distance_loss(x, y), energy_distance_loss(x.flatten(1), y.flatten(1))
    )


def test_bad_input_is_refused():
    x = points(4)
    with pytest.raises(InputError, match="equal"):
        velocity_loss(x, x[:1])
    with pytest.raises(InputError, match="give one each"):
        velocity_loss(x, x, torch.ones(4, 1))
    with pytest.raises(InputError, match="both sets"):
        energy_distance_loss(x, x, torch.zeros(4))
    with pytest.raises(InputError, match="one group per row"):
        energy_distance_loss(x, x, torch.zeros(3), torch.zeros(4))
    with pytest.raises(InputError, match="one space"):
        mmd_loss(x, points(4, shape=(2,)))
    for bandwidths in ([], [0.0], [-1.0]):
        with pytest.raises(InputError, match="bandwidths"):
            mmd_loss(x, x, bandwidths=bandwidths)
