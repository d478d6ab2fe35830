"""What a measurement file says of its measurements: a JSON object with a checksum.

The object's first entry ``sha256`` is the checksum of the object without that entry, as text,
followed by the bytes of the measurements. Everything is checked here that can be checked before an
operator is built.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from diffsplit.errors import InputError
from diffsplit.io.packing import MAX_BITS, packed_size

__all__ = ["MAX_TEXT", "parsed", "plain_facts", "refused", "sealed"]

FORMAT, VERSION = "diffsplit-measurements", 1
MAX_DEPTH = 64
"""How deeply lists and objects may be nested, in facts and in a whole description."""
MAX_TEXT = 1 << 24
"""The most characters of a description that are read."""
MAX_VALUES = 1 << 28
"""The most measurements, and the largest image, that a file may announce."""


def refused(path: str | os.PathLike[str], reason: str) -> InputError:
    """The error for a file that cannot be used."""
    return InputError(f"{path}: {reason}.")


def plain_facts(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts as a reader of the file will see them, if they are JSON values and not too deep."""
    try:
        plain = json.loads(json.dumps(facts, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"the facts are no plain JSON values ({error}); give text, finite numbers, lists and "
            "objects of these."
        ) from error
    if not isinstance(plain, dict) or _too_deep(plain, MAX_DEPTH - 1):
        raise InputError(
            f"the facts are no object of JSON values nested less than {MAX_DEPTH} deep; give a "
            "dictionary of plain values."
        )
    return plain


def sealed(header: dict[str, Any], payload: NDArray[Any]) -> str:
    """The description of ``payload`` as text, with the format's name and the checksum."""
    header = {"format": FORMAT, "version": VERSION, **header}
    try:
        text = json.dumps(header, separators=(",", ":"), allow_nan=False)
    except ValueError as error:  # of what is in it, only the fingerprint can still be not finite
        raise InputError(
            "the operator gives no finite measurements of an image on [-1, 1]; scale it."
        ) from error
    if len(text) > MAX_TEXT - 100:
        raise InputError(
            f"the description takes {len(text):,} characters, and files with at most "
            f"{MAX_TEXT:,} are read; leave out some of the facts."
        )
    return _with_checksum(text, payload)


def parsed(path: str | os.PathLike[str], text: str, payload: NDArray[Any]) -> dict[str, Any]:
    """The description that `sealed` wrote, with every field of the right type and size."""
    inner = "{" + text[len(_with_checksum("{", payload)) :]
    if text != _with_checksum(inner, payload):
        raise refused(path, "damaged (its checksum does not match); copy it again")
    try:
        header = json.loads(inner, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise refused(path, "its description is not valid JSON; measure again") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT or _too_deep(header):
        raise refused(path, "no file of measurements; `diffsplit measure` writes one")
    if (version := header.get("version")) != VERSION:
        reads = f"this diffsplit reads {VERSION}; update diffsplit or measure again"
        raise refused(path, f"format version {version!r:.20}, and {reads}")
    if not _has_fields(header):
        raise refused(path, "a field of its description is missing or wrong; measure again")
    if not _fits(header, payload):
        raise refused(path, "its measurements are not of the size and type announced")
    return header


def _with_checksum(text: str, payload: NDArray[Any]) -> str:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass"))
    digest.update(payload.tobytes())
    return f'{{"sha256":"{digest.hexdigest()}",{text[1:]}'


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _too_deep(value: Any, depth: int = MAX_DEPTH) -> bool:
    """Whether lists and objects are nested more than ``depth`` deep; it never recurses itself."""
    level = [value]
    for _ in range(depth + 1):
        inside = (v.values() if isinstance(v, dict) else v for v in level)
        level = [part for parts in inside for part in parts if isinstance(part, dict | list)]
    return bool(level)


def _has_fields(header: dict[str, Any]) -> bool:
    fingerprint: Any = header.get("fingerprint")
    return (
        _is_shape(header.get("shape"))
        and _is_shape(header.get("image_shape"))
        and all(isinstance(header.get(key), dict) for key in ("operator", "channel", "facts"))
        and isinstance(fingerprint, list)
        and len(fingerprint) == 8
        and all(type(v) in (int, float) and abs(v) < 1e300 for v in fingerprint)
    )


def _is_shape(value: Any) -> bool:
    """Whether ``value`` is a list of a few positive integers with a product in bounds."""
    return (
        isinstance(value, list)
        and 1 <= len(value) <= 8
        and all(type(n) is int and 0 < n <= MAX_VALUES for n in value)
        and math.prod(value) <= MAX_VALUES
    )


def _fits(header: dict[str, Any], payload: NDArray[Any]) -> bool:
    shape, values, bits = header["shape"], header.get("values"), header.get("bits")
    if values == "float32":
        return bool(payload.dtype == np.float32) and list(payload.shape) == shape
    return (
        values in ("signs", "codes")
        and type(bits) is int
        and 1 <= bits <= MAX_BITS
        and bool(payload.dtype == np.uint8)
        and payload.shape == (packed_size(math.prod(shape), bits),)
    )
