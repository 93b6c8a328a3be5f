"""The measures that :func:`celldit.evaluation.evaluate` knows, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from celldit.arguments import check_known, text_list
from celldit.errors import InputError
from celldit.evaluation import metrics as m
from celldit.evaluation.condition import Condition


@dataclass(frozen=True)
class Metric:
    """One measure of a prediction.

    Parameters
    ----------
    name
        As in the column ``metric``.
    better
        ``"higher"``, ``"lower"``, or ``"nearer"`` to the ideal from either side.
    ideal
        The value of a perfect prediction.
    default
        Whether it is in the default table; slow ones are not.
    about
        What it measures, in one line.
    """

    name: str
    better: Literal["higher", "lower", "nearer"]
    ideal: float
    default: bool
    about: str

    def loss(self, value: float) -> float:
        """How far a value is from ideal: comparable between methods, lower is better.

        For a measure that is better lower, values below the ideal (an unbiased distance of two like
        samples) give a loss below 0.
        """
        if self.better == "higher":
            return self.ideal - value
        return abs(value - self.ideal) if self.better == "nearer" else value - self.ideal


#: Measures of one condition at a time.
FUNCTIONS: dict[str, Callable[[Condition], float]] = {
    "pearson": lambda c: m.pearson_shift(c.predicted_shift, c.true_shift),
    "pearson_top20": lambda c: m.pearson_shift(c.predicted_shift, c.true_shift, c.top_genes),
    "cosine": lambda c: m.cosine_shift(c.predicted_shift, c.true_shift),
    "nmse": lambda c: m.normalized_squared_error(
        c.predicted_shift, c.true_shift, error_noise=c.error_noise, effect_noise=c.effect_noise
    ),
    "energy": lambda c: m.energy_distance(c.predicted_ND, c.true_MD),
    "mmd": lambda c: (
        m.mmd(c.predicted_ND, c.true_MD, bandwidth=c.bandwidth) if c.bandwidth > 0 else float("nan")
    ),
    "w2_sliced": lambda c: m.sliced_wasserstein(c.predicted_ND, c.true_MD, seed=c.seed),
    "w2": lambda c: m.wasserstein(c.predicted_ND, c.true_MD),
    "n_called_predicted": lambda c: float(c.predicted_de.significant().size),
    "n_called_measured": lambda c: float(c.true_de.significant().size),
    "de_overlap": lambda c: m.de_overlap(c.predicted_de, c.true_de),
    "de_direction": lambda c: m.de_direction(c.predicted_de, c.true_de),
    "lfc_error": lambda c: m.lfc_error(c.predicted_de, c.true_de),
    "variance_ratio": lambda c: m.variance_ratio(c.predicted_NG, c.true_MG),
    "zero_fraction_error": lambda c: m.zero_fraction_error(c.predicted_NG, c.true_MG),
    "correlation_error": lambda c: m.correlation_error(c.predicted_NG, c.true_MG, seed=c.seed),
    "nn_accuracy": lambda c: m.nearest_neighbor_accuracy(c.predicted_ND, c.true_MD, seed=c.seed),
    "classifier_auc": lambda c: m.classifier_auc(c.predicted_NG, c.true_MG, seed=c.seed),
}

#: Measures of all conditions of a context together, from predicted and true shifts and the
#: positions of the genes that any of them acts on.
OF_PANELS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "pearson_centroid": lambda u, v, targets: m.centroid_correlations(u, v),
    "discrimination": lambda u, v, targets: m.discrimination_scores(u, v, left_out=targets),
    "discrimination_l1": lambda u, v, targets: m.discrimination_scores(
        u, v, metric="l1", left_out=targets
    ),
}

#: Not measures of quality, but what the others rest on.
COUNTS = ("n_predicted", "n_measured")

#: Called genes, which stand beside measures that rest on them.
DE_COUNTS = ("n_called_predicted", "n_called_measured")

#: The row of the split halves among methods.
CEILING = "ceiling"

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("pearson", "higher", 1.0, True, "Pearson r of the mean shift, all genes"),
        Metric("pearson_top20", "higher", 1.0, True, "the same, 20 largest true shifts"),
        Metric("cosine", "higher", 1.0, True, "cosine of the mean shift, all genes"),
        Metric(
            "pearson_centroid",
            "higher",
            1.0,
            True,
            "Pearson r of the shift from the mean of all perturbations",
        ),
        Metric("nmse", "lower", 0.0, True, "squared error over squared effect, noise-free"),
        Metric("energy", "lower", 0.0, True, "energy distance in 50 principal components"),
        Metric("mmd", "lower", 0.0, True, "squared MMD, five RBF widths, same components"),
        Metric("w2_sliced", "lower", 0.0, True, "sliced Wasserstein-2, same components"),
        Metric("w2", "lower", 0.0, False, "exact Wasserstein-2, same components (slow)"),
        Metric(
            "discrimination", "higher", 1.0, True, "rank of the own effect, by cosine; 0 is chance"
        ),
        Metric("discrimination_l1", "higher", 1.0, False, "the same, by L1 distance"),
        Metric("de_overlap", "higher", 1.0, True, "share of differential genes found"),
        Metric("de_direction", "higher", 1.0, True, "share of them with the right sign"),
        Metric("lfc_error", "lower", 0.0, True, "mean error of their log2 fold changes"),
        Metric("variance_ratio", "nearer", 1.0, True, "total variance, predicted / measured"),
        Metric("zero_fraction_error", "lower", 0.0, False, "error of the share of zeros"),
        Metric(
            "correlation_error",
            "lower",
            0.0,
            True,
            "squared error of gene correlations over their size",
        ),
        Metric("nn_accuracy", "nearer", 0.5, False, "1-nearest-neighbour, real or predicted"),
        Metric("classifier_auc", "nearer", 0.5, False, "boosted trees, real or predicted (slow)"),
    )
}

#: The default table.
DEFAULT: tuple[str, ...] = tuple(name for name, metric in METRICS.items() if metric.default)


def resolve(names: Sequence[str] | str | None) -> tuple[str, ...]:
    """Expand what a user asks for into names of measures.

    None and ``"default"`` stand for the default table with the numbers of cells, ``"all"`` for
    everything; else names, in the order wanted. UnknownNameError if a measure does not exist;
    InputError if no name is given.
    """
    if names is None or names == "default":
        return (*COUNTS, *DEFAULT)
    if names == "all":
        return (*COUNTS, *METRICS)
    wanted = tuple(dict.fromkeys(text_list(names, "metrics")))
    known = (*METRICS, *COUNTS, *DE_COUNTS)
    if not wanted:
        raise InputError(f"No metric was asked for; give some of {', '.join(METRICS)}.")
    check_known(wanted, known, "metric")
    return wanted


def without_counts(
    names: Sequence[str] | str | None, counts: Sequence[str] = COUNTS
) -> tuple[str, ...]:
    """The same without numbers of cells, or other counts; InputError if nothing is left."""
    wanted = tuple(name for name in resolve(names) if name not in counts)
    if not wanted:
        raise InputError(
            f"No measure was asked for beside {', '.join(counts)}; give some of "
            f"{', '.join(METRICS)}."
        )
    return wanted
