"""Priors: trained models as denoisers, consistency models or latent models, and their loading."""

from diffsplit.priors.adm import ADMPrior
from diffsplit.priors.base import ConsistencyModel, Denoiser, LatentModel, Prior
from diffsplit.priors.cards import Card, card_names, model_card, models_folder
from diffsplit.priors.closed_form import (
    GaussianConsistency,
    GaussianMixturePrior,
    GaussianPrior,
    linear_latent,
)
from diffsplit.priors.consistency import ConsistencyPrior, ResidualConsistency
from diffsplit.priors.curve_store import curves_folder, error_facts, store_curve, stored_curve
from diffsplit.priors.diffusers import DiffusersPrior
from diffsplit.priors.edm import EDMPrior
from diffsplit.priors.error_curve import ErrorCurve, log_grid, measure_error
from diffsplit.priors.flow import FlowPrior
from diffsplit.priors.functional import from_callable
from diffsplit.priors.gaussian_spectrum import GaussianSpectrum
from diffsplit.priors.iid_mixture import IIDMixturePrior
from diffsplit.priors.latent import LatentPrior
from diffsplit.priors.load import bundled_priors, load_prior, locate_prior
from diffsplit.priors.preconditioned import PreconditionedPrior
from diffsplit.priors.residual import ResidualPrior
from diffsplit.priors.score import ScorePrior

__all__ = [
    "ADMPrior",
    "Card",
    "ConsistencyModel",
    "ConsistencyPrior",
    "Denoiser",
    "DiffusersPrior",
    "EDMPrior",
    "ErrorCurve",
    "FlowPrior",
    "GaussianConsistency",
    "GaussianMixturePrior",
    "GaussianPrior",
    "GaussianSpectrum",
    "IIDMixturePrior",
    "LatentModel",
    "LatentPrior",
    "PreconditionedPrior",
    "Prior",
    "ResidualConsistency",
    "ResidualPrior",
    "ScorePrior",
    "bundled_priors",
    "card_names",
    "curves_folder",
    "error_facts",
    "from_callable",
    "linear_latent",
    "load_prior",
    "locate_prior",
    "log_grid",
    "measure_error",
    "model_card",
    "models_folder",
    "store_curve",
    "stored_curve",
]
