"""Figures, in scanpy's idiom: each function draws on ``ax=`` or a new figure and returns the axes.

``save="figure.pdf"`` writes the figure to that file; ``show=True`` shows it. By default a figure is
shown when matplotlib has a window to show it in and neither ``ax`` nor ``save`` is given; notebooks
show it by themselves. Colours are those of Okabe & Ito (2008), which the colour-blind tell apart.
"""

from __future__ import annotations

from celldit.pl.attention import attention
from celldit.pl.attention_network import attention_network
from celldit.pl.calibration import calibration
from celldit.pl.distributions import distributions
from celldit.pl.effects.dose_response import dose_response
from celldit.pl.effects.effect import effect
from celldit.pl.effects.effect_heatmap import effect_heatmap
from celldit.pl.effects.trajectory import trajectory
from celldit.pl.effects.volcano import volcano
from celldit.pl.embedding import embedding
from celldit.pl.fate_map import fate_map
from celldit.pl.interactions import interactions
from celldit.pl.programs import programs
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
