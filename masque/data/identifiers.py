"""One digest of an ordered identifier column, to be compared between owners under MPC.

Owners whose columns are joined by row order each compute the digest of their identifiers, in
order; the parties compare shares of the digests and learn whether all of it matches, nothing
else. The digest itself never leaves the owner in the clear: identifiers are guessable.

    digest = SHA-256(label || rows as 8 bytes || SHA-256(lengths) || SHA-256(texts))

with the UTF-8 length of each normalised identifier as 4 bytes, little-endian, and the texts one
after the other: injective on sequences of texts, and independent of how the file is cut up.
Normalised means Unicode NFC without blanks at either end. Case matters.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from masque.data.cells import MAX_TEXT, as_text
from masque.data.readers import Block, Reader

_LABEL = b"masque identifiers 1\x00"


class IdentifierDigest:
    """Fed with blocks in order; `words` is the digest of all of them."""

    def __init__(self, reader: Reader, column: str) -> None:
        self._reader = reader
        self._column = column
        self._rows = 0
        self._lengths = hashlib.sha256()
        self._texts = hashlib.sha256()

    def __repr__(self) -> str:
        return f"IdentifierDigest(column={self._column!r}, hidden)"

    def update(self, block: Block) -> None:
        """Takes in one block. Errors: DataError for an empty or endless identifier."""
        given = block.columns[self._column]
        kind = given.type
        if pa.types.is_floating(kind) or (pa.types.is_decimal(kind) and kind.scale != 0):
            raise self._reader.fault_at(
                block.first_row,
                self._column,
                "identifiers must be text or whole numbers, not fractions.",
                "Convert the column; missing identifiers are not possible.",
            )
        text = pc.utf8_normalize(pc.utf8_trim_whitespace(as_text(given)), form="NFC")
        lengths = pc.fill_null(pc.binary_length(text), 0).to_numpy(zero_copy_only=False)
        wrong = (lengths == 0) | (lengths > MAX_TEXT)
        if wrong.any():
            row = int(np.argmax(wrong))
            problem = "the identifier is empty." if lengths[row] == 0 else "it is too long."
            raise self._reader.fault_at(
                block.first_row + row,
                self._column,
                problem,
                f"Every row needs one, of at most {MAX_TEXT} bytes.",
            )
        self._lengths.update(lengths.astype("<u4").tobytes())
        self._texts.update("".join(text.to_pylist()).encode("utf-8"))
        self._rows += block.rows

    def words(self) -> NDArray[np.uint64]:
        """uint64 [4]: the digest as little-endian words."""
        outer = hashlib.sha256(_LABEL)
        outer.update(self._rows.to_bytes(8, "little"))
        outer.update(self._lengths.digest())
        outer.update(self._texts.digest())
        return np.frombuffer(outer.digest(), dtype="<u8").astype(np.uint64)
