"""How the network is trained."""

from __future__ import annotations

from dataclasses import dataclass

from celldit.arguments import check_number, check_whole, refuses_former
from celldit.errors import InputError
from celldit.flow.coupling import resolve_coupling

IDLE = ("latent_batch", "latent_rate", "latent_epochs", "latent_patience")
FORMER = {
    **dict.fromkeys(IDLE, "The latent is fitted in closed form; leave it out."),
    "flow_patience": "The flow trains for flow_epochs, whatever held-out cells say.",
    "noise_share": "The flow from noise has weights and epochs of its own; use noise_epochs.",
}
"""Options that earlier versions had, and what to do instead."""


@refuses_former(FORMER, IDLE)
@dataclass(frozen=True)
class TrainingConfig:
    """Settings of :meth:`celldit.CellDiT.train`.

    Attributes
    ----------
    flow_batch, flow_rate, flow_epochs
        Pairs per step, peak learning rate and epochs of the flow.
    flow_group
        Cells of one condition that are paired with as many controls; a batch holds as many such
        groups as fit.
    coupling
        How they are paired: ``"ot"`` by exact optimal transport, ``"entropic"`` by a smoothed one,
        ``"unbalanced"`` where the two sides differ in composition, ``"independent"`` at random.
    flow_steps_per_epoch
        Steps of an epoch of the flow.
    weight_decay
        Of AdamW.
    ema_decay
        Of the exponential moving average of the flow's weights.
    noise_epochs, noise_patience
        Most epochs of the flow from noise, which has weights of its own, after the flow, and
        epochs without a smaller error on held-out cells after which it stops. Predictions do not
        depend on it, but for ``"inversion"`` and ``"edit"``.
    new_cells
        Whether the model learns to draw new cells: the flow from noise on weights of its own, and
        how counts follow from its latents. False leaves both out, a quarter to a third of the
        time on a small screen; predictions by ``"transport"`` are the same. Then ``generate`` and
        ``trajectory`` refuse, also of a model fine-tuned from it, unless on all its contexts.
    growth
        Whether cells of a time course may grow and die, so that cells of consecutive times are
        paired by unbalanced transport and need not all become one another.
    cross_fit
        Probability that a training pair starts at the effect estimated without its own condition.
    drop_condition
        Probability that a pair's condition is withheld, for guidance.
    held_out_cells, held_out_conditions
        Share of the cells, and of the perturbed conditions, that a trial run never sees, by which
        the network's weight is chosen.
    n_trials
        Trial runs, each with other held-out conditions, before the final run on everything.
    least_gain
        Share of the effect model's error on held-out conditions and cells that the network has to
        save for training to go on with it: otherwise its weight is 0, the first trial run stops
        half way, and its network is kept. 0 takes all steps of all runs.
    compile
        Whether ``torch.compile`` makes the velocity network faster while it trains: ``"on"``,
        ``"off"``, or ``"auto"`` for on where training uses CUDA and the network is large enough to
        gain (:data:`celldit.training.devices.cuda.LARGE_STEP`).
    """

    flow_batch: int = 128
    flow_rate: float = 1e-3
    flow_epochs: int = 8
    flow_group: int = 64
    coupling: str = "ot"
    flow_steps_per_epoch: int = 50
    weight_decay: float = 1e-2
    ema_decay: float = 0.98
    noise_epochs: int = 20
    noise_patience: int = 4
    new_cells: bool = True
    growth: bool = False
    cross_fit: float = 0.5
    drop_condition: float = 0.0
    held_out_cells: float = 0.1
    held_out_conditions: float = 0.15
    n_trials: int = 3
    least_gain: float = 0.05
    compile: str = "auto"

    def __post_init__(self) -> None:
        for name in ("flow_batch", "flow_group", "flow_steps_per_epoch"):
            check_whole(getattr(self, name), name)
        for name in ("flow_epochs", "noise_epochs", "noise_patience", "n_trials"):
            check_whole(getattr(self, name), name, 0)
        for name in ("flow_rate", "weight_decay"):
            check_number(getattr(self, name), name)
        held_out = ("held_out_cells", "held_out_conditions")
        for name in ("ema_decay", "cross_fit", "drop_condition", "least_gain", *held_out):
            check_number(getattr(self, name), name, most=1)
            if name in held_out and getattr(self, name) == 1:
                raise InputError(f"{name}=1 would leave nothing to train on; use less than 1.")
        for name in ("new_cells", "growth"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name}={getattr(self, name)!r} must be True or False.")
        resolve_coupling(self.coupling)
        if self.compile not in ("auto", "on", "off"):
            raise InputError(f"compile={self.compile!r} must be 'auto', 'on' or 'off'.")
