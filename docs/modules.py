"""List the modules of every floor in `docs/modules.md`, or check that the list is fresh.

    python docs/modules.py            write docs/modules.md
    python docs/modules.py --check    exit with 1 if it is stale

Each line is the module's path and the first paragraph of its docstring, so that the list says what
the code says. Floors come in the order of `pyproject.toml`'s contract.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "modules.md"
HEAD = """# Modules

Every module by floor, top to bottom: what it says of itself in its first line. A module imports
from its own floor and from those below. Written by `make docs`; do not edit.
"""


def floors() -> list[str]:
    """The packages of the floors contract, top to bottom."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    layers: list[str] = next(c["layers"] for c in contracts if c["type"] == "layers")
    return [name.strip() for layer in layers for name in layer.split("|")]


def modules(floor: str) -> list[Path]:
    """The source files of one floor, generated ones left out; a floor may be a single module."""
    place = ROOT / floor.replace(".", "/")
    if not place.is_dir():
        return [place.with_suffix(".py")]
    return [path for path in sorted(place.rglob("*.py")) if "_pb2" not in path.name]


def summary(path: Path) -> str:
    """The first paragraph of the module's docstring, on one line."""
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "(says nothing of itself)"
    return " ".join(text.split("\n\n")[0].split())


def listing() -> str:
    """The whole page."""
    parts = [HEAD]
    for floor in floors():
        files = modules(floor)
        front = ROOT / floor.replace(".", "/") / "__init__.py"
        parts.append(f"## {floor}\n")
        if front in files:
            parts.append(summary(front) + "\n")
        lines = [
            f"- `{path.relative_to(ROOT)}`: {summary(path)}" for path in files if path != front
        ]
        if lines:
            parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def main(arguments: list[str]) -> int:
    """Write or check; the exit code."""
    page = listing()
    fresh = TARGET.exists() and TARGET.read_text("utf-8") == page
    if arguments == ["--check"]:
        if not fresh:
            print("stale: docs/modules.md; run `make docs` and commit it", file=sys.stderr)
        return 0 if fresh else 1
    if not fresh:
        TARGET.write_text(page, "utf-8")
        print("writing docs/modules.md")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
