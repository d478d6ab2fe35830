"""Measurement files: the measurements, packed, and all that is needed to recover an image.

A file is a safetensors file with one tensor ``y`` and one string of metadata, ``diffsplit``.
Measurements with finitely many outcomes are stored as a bit stream (768 one-bit measurements take
96 bytes), real ones as float32. The string is a JSON object that names the operator and the
channel, see `diffsplit.io.description`. Equal measurements make equal files.

A file may come from anybody: whatever is wrong with it becomes an InputError, before the memory
that it asks for is taken.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor

from diffsplit import channels, operators
from diffsplit.errors import InputError
from diffsplit.io.description import MAX_TEXT, parsed, plain_facts, refused, sealed
from diffsplit.io.files import atomic_write, path_of
from diffsplit.io.packing import pack, unpack
from diffsplit.problem import Problem

__all__ = ["MAX_BYTES", "Measurement", "load", "read_facts", "save"]

MAX_BYTES = 1 << 30
"""The largest file that is read."""
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
    path: str | os.PathLike[str], problem: Problem, y: Tensor, extra: dict[str, Any] | None = None
) -> None:
    """Write measurements and the problem that made them; an existing file is replaced.

    Args:
        problem: its operator is one that a seed or a mask describes.
        y: measurements ``(B, *operator.shape_out)`` as `Problem.measure` returns them; real ones
            are rounded to float32.
        extra: further facts for people, as JSON values.

    Raises:
        InputError: ``y`` does not fit or is not finite, the operator cannot be described, the
            facts are no JSON values, or the file cannot be created.
    """
    if not isinstance(problem, Problem):
        raise InputError(
            f"save takes a Problem and its measurements, not {type(problem).__name__}."
        )
    problem.check(y)
    values, bits, payload = _encoded(problem, y)
    header = {
        "shape": list(y.shape),
        "values": values,
        "bits": bits,
        "image_shape": list(problem.operator.shape_in),
        "operator": problem.operator.config(),
        "channel": problem.channel.config(),
        "fingerprint": problem.operator.fingerprint(),
        "facts": {} if extra is None else plain_facts(extra),
    }
    contents = safetensors.numpy.save({"y": payload}, {"diffsplit": sealed(header, payload)})
    with atomic_write(path) as temporary:
        temporary.write_bytes(contents)


def read_facts(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The checked description in a file, with its size, without building the operator.

    Returns:
        ``shape``, ``values``, ``bits``, ``image_shape``, ``operator``, ``channel``,
        ``fingerprint``, ``facts``, ``version``, ``payload_bytes`` and ``file_bytes``.

    Raises:
        InputError: see `load`.
    """
    header, payload = _read(path)
    size = path_of(path).stat().st_size
    return {**header, "payload_bytes": payload.nbytes, "file_bytes": size}


def load(path: str | os.PathLike[str]) -> Measurement:
    """Read and check a measurement file, and build its operator and channel on the CPU.

    Raises:
        InputError: no such file; not a measurement file, truncated or altered; larger than
            `MAX_BYTES` or than this machine's memory; of another version; or its operator comes
            out differently on this machine.
    """
    header, payload = _read(path)
    try:
        channel = channels.from_config(header["channel"])
        operator = operators.from_config(header["operator"])
        fingerprint = operator.fingerprint()
    except Exception as error:  # a stranger's config may break a constructor in any way
        reason = f"{str(error).rstrip('.') or type(error).__name__:.400}"
        raise refused(path, f"its problem cannot be built ({reason}); measure again") from error
    if list(operator.shape_in) != header["image_shape"]:
        raise refused(path, "its operator is for images of another shape; measure again")
    scale = FINGERPRINT_TOLERANCE * max(map(abs, fingerprint))
    pairs = zip(fingerprint, header["fingerprint"], strict=True)
    if not math.isfinite(scale) or any(abs(a - b) > scale for a, b in pairs):
        raise refused(
            path,
            "this machine builds another operator from its description; measure again here, or "
            "use the versions of diffsplit and torch that wrote it",
        )
    problem = Problem(operator, channel)
    try:
        y = _decoded(header, payload, channel.outcomes)
        problem.check(y)
    except InputError as error:
        raise refused(path, str(error).rstrip(".")) from error
    return Measurement(problem, y, header["facts"])


def _encoded(problem: Problem, y: Tensor) -> tuple[str, int, NDArray[Any]]:
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


def _decoded(header: dict[str, Any], payload: NDArray[Any], outcomes: int | None) -> Tensor:
    shape, values = header["shape"], header["values"]
    if (values == "float32") != (outcomes is None):
        raise InputError("its measurements are not of the kind its channel makes.")
    if outcomes is None:
        return torch.from_numpy(payload.reshape(shape).copy())
    codes = unpack(payload, header["bits"], math.prod(shape)).reshape(shape)
    if codes.max() >= outcomes or (values == "signs" and outcomes != 2):
        raise InputError("it holds measurements that its channel cannot make.")
    y = torch.from_numpy(codes)
    return (2 * y - 1).float() if values == "signs" else y


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], NDArray[Any]]:
    """The description, with every field of the right type and size, and the payload."""
    path = path_of(path)
    if not path.is_file():
        raise refused(path, "no such measurement file; `diffsplit measure` writes one")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise refused(path, f"{size:,} bytes; measurement files of at most {MAX_BYTES:,} are read")
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get("diffsplit", "")
            payload = file.get_tensor("y") if list(file.keys()) == ["y"] else None
    except Exception as error:  # whatever a stranger's bytes provoke in the reader
        raise refused(
            path, "not a measurement file, or a damaged one; give one from `diffsplit measure`"
        ) from error
    if payload is None or not 0 < len(text) <= MAX_TEXT:
        raise refused(path, "no file of measurements; give one from `diffsplit measure`")
    header = parsed(path, text, payload)
    # A small file may ask for a large matrix: see that it fits the measurements before it is built.
    operator, rows, image_shape = header["operator"], header["shape"][-1], header["image_shape"]
    if operator.get("rows", rows) != rows or operator.get("shape", image_shape) != image_shape:
        raise refused(path, "its operator does not fit its measurements; measure again")
    return header, payload
