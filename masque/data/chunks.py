"""What owner and party must agree on about an upload; neither needs the other's modules."""

from __future__ import annotations

import zlib

MAX_CHUNK_BYTES = 2**21
"""A chunk must stay well under the 4 MiB of a gRPC message."""

IDENTIFIER_WORDS = 4
"""uint64 words of the digest of an identifier column."""


def checksum(payload: bytes | memoryview) -> int:
    """CRC-32 of a chunk's bytes: against mistakes, not against attackers (TLS is)."""
    return zlib.crc32(payload)
