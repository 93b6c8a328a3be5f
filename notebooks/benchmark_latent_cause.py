"""Where does a latent lose: in what it can express, in the effect prior, or in the flow?

For conditions held out of training, each latent is judged with more and more of the pipeline, all
through the same decoder and the same edit of the observed control cells:

- ``true shift``: every control cell moves by the true mean latent shift of the held-out cells. What
  is missed here the latent and its decoder cannot express by a shift.
- ``prior``: the effect prior's shift, without any flow.
- ``flow``: the whole common shift of the flow on top, whether trusted or not.
- ``as trained``: with the trust that trials chose; what ``model.predict`` gives.

``latent_error`` is the squared error of the shift over the squared true shift, both in the latent
whitened by the variation within conditions, where the prior is fitted. ``start`` is the
autoencoder at its linear start (no training at all).

    python notebooks/benchmark_latent_cause.py docs/results/latent_cause.csv [SPLIT ...]

The committed table is of ``"kang, CD14 Mono"`` alone. Its rows ``set on components`` are of this
script before the latent over tokens started at a regression (`celldit.latent.regression_anchor`).
"""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import anndata as ad
import numpy as np
import torch
from benchmark_calibration import SETUP
from benchmark_prior import problems

import celldit as cd
from celldit.conditions import Condition
from celldit.conditions.effect_estimate import EffectEstimate
from celldit.conditions.effect_prior import EffectPrior
from celldit.conditions.extrapolation import Extrapolation
from celldit.data import Cells
from celldit.training import TrainingConfig

CHOSEN = ("kang, CD14 Mono", "kang, NK", "norman, 3 combinations", "papalexi, 8 pairs")
MEASURES = ["pearson", "nmse", "energy"]
# The flow from noise has weights of its own, which predictions by transport do not use.
CONFIG = TrainingConfig(noise_epochs=0)
COLUMNS = (
    "held_out", "latent", "stage", *MEASURES, "latent_error", "trust", "seconds", "version",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class TrueShifts(EffectPrior):
    """A prior that knows the true shifts of some conditions."""

    known: Mapping[Condition, np.ndarray] | None = None

    def estimate(
        self,
        conditions: Sequence[Condition],
        positions: Mapping[tuple[str, float | None], np.ndarray] | None = None,
    ) -> EffectEstimate:
        """The true shift, as if it were certain."""
        assert self.known is not None
        mean = np.array([self.known[c] for c in conditions])
        return EffectEstimate(mean, np.zeros_like(mean), np.eye(mean.shape[1]))


def true_shifts(
    model: cd.CellDiT, cells: Cells, held_out: Sequence[tuple[str, str]]
) -> dict[Condition, np.ndarray]:
    """Mean latent of held-out cells minus that of their controls; zero for the controls."""
    z = model.trained.autoencoder.encode(cells).flatten(1).double().numpy()
    known = {}
    for label, where in held_out:
        here = cells.contexts == where
        treated, control = here & (cells.perturbations == label), here & cells.is_control
        known[Condition(tuple(label.split("+")), None, where)] = z[treated].mean(0) - z[
            control
        ].mean(0)
        known[Condition((), None, where)] = np.zeros(z.shape[1])
    return known


def latent_error(estimate: np.ndarray, true: np.ndarray, prior: EffectPrior) -> float:
    """Squared error over squared effect, where cells scatter by one in every direction."""
    error, size = (estimate - true) @ prior.rotation, true @ prior.rotation
    return float(np.mean((error**2).sum(1) / (size**2).sum(1)))


def stages(
    model: cd.CellDiT, known: Mapping[Condition, np.ndarray], with_flow: bool
) -> Iterator[tuple[str, cd.CellDiT, str, float | str]]:
    """The same model with other shifts and other weights, and the error of the shift."""
    trained, prior = model.trained, model.trained.population.prior
    own = {f.name: getattr(prior, f.name) for f in fields(prior)}
    told = replace(trained.population, prior=TrueShifts(**own, known=known))
    nothing = dict.fromkeys(Extrapolation, 0.0)
    conditions = [c for c in known if not c.is_control]
    true = np.array([known[c] for c in conditions])
    error = latent_error(prior.estimate(conditions).mean, true, prior)
    versions = [
        ("true shift", replace(trained, population=told, flow_weight=nothing), "", 0.0),
        ("prior", replace(trained, flow_weight=nothing), "", round(error, 3)),
    ]
    if with_flow:
        everything = dict.fromkeys(Extrapolation, 1.0)
        kinds = ("new context", "new combination")
        chosen = max(model.flow_weight[kind] for kind in kinds)
        versions.append(("flow", replace(trained, flow_weight=everything), "1", ""))
        versions.append(("as trained", trained, f"{chosen:g}", ""))
    for name, version, trust, shift_error in versions:
        model._trained = version
        yield name, model, trust, shift_error
    model._trained = trained


def main(out: Path, chosen: Sequence[str]) -> None:
    """Write one row per split, latent and stage."""
    torch.set_num_threads(1)
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for name, (cells, held_out) in problems().items():
            if name not in chosen:
                continue
            data = name.split(",")[0]
            adata: ad.AnnData = getattr(cd.datasets, data)()
            cd.CellDiT.setup_anndata(adata, size_factor_key="total_umis", **SETUP[data])
            pairs = zip(cells.perturbations, cells.contexts, strict=True)
            is_held_out = np.array([pair in set(held_out) for pair in pairs])
            contexts = {where for _, where in held_out}
            control = adata[cells.is_control & np.isin(cells.contexts, list(contexts))]
            for latent in ("pca", "set"):
                for trained in (False, True):
                    began = time.perf_counter()
                    model = cd.CellDiT(adata[~is_held_out], latent=latent)
                    model.train(None if trained else 0, config=CONFIG, enable_progress_bar=False)
                    seconds = round(time.perf_counter() - began)
                    known = true_shifts(model, cells, held_out)
                    for stage, changed, trust, error in stages(model, known, trained):
                        labels = [label for label, _ in held_out]
                        predicted = changed.predict(control, perturbations=labels)
                        truth = adata[is_held_out]
                        scores = cd.tl.evaluate(predicted, truth, control, metrics=MEASURES)
                        means = scores.groupby("metric")["value"].mean().round(3)
                        which = latent if trained else f"{latent}, start"
                        row = (name, which, stage, *means[MEASURES], error, trust, seconds)
                        writer.writerow((*row, cd.__version__))
                        file.flush()
                        print(*row, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or CHOSEN)
