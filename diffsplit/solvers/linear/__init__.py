"""Linear estimates: no network, no training."""
