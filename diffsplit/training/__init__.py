"""Training the small denoisers that the library ships, on any folder or zip of images."""

from diffsplit.training.config import CHANGEABLE, TrainConfig
from diffsplit.training.train import started_config, train

__all__ = ["CHANGEABLE", "TrainConfig", "started_config", "train"]
