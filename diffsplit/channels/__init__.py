"""How a number becomes a measurement: p(y | s), elementwise.

Noise levels, thresholds and edges are in the units of s = A x, with x on [-1, 1].
"""

from dataclasses import MISSING, fields
from typing import Any

from diffsplit.arguments import brief
from diffsplit.channels.base import Channel, Moments
from diffsplit.channels.gaussian import GaussianNoise
from diffsplit.channels.logistic import Logistic
from diffsplit.channels.one_bit import OneBit
from diffsplit.channels.quantized import Quantized
from diffsplit.errors import InputError

__all__ = [
    "Channel",
    "GaussianNoise",
    "Logistic",
    "Moments",
    "OneBit",
    "Quantized",
    "from_config",
]

_KINDS: dict[str, type[GaussianNoise] | type[OneBit] | type[Quantized] | type[Logistic]] = {
    "gaussian": GaussianNoise,
    "one-bit": OneBit,
    "quantized": Quantized,
    "logistic": Logistic,
}


def from_config(config: dict[str, Any]) -> Channel:
    """The channel whose `Channel.config` is ``config``.

    Args:
        config: ``{"kind": "one-bit", "sigma": 0.5, …}``; what is left out takes its default.

    Raises:
        InputError: not a dictionary, an unknown kind or parameter, one that is missing, or one
            with a wrong type or value.
    """
    if not isinstance(config, dict):
        raise InputError(f"a channel is described by a dictionary, not by {brief(config)}.")
    kind = config.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise InputError(f"{brief(kind)} is no kind of channel; choose one of {', '.join(_KINDS)}.")
    known = {f.name: f for f in fields(_KINDS[kind]) if f.init}
    given = {key: value for key, value in config.items() if key != "kind"}
    required = [name for name, field in known.items() if field.default is MISSING]
    wrong = [f"has no parameter {brief(name)}" for name in given if name not in known]
    wrong += [f"needs {name}" for name in required if name not in given]
    if wrong:
        raise InputError(f"a {kind} channel {wrong[0]}; its parameters are {', '.join(known)}.")
    return _KINDS[kind](**given)
