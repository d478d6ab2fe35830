"""Data steps: what the measurements say, given an estimate."""

from diffsplit.data_steps.adam import adam_step
from diffsplit.data_steps.exact import check_exact, exact_step, newton_step
from diffsplit.data_steps.momentum import momentum_steps
from diffsplit.data_steps.recurrence import CollapsedMomentum, collapsed_momentum, collapses

__all__ = [
    "CollapsedMomentum",
    "adam_step",
    "check_exact",
    "collapsed_momentum",
    "collapses",
    "exact_step",
    "momentum_steps",
    "newton_step",
]
