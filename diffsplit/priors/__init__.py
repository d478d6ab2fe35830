"""Priors: any diffusion model as a denoiser, and how wrong it is at each noise level."""

from diffsplit.priors.base import Prior
from diffsplit.priors.diffusers import DiffusersPrior
from diffsplit.priors.edm import EDMPrior
from diffsplit.priors.error_curve import ErrorCurve, log_grid, measure_error
from diffsplit.priors.functional import from_callable
from diffsplit.priors.gaussian import GaussianMixturePrior, GaussianPrior
from diffsplit.priors.load import bundled_priors, load_prior

__all__ = [
    "DiffusersPrior",
    "EDMPrior",
    "ErrorCurve",
    "GaussianMixturePrior",
    "GaussianPrior",
    "Prior",
    "bundled_priors",
    "from_callable",
    "load_prior",
    "log_grid",
    "measure_error",
]
