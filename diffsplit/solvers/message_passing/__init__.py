"""Expectation propagation between the measurements and a denoiser."""
