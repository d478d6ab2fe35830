"""Solvers: one algorithm a file, all called as ``solver(problem, y, prior, generator=)``."""

from diffsplit.solvers.base import Solver
from diffsplit.solvers.diff_ep import DiffEP
from diffsplit.solvers.diff_onebit import DiffOneBit
from diffsplit.solvers.recovery import Recovery, Step, Trace
from diffsplit.solvers.reverse import reverse_diffusion, sample

__all__ = [
    "DiffEP",
    "DiffOneBit",
    "Recovery",
    "Solver",
    "Step",
    "Trace",
    "reverse_diffusion",
    "sample",
]
