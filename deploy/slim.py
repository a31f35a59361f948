"""Remove from installed packages what no service uses: run once, while the image is built.

    python3 deploy/slim.py SITE-PACKAGES

Tests, headers and sources of C go, and the symbol tables of libraries, which only debuggers read.
Needs nothing but Python: where there is no network, there is no `strip` either.
"""

from __future__ import annotations

import shutil
import struct
import sys
from pathlib import Path

FOLDERS = ("tests", "testing", "include", "f2py")
KEPT = ("numba/testing", "numba/core", "numpy/testing")
"""What has such a name, or lies below one, and is imported all the same."""

SUFFIXES = (".h", ".hpp", ".c", ".cpp", ".pyx", ".pxd", ".a", ".lib")

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
"""Of a 64-bit little-endian ELF file; fields 6, 12 and 13 place its table of sections."""

_SEGMENT = struct.Struct("<IIQQQQQQ")


def slim(site: Path) -> int:
    """Returns how many bytes went."""
    before = _size(site)
    for folder in sorted(path for path in site.rglob("*") if path.name in FOLDERS):
        name = folder.relative_to(site).as_posix()
        if folder.is_dir() and not name.startswith(KEPT):
            shutil.rmtree(folder)
    for file in [path for path in site.rglob("*") if path.is_file()]:
        if file.suffix in SUFFIXES:
            file.unlink()
        elif ".so" in file.suffixes:
            _strip(file)
    return before - _size(site)


def _strip(file: Path) -> None:
    """Cut off what follows the last segment: sections are for linkers and debuggers alone."""
    with file.open("r+b") as library:
        head = library.read(_HEADER.size)
        if head[:6] != b"\x7fELF\x02\x01":
            return
        fields = list(_HEADER.unpack(head))
        library.seek(fields[5])
        table = library.read(_SEGMENT.size * fields[10])
        segments = _SEGMENT.iter_unpack(table)
        end = max(offset + size for _, _, offset, _, _, size, _, _ in segments)
        fields[6] = fields[12] = fields[13] = 0
        library.seek(0)
        library.write(_HEADER.pack(*fields))
        library.truncate(end)


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    print(f"removed {slim(Path(sys.argv[1])) / 1e6:.0f} MB")
