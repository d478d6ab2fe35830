"""How a number becomes a measurement: p(y | s), elementwise.

Noise levels, thresholds and edges are in the units of s = A x, with x on [-1, 1].
"""

from dataclasses import MISSING, fields
from typing import Any

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
        raise InputError(f"a channel is described by a dictionary, not by {config!r:.40}.")
    kind = config.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise InputError(f"{kind!r:.40} is no kind of channel; choose one of {', '.join(_KINDS)}.")
    known = {f.name: f for f in fields(_KINDS[kind]) if f.init}
    given = {key: value for key, value in config.items() if key != "kind"}
    if unknown := [key for key in given if key not in known]:
        raise InputError(
            f"a {kind} channel has no parameter {unknown[0]!r:.40}; it has {', '.join(known)}."
        )
    required = [n for n, f in known.items() if f.default is MISSING]
    if missing := [name for name in required if name not in given]:
        raise InputError(f"a {kind} channel needs {missing[0]}; add it to the description.")
    return _KINDS[kind](**given)
