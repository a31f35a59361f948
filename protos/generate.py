"""Generate `masque/v1` from `protos/masque/v1`, or check that it is fresh.

    python protos/generate.py            write what changed
    python protos/generate.py --check    exit with 1 and name the stale files

The stubs are committed, so that installing needs no compiler and reviews see what changes.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import cast

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "protos"
PACKAGE = Path("masque") / "v1"
SUFFIXES = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi")


def compile_into(target: Path) -> None:
    """Run protoc with the Python, gRPC and type-stub plugins; `target` gets `masque/v1/*`."""
    from grpc_tools import protoc

    sources = sorted((SOURCES / PACKAGE).glob("*.proto"))
    if not sources:
        return
    plugins = [
        f"--plugin=protoc-gen-{name}={Path(sys.executable).parent / f'protoc-gen-{name}'}"
        for name in ("mypy", "mypy_grpc")
    ]
    outputs = [
        f"--python_out={target}",
        f"--grpc_python_out={target}",
        f"--mypy_out=quiet:{target}",
        f"--mypy_grpc_out=quiet:{target}",
    ]
    command = ["protoc", f"-I{SOURCES}", *plugins, *outputs, *map(str, sources)]
    main = cast(Callable[[list[str]], int], protoc.main)
    if main(command) != 0:
        raise SystemExit("error: protoc refused the sources; see its lines above")


def generated(folder: Path) -> dict[str, bytes]:
    """The generated files of `folder`, by name."""
    return {
        path.name: path.read_bytes()
        for path in sorted(folder.glob("*"))
        if path.name.endswith(SUFFIXES)
    }


def stale() -> dict[str, bytes | None]:
    """Files that differ from what the sources say: their right content, None if they must go."""
    with tempfile.TemporaryDirectory() as folder:
        compile_into(Path(folder))
        wanted = generated(Path(folder) / PACKAGE)
    present = generated(ROOT / PACKAGE)
    names = sorted(wanted.keys() | present.keys())
    return {name: wanted.get(name) for name in names if wanted.get(name) != present.get(name)}


def main(arguments: list[str]) -> int:
    """Write or check; the exit code."""
    differing = stale()
    if arguments == ["--check"]:
        for name in differing:
            print(f"stale: {PACKAGE / name}; run `make protos` and commit it", file=sys.stderr)
        return 1 if differing else 0
    for name, content in differing.items():
        path = ROOT / PACKAGE / name
        print(f"{'removing' if content is None else 'writing'} {PACKAGE / name}")
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
