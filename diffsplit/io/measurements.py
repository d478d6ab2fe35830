"""Measurement files: the measurements, packed, and all that is needed to recover an image.

A file is a safetensors file with one tensor ``y`` and one string of metadata, ``diffsplit``.
Measurements with finitely many outcomes are stored as a bit stream (768 one-bit measurements take
96 bytes), real ones as float32. The string is a JSON object that names the operator and the
channel. Its first entry ``sha256`` is the checksum of the object without that entry, as text,
followed by the bytes of ``y``. Equal measurements make equal files.

A file may come from anybody: whatever is wrong with it becomes an InputError, before the memory
that it asks for is taken.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor

from diffsplit import channels, operators
from diffsplit.errors import InputError
from diffsplit.io.facts import plain_facts, too_deep
from diffsplit.io.files import atomic_write
from diffsplit.io.packing import MAX_BITS, pack, packed_size, unpack
from diffsplit.problem import Problem

__all__ = ["MAX_BYTES", "Measurement", "load", "read_facts", "save"]

FORMAT, VERSION = "diffsplit-measurements", 1
MAX_BYTES = 1 << 30
"""The largest file that is read."""
MAX_METADATA = 1 << 24
MAX_VALUES = 1 << 28
"""The most measurements, and the largest image, that a file may announce."""
FINGERPRINT_TOLERANCE = 1e-3
"""Relative to the largest entry."""


@dataclass(frozen=True)
class Measurement:
    """What a measurement file holds.

    Attributes:
        problem: the operator and channel, built again, on the CPU.
        y: measurements ``(B, *operator.shape_out)``.
        facts: what the writer added, as JSON values; empty by default.
    """

    problem: Problem
    y: Tensor
    facts: dict[str, Any] = field(default_factory=dict)


def save(
    path: str | os.PathLike[str],
    problem: Problem,
    y: Tensor,
    extra: dict[str, Any] | None = None,
) -> None:
    """Write measurements and the problem that made them; an existing file is replaced.

    Args:
        problem: its operator is one that a seed or a mask describes.
        y: measurements ``(B, *operator.shape_out)`` as `Problem.measure` returns them; real ones
            are rounded to float32.
        extra: further facts for people, as JSON values.

    Raises:
        InputError: ``y`` does not fit or is not finite, the operator cannot be described, the
            facts are no JSON values, or the folder does not exist.
    """
    problem.check(y)
    facts = {} if extra is None else plain_facts(extra)
    values, bits, payload = _encode(problem, y)
    header = {
        "format": FORMAT,
        "version": VERSION,
        "shape": list(y.shape),
        "values": values,
        "bits": bits,
        "image_shape": list(problem.operator.shape_in),
        "operator": problem.operator.config(),
        "channel": problem.channel.config(),
        "fingerprint": problem.operator.fingerprint(),
        "facts": facts,
    }
    try:
        text = json.dumps(header, separators=(",", ":"), allow_nan=False)
    except ValueError as error:  # of what is in it, only the fingerprint can still be not finite
        raise InputError(
            "the operator gives no finite measurements of an image on [-1, 1]; scale it."
        ) from error
    if len(text) > MAX_METADATA - 100:
        raise InputError(
            f"the description takes {len(text):,} characters, and files with at most "
            f"{MAX_METADATA:,} are read; leave out some of the facts."
        )
    metadata = {"diffsplit": _sealed(text, payload)}
    with atomic_write(path) as temporary:
        temporary.write_bytes(safetensors.numpy.save({"y": payload}, metadata))


def load(path: str | os.PathLike[str]) -> Measurement:
    """Read and check a measurement file, and build its operator and channel on the CPU.

    Raises:
        InputError: no such file; not a measurement file, truncated or altered; larger than
            `MAX_BYTES` or than this machine's memory; of another version; or its operator comes
            out differently on this machine.
    """
    header, payload = _read(Path(path))
    _check_sizes(path, header)
    try:
        channel = channels.from_config(header["channel"])
        operator = operators.from_config(header["operator"])
        fingerprint = operator.fingerprint()
    except (InputError, MemoryError) as error:
        raise _refuse(
            path, f"its problem cannot be built ({str(error).rstrip('.')}); measure again"
        ) from error
    except Exception as error:  # a stranger's config may break a constructor in any way
        raise _refuse(path, f"its problem makes no sense ({error!r}); measure again") from error
    if list(operator.shape_in) != header["image_shape"]:
        raise _refuse(path, "its operator is for images of another shape; measure again")
    scale = FINGERPRINT_TOLERANCE * max(map(abs, fingerprint))
    stored = header["fingerprint"]
    if not math.isfinite(scale) or not all(
        abs(a - b) <= scale for a, b in zip(fingerprint, stored, strict=True)
    ):
        raise _refuse(
            path,
            "this machine builds another operator from its description; measure again here, or "
            "use the versions of diffsplit and torch that wrote it",
        )
    problem = Problem(operator, channel)
    y = _decode(path, header, payload, problem)
    try:
        problem.check(y)
    except InputError as error:
        raise _refuse(path, str(error).rstrip(".")) from error
    return Measurement(problem, y, header["facts"])


def read_facts(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The checked description in a file, with its size, without building the operator.

    Returns:
        ``shape``, ``values``, ``bits``, ``image_shape``, ``operator``, ``channel``,
        ``fingerprint``, ``facts``, ``version``, ``payload_bytes`` and ``file_bytes``.

    Raises:
        InputError: see `load`.
    """
    header, payload = _read(Path(path))
    return {
        **header,
        "payload_bytes": payload.nbytes,
        "file_bytes": Path(path).stat().st_size,
    }


