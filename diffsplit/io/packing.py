"""Whole numbers in as few bits as they need: eight one-bit measurements fill one byte."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from diffsplit.errors import InputError

__all__ = ["MAX_BITS", "pack", "packed_size", "unpack"]

MAX_BITS = 16


def packed_size(count: int, bits: int) -> int:
    """Bytes that ``count`` codes of ``bits`` bits take."""
    return -(-count * bits // 8)


def pack(codes: NDArray[np.int64], bits: int) -> NDArray[np.uint8]:
    """Codes in [0, 2^bits) as a bit stream, most significant bit first, zeros at the end.

    Args:
        codes: any shape; read row by row.
        bits: 1 to 16 per code.

    Returns:
        ``(packed_size(codes.size, bits),)``.

    Raises:
        InputError: a code does not fit.
    """
    flat = codes.reshape(-1)
    if not 1 <= bits <= MAX_BITS or (flat.size and not 0 <= flat.min() <= flat.max() < 1 << bits):
        raise InputError(f"codes outside 0…2^{bits} − 1 cannot be stored in {bits} bits each.")
    shifts = np.arange(bits - 1, -1, -1, dtype=np.uint16)
    return np.packbits((flat.astype(np.uint16)[:, None] >> shifts & 1).astype(np.uint8))


def unpack(payload: NDArray[np.uint8], bits: int, count: int) -> NDArray[np.int64]:
    """The ``count`` codes that `pack` stored, if the payload is as long as that many codes."""
    if len(payload) != packed_size(count, bits):
        raise InputError(
            f"{len(payload)} bytes cannot hold {count} measurements of {bits} bits, which take "
            f"{packed_size(count, bits)}."
        )
    # Bit by bit over all codes, so that a long payload needs no intermediate of 16 bytes a code.
    stream = np.unpackbits(payload, count=count * bits).reshape(count, bits)
    codes = np.zeros(count, dtype=np.int64)
    for column in range(bits):
        codes = codes << 1 | stream[:, column]
    return codes
