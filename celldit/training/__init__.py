"""The two stages of training. Lightning is imported only when training starts."""

from celldit.training.config import TrainingConfig

__all__ = ["TrainingConfig"]
