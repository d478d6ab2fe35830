"""Recover images and other signals from measurements that threw most of the information away.

    import diffsplit as ds

    prior = ds.load_prior("cats-64")
    A = ds.operators.GaussianMatrix((3, 64, 64), rows=768, seed=0)
    problem = ds.Problem(A, ds.channels.OneBit(sigma=0.5))
    y = problem.measure(x, generator=torch.Generator().manual_seed(0))
    result = ds.solvers.DiffEP()(problem, y, prior)

Images are float tensors ``(B, C, H, W)`` on [-1, 1]; a noise level is in the units of A x.
"""

from diffsplit import (
    calibration,
    channels,
    data_steps,
    fid,
    interop,
    metrics,
    operators,
    plausibility,
    plots,
    priors,
    schedules,
    solvers,
    tasks,
    uncertainty,
)
from diffsplit.errors import DivergenceError, InputError, MissingDependencyError
from diffsplit.io import images
from diffsplit.io.images import load_image, save_image
from diffsplit.priors import ConsistencyModel, Denoiser, LatentModel, Prior, load_prior
from diffsplit.problem import Problem
from diffsplit.solvers import Recovery

__version__ = "0.1.0"

__all__ = [
    "ConsistencyModel",
    "Denoiser",
    "DivergenceError",
    "InputError",
    "LatentModel",
    "MissingDependencyError",
    "Prior",
    "Problem",
    "Recovery",
    "__version__",
    "calibration",
    "channels",
    "data_steps",
    "fid",
    "images",
    "interop",
    "load_image",
    "load_prior",
    "metrics",
    "operators",
    "plausibility",
    "plots",
    "priors",
    "save_image",
    "schedules",
    "solvers",
    "tasks",
    "uncertainty",
]
