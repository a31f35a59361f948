"""What both ends of a call must agree on, as one digest: equal for equal code.

It covers the source of whatever decides results or bytes: the messages (`masque.v1`), operations,
correlations and programs (`masque.mpc`), what is written on them (`masque.ml`), jobs and how they
are compiled (`masque.jobs`), tables of shares, and the frames that travel. It is cautious: a
comment counts as well. Services with equal digests compile equal programs of equal jobs and
understand each other; of others nobody has tried.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import masque
from masque.errors import NotFound

PATTERNS = (
    "v1/*_pb2.py",
    "mpc/**/*.py",
    "ml/**/*.py",
    "jobs/**/*.py",
    "data/chunks.py",
    "data/table.py",
    *(
        f"wire/{name}.py"
        for name in ("binding", "frames", "hpke", "material", "outputs", "sealing", "streams")
    ),
)
"""Files of the package `masque` that count."""


def sources(root: Path | None = None) -> dict[str, bytes]:
    """The files that count, by their path in the package. Raises NotFound if some are missing."""
    home = root or Path(masque.__file__).parent
    found = {}
    for pattern in PATTERNS:
        paths = list(home.glob(pattern))
        if not paths:
            raise NotFound(
                f"There is no {home / pattern}: this installation of Masque has no sources.",
                hint="Install Masque from its wheel or its repository.",
                file=str(home / pattern),
            )
        for path in paths:
            found[path.relative_to(home).as_posix()] = path.read_bytes()
    return found


def digest(files: Mapping[str, bytes]) -> bytes:
    """SHA-256 of files, whatever order they come in."""
    whole = hashlib.sha256(b"masque protocol 1")
    for name, content in sorted(files.items()):
        whole.update(f"{name} {len(content)}\n".encode())
        whole.update(content)
    return whole.digest()


@cache
def protocol_digest() -> bytes:
    """That of the code which runs here."""
    return digest(sources())
