"""An output share as bytes: what is sealed to a recipient, and what a party keeps.

    offset  bytes  field        value
         0      4  magic        b"MSQO"
         4      1  version      1
         5      1  scale        fraction bits
         6      1  dimensions   k, at most 8
         7      1  reserved     0
         8    8 k  shape        one number a dimension
               8   values       as many as the shape says

All numbers are unsigned and little-endian; values are in C order. The shares of all parties sum to
the output modulo 2^64; as a two's complement number divided by 2^scale that is its value.
"""

from __future__ import annotations

import struct
from math import prod

import numpy as np

from masque.errors import ProtocolError
from masque.mpc.types import Ring

MAGIC, VERSION = b"MSQO", 1
MOST_DIMENSIONS = 8
LARGEST_RESULT = 1 << 30
"""Bytes of all sealed items that a party hands over for one job, at most."""

_HEADER = struct.Struct("<4sBBBB")


def encode_output(share: Ring, scale: int) -> bytes:
    """The bytes of a share (uint64, any shape) at `scale` fraction bits."""
    assert share.dtype == np.uint64 and share.ndim <= MOST_DIMENSIONS and 0 <= scale < 64
    header = _HEADER.pack(MAGIC, VERSION, scale, share.ndim, 0)
    shape = struct.pack(f"<{share.ndim}Q", *share.shape)
    return header + shape + np.ascontiguousarray(share).astype("<u8", copy=False).tobytes()


def decode_output(raw: bytes, sender: str) -> tuple[Ring, int]:
    """(share, scale) of what `encode_output` wrote; ProtocolError naming `sender` for all else."""
    try:
        magic, version, scale, dimensions, reserved = _HEADER.unpack_from(raw)
        if (magic, version, reserved) != (MAGIC, VERSION, 0) or dimensions > MOST_DIMENSIONS:
            raise ValueError
        shape = struct.unpack_from(f"<{dimensions}Q", raw, _HEADER.size)
        start = _HEADER.size + 8 * dimensions
        if scale >= 64 or 8 * prod(shape) != len(raw) - start:
            raise ValueError
    except (struct.error, ValueError):
        raise ProtocolError(
            f"{sender} sealed something that is no output share.",
            hint="Check that all services run the same version of Masque.",
            peer=sender,
        ) from None
    return np.frombuffer(raw, "<u8", offset=start).astype(np.uint64).reshape(shape), int(scale)
