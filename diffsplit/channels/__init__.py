"""How a number becomes a measurement: p(y | s), elementwise.

Noise levels, thresholds and edges are in the units of s = A x, with x on [-1, 1].
"""

from diffsplit.channels.base import Channel, Moments
from diffsplit.channels.gaussian import GaussianNoise
from diffsplit.channels.logistic import Logistic
from diffsplit.channels.one_bit import OneBit
from diffsplit.channels.quantized import Quantized
from diffsplit.channels.registry import from_config

__all__ = [
    "Channel",
    "GaussianNoise",
    "Logistic",
    "Moments",
    "OneBit",
    "Quantized",
    "from_config",
]
