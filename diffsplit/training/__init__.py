"""Training the small models that the library ships, on any folder or zip of images."""

from diffsplit.training.config import RunConfig, TrainConfig
from diffsplit.training.train import started_config, train

__all__ = ["RunConfig", "TrainConfig", "started_config", "train"]
