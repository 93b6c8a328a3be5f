"""Figures, in scanpy's idiom: each function draws on ``ax=`` or a new figure and returns the axes.

All take the same options (:mod:`celldit.pl.figure`). ``save=True``, or text such as
``"_day2.png"``, writes into ``scanpy.settings.figdir`` as scanpy does, and a path writes that file;
``figsize``, ``palette`` and ``return_fig`` are scanpy's, and ``scanpy.settings.autosave`` and
``autoshow`` are heard. By default a figure is shown when matplotlib has a window to show it in and
neither ``ax`` nor ``save`` is given; notebooks show it by themselves. Where genes are named,
``gene_symbols`` says how. Colours are those of Okabe & Ito (2008), which the colour-blind tell
apart. Fold changes are to the base 2, as scanpy's are; expression is ln(1 + counts per 10,000).
"""

from __future__ import annotations

from celldit.pl.calibration import calibration
from celldit.pl.distributions import distributions
from celldit.pl.effects.dose_response import dose_response
from celldit.pl.effects.effect import effect
from celldit.pl.effects.effect_heatmap import effect_heatmap
from celldit.pl.effects.trajectory import trajectory
from celldit.pl.effects.volcano import volcano
from celldit.pl.embedding import embedding
from celldit.pl.fate_map import fate_map
from celldit.pl.gene_sets.attention import attention, attention_network
from celldit.pl.gene_sets.programs import programs
from celldit.pl.interactions import interactions
from celldit.pl.responders import responders
from celldit.pl.scores import scores
from celldit.pl.training import training_curves

__all__ = [
    "attention",
    "attention_network",
    "calibration",
    "distributions",
    "dose_response",
    "effect",
    "effect_heatmap",
    "embedding",
    "fate_map",
    "interactions",
    "programs",
    "responders",
    "scores",
    "training_curves",
    "trajectory",
    "volcano",
]


def __dir__() -> list[str]:
    return list(__all__)
