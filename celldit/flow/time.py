"""How cells change from one time to the next: one velocity for the whole course.

The mean of a course is known at the times of training and on the way between them. The network adds
how a cell's deviation y from that mean changes: dy/du = velocity(y, u, context), u the progress of
the course. It is a rectified flow (Liu et al., ICLR 2023) with many margins: pairs of cells of
consecutive times that optimal transport puts together lie on straight lines in y, and one network
learns the velocity on the lines of all steps. So a cell can start and stop at any u, forwards and
backwards. A network that was not trained has no velocity, and cells keep their deviation.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

N_WAVES = 4
N_STEPS = 8


class TimeFlow(nn.Module):
    """Velocity of deviations from the mean course, in F dimensions.

    Contexts of training have numbers from 1; 0 is for others. There are two hidden layers.
    """

    def __init__(self, n_dims: int, n_contexts: int, width: int = 128) -> None:
        super().__init__()
        self.context = nn.Embedding(n_contexts + 1, 16)
        self.net = nn.Sequential(
            nn.Linear(n_dims + 2 * N_WAVES + 16, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, n_dims),
        )
        last = self.net[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.shape = n_dims, n_contexts, width
        # Share of the velocity to use, chosen on cells that were held out.
        self.weight: Tensor
        self.register_buffer("weight", torch.ones(1))
        # Contexts that it was trained on; cells of others keep their deviation.
        self.known: Tensor
        self.register_buffer("known", torch.zeros(n_contexts + 1))

    def forward(self, y_BF: Tensor, u_B: Tensor, context_B: Tensor) -> Tensor:
        """The velocity dy/du, (B, F), of deviations from the mean course at progress u in [0, 1].

        Contexts are numbers, int64.
        """
        angle_BW = math.pi * u_B[:, None] * torch.arange(1, N_WAVES + 1).to(u_B)
        waves = angle_BW.sin(), angle_BW.cos()
        return self.weight * self.net(torch.cat([y_BF, *waves, self.context(context_B)], dim=1))

    @torch.no_grad()
    def move(self, y_BF: Tensor, start_B: Tensor, end_B: Tensor, context_B: Tensor) -> Tensor:
        """Take deviations from one progress to another by Heun's method, (B, F).

        Cells whose start and end are equal, or of whose context no pairs were seen, stay.
        """
        step_B1 = ((end_B - start_B) / N_STEPS * self.known[context_B])[:, None]
        for i in range(N_STEPS):
            now_B = torch.lerp(start_B, end_B, i / N_STEPS)
            next_B = torch.lerp(start_B, end_B, (i + 1) / N_STEPS)
            first_BF = self(y_BF, now_B, context_B)
            second_BF = self(y_BF + step_B1 * first_BF, next_B, context_B)
            y_BF = y_BF + step_B1 * 0.5 * (first_BF + second_BF)
        return y_BF
