"""How much each token of the network moves a cell: the displacement as a sum.

The velocity is a sum over tokens, and so is its integral. Each token's share is integrated beside
the state itself: ``d c_g / dt = v_g(x_t, t)``. Solvers are linear in the velocities that they
combine, so the shares sum to the displacement whatever the solver and the number of steps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from celldit.flow.anchored import AnchoredFlow, FlowCondition
from celldit.flow.solvers import resolve_solver


@torch.no_grad()
def contributed(
    flow: AnchoredFlow, x0_BKD: Tensor, condition: FlowCondition, times_S: Tensor, solver: str
) -> tuple[Tensor, Tensor]:
    """Carry control cells from `x0_BKD` through the flow and keep what each token moved them by.

    The solver, given by name, takes its steps at `times_S`, from 0 to 1. Back come where the cells
    end, and the displacement by each of T tokens, which sum to the whole. InputError if the network
    has no tokens of its own.
    """
    shape = x0_BKD.shape
    n_tokens, n_dims = flow.views.n_tokens, shape[1] * shape[2]

    def velocity(y_BX: Tensor, t_B: Tensor) -> Tensor:
        x_BKD = y_BX[:, :n_dims].view(shape)
        parts_BTF = flow.contributions(x_BKD, t_B, condition)
        return torch.cat([parts_BTF.sum(1), parts_BTF.flatten(1)], dim=1)

    was_training = flow.training
    flow.eval()
    start_BX = torch.cat([x0_BKD.flatten(1), x0_BKD.new_zeros(len(x0_BKD), n_tokens * n_dims)], 1)
    end_BX = resolve_solver(solver).solve(velocity, start_BX, times_S)
    flow.train(was_training)
    contributions_BTF = end_BX[:, n_dims:].view(-1, n_tokens, n_dims)
    return end_BX[:, :n_dims].view(shape), contributions_BTF
