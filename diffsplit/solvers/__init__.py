"""Solvers: one algorithm a file, all called as ``solver(problem, y, prior, generator=)``."""

from diffsplit.solvers.base import Solver
from diffsplit.solvers.splitting.dcdp import DCDP
from diffsplit.solvers.latent.dcdp_latent import LatentDCDP
from diffsplit.solvers.message_passing.diff_ep import DiffEP
from diffsplit.solvers.splitting.diff_onebit import DiffOneBit
from diffsplit.solvers.purify import purification_grid, purify
from diffsplit.solvers.recovery import Recovery, Step, Trace
from diffsplit.solvers.reverse import reverse_diffusion, sample

__all__ = [
    "DCDP",
    "DiffEP",
    "DiffOneBit",
    "LatentDCDP",
    "Recovery",
    "Solver",
    "Step",
    "Trace",
    "purification_grid",
    "purify",
    "reverse_diffusion",
    "sample",
]
