"""Log fold changes of genes: their size, how far they are off, and how probably they are real."""

from __future__ import annotations

from celldit.calibration.effects.calibration import EffectCalibration
from celldit.calibration.effects.shape import ErrorShape, Spread

__all__ = ["EffectCalibration", "ErrorShape", "Spread"]