def _encode(problem: Problem, y: Tensor) -> tuple[str, int, NDArray[Any]]:
    """How the values are stored, bits of each, and the payload."""
    outcomes = problem.channel.outcomes
    if outcomes is None:
        # Safetensors writes the memory as it lies, and the image's layout may have been kept.
        return "float32", 32, np.ascontiguousarray(y.detach().cpu().numpy(), dtype=np.float32)
    numbers = y.detach().cpu().double().numpy()
    signs = y.is_floating_point() and outcomes == 2 and bool((np.abs(numbers) == 1).all())
    codes = (numbers > 0 if signs else numbers).astype(np.int64)
    bits = max(1, (outcomes - 1).bit_length())
    return ("signs" if signs else "codes"), bits, pack(codes, bits)


def _decode(
    path: str | os.PathLike[str], header: dict[str, Any], payload: NDArray[Any], problem: Problem
) -> Tensor:
    shape, values, bits = header["shape"], header["values"], header["bits"]
    outcomes = problem.channel.outcomes
    if (values == "float32") != (outcomes is None):
        raise _refuse(path, "its measurements are not of the kind its channel makes")
    if outcomes is None:
        return torch.from_numpy(payload.reshape(shape).copy())
    codes = unpack(payload, bits, math.prod(shape)).reshape(shape)
    if codes.max() >= outcomes or (values == "signs" and outcomes != 2):
        raise _refuse(path, "it holds measurements that its channel cannot make")
    y = torch.from_numpy(codes)
    return (2 * y - 1).float() if values == "signs" else y


def _refuse(path: str | os.PathLike[str], reason: str) -> InputError:
    return InputError(f"{path}: {reason}.")


def _sealed(text: str, payload: NDArray[Any]) -> str:
    """A JSON object as text, with the checksum of text and payload put in front."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass"))
    digest.update(payload.tobytes())
    return f'{{"sha256":"{digest.hexdigest()}",{text[1:]}'


def _read(path: Path) -> tuple[dict[str, Any], NDArray[Any]]:
    """The header, with every field of the right type and size, and the payload."""
    if not path.is_file():
        raise _refuse(path, "no such measurement file; `diffsplit measure` writes one")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise _refuse(path, f"{size:,} bytes; measurement files of at most {MAX_BYTES:,} are read")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            keys = list(file.keys())
            payload = file.get_tensor("y") if keys == ["y"] else None
    except Exception as error:  # whatever a stranger's bytes provoke in the reader
        raise _refuse(
            path, "not a measurement file, or a damaged one; give one from `diffsplit measure`"
        ) from error
    sealed = metadata.get("diffsplit", "")
    if payload is None or not sealed or len(sealed) > MAX_METADATA:
        raise _refuse(path, "no file of measurements; give one from `diffsplit measure`")
    text = "{" + sealed[len(_sealed("{", payload)) :]
    if sealed != _sealed(text, payload):
        raise _refuse(path, "damaged (its checksum does not match); copy it again")
    try:
        header = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _refuse(path, "its description is not valid JSON; measure again") from error
    if too_deep(header):
        raise _refuse(path, "its description is nested too deeply; measure again")
    _check_header(path, header, payload)
    return header, payload


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _sizes(value: Any) -> bool:
    """Whether ``value`` is a shape: a few positive integers, not too many entries."""
    return (
        isinstance(value, list)
        and 1 <= len(value) <= 8
        and all(type(n) is int and 0 < n <= MAX_VALUES for n in value)
        and math.prod(value) <= MAX_VALUES
    )


def _check_header(path: Path, header: Any, payload: NDArray[Any]) -> None:
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise _refuse(path, "not a file of measurements; `diffsplit measure` writes one")
    if header.get("version") != VERSION:
        raise _refuse(
            path,
            f"format version {header.get('version')!r:.20}, and this diffsplit reads {VERSION}; "
            "update diffsplit or measure again",
        )
    shape: Any = header.get("shape")
    bits: Any = header.get("bits")
    values = header.get("values")
    fingerprint = header.get("fingerprint")
    ok = (
        _sizes(shape)
        and _sizes(header.get("image_shape"))
        and all(isinstance(header.get(key), dict) for key in ("operator", "channel", "facts"))
        and isinstance(fingerprint, list)
        and len(fingerprint) == 8
        and all(type(v) in (int, float) and abs(v) < 1e300 for v in fingerprint)
    )
    if not ok:
        raise _refuse(path, "a field of its description is missing or wrong; measure again")
    if values == "float32":
        ok = payload.dtype == np.float32 and list(payload.shape) == shape
    else:
        ok = values in ("signs", "codes") and type(bits) is int and 1 <= bits <= MAX_BITS
        ok = ok and payload.dtype == np.uint8 and payload.ndim == 1
        ok = ok and payload.size == packed_size(math.prod(shape), bits)
    if not ok:
        raise _refuse(path, "its measurements are not of the size and type announced")


def _check_sizes(path: str | os.PathLike[str], header: dict[str, Any]) -> None:
    """Refuse a small file that asks for a large matrix, before anything is built."""
    operator, shape = header["operator"], header["shape"]
    if operator.get("rows", shape[-1]) != shape[-1] or (
        operator.get("shape", header["image_shape"]) != header["image_shape"]
    ):
        raise _refuse(path, "its operator does not fit its measurements; measure again")
