"""Training the small denoisers that the library ships, on any folder or zip of images."""

from diffsplit.training.train import TrainConfig, train

__all__ = ["TrainConfig", "train"]
