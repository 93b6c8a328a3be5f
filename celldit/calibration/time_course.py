"""What is known of a course between its times: pace, and whether cells change or are replaced.

Between two times of training a population may be on its way as a whole, each cell having changed a
share of what separates the times (displacement), or it may hold cells of both times, of the later
one the more the nearer it is (mixture). A share between the two says how far cells go themselves:
0 gives the mixture, 1 the displacement. Which is right, and the pace
(:class:`~celldit.conditions.time_scale.TimeScale`), is chosen by leaving out times of training
(:mod:`celldit.calibration.fit_time`); where no time has two others about it there is nothing to
leave out, and the defaults are used and said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from celldit.conditions.time_scale import TimeScale
from celldit.flow.time import TimeFlow

PREFIX = "network."


@dataclass(frozen=True)
class LeftOut:
    """A time of training that was predicted from those about it.

    Attributes
    ----------
    context, time
        Which.
    displaced, mixed, nearer
        Energy distance of the cells as chosen, of cells of both neighbours in proportion to how
        near they are, and of the nearer neighbour alone, all over that between the neighbours.
    """

    context: str
    time: float
    displaced: float
    mixed: float
    nearer: float


@dataclass(frozen=True, eq=False)
class TimeCourse:
    """How cells get from one time to another.

    Attributes
    ----------
    scale
        Progress of the course as a function of time.
    displacement
        Share of the way that cells go themselves, in [0, 1].
    flow
        Velocity of cells beyond that of the mean; None where too few cells were seen.
    left_out
        Times that were left out to choose the first two; none where none could be.
    """

    scale: TimeScale
    displacement: float = 1.0
    flow: TimeFlow | None = None
    left_out: tuple[LeftOut, ...] = ()

    @property
    def verdict(self) -> str:
        """What was chosen for times between those of training, and on what grounds."""
        pace = (
            "at a steady pace"
            if self.scale.rate == 0
            else f"fast at first ({self.scale.rate:g} time constants over the course)"
        )
        if self.displacement == 1:
            what = f"cells change {pace}"
        elif self.displacement == 0:
            what = f"cells of both neighbouring times, mixed {pace}"
        else:
            share = f"{self.displacement:.0%}"
            what = f"cells change {share} of the way and are mixed for the rest, {pace}"
        if not self.left_out:
            return f"{what}; assumed, as no time of training has another on both sides"
        own_error, mixed, nearer = (
            float(np.mean([getattr(trial, name) for trial in self.left_out]))
            for name in ("displaced", "mixed", "nearer")
        )
        n = len(self.left_out)
        times = "time" if n == 1 else "times"
        text = f"{what}; chosen on {n} {times} left out: error {own_error:.2f}, mixture {mixed:.2f}"
        if nearer < own_error:
            text += f", the nearer neighbour {nearer:.2f}, so do not rely on it"
        return text

    def to_config(self) -> dict[str, Any]:
        """Everything but the arrays, for JSON."""
        network = self.flow
        return {
            "scale": self.scale.to_config(),
            "displacement": self.displacement,
            "left_out": [
                [t.context, t.time, t.displaced, t.mixed, t.nearer] for t in self.left_out
            ],
            "verdict": self.verdict,
            "network": None if network is None else list(network.shape),
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """The weights of the network, for safetensors."""
        if self.flow is None:
            return {}
        return {PREFIX + name: t.cpu().numpy() for name, t in self.flow.state_dict().items()}

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], flow: TimeFlow | None, times: tuple[float, float] | None
    ) -> TimeCourse:
        """Rebuild what :meth:`to_config` wrote.

        Parameters
        ----------
        config
            Nothing of a model that knew no course.
        flow
            The network, with its weights.
        times
            First and last time of training, for such a model.
        """
        if not config:
            return cls(TimeScale(*(times or (0.0, 1.0))), flow=None)
        displacement = float(config["displacement"])
        if not 0 <= displacement <= 1:
            raise ValueError("its share of the way through time is not between 0 and 1")
        return cls(
            TimeScale.from_config(config["scale"]),
            displacement,
            flow,
            tuple(
                LeftOut(str(context), *(float(x) for x in rest))
                for context, *rest in config["left_out"]
            ),
        )
