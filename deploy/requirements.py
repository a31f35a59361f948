"""What the image installs: the part of requirements/lock.txt that services need, with its hashes.

    python -m deploy.requirements            write deploy/requirements*.txt
    python -m deploy.requirements --check    say whether they are fresh; exit code 1 if not
    python -m deploy.requirements --wheels D fill D with the wheels for the image's Python

Only the client reads CSV and Parquet, so the image has no pyarrow, which is larger than Python.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements" / "lock.txt"
RUNTIME = ROOT / "deploy" / "requirements.txt"
BUILDING = ROOT / "deploy" / "requirements-build.txt"
PYTHON = "3.11"
"""The version in the image that the Dockerfile starts from."""

LEFT_OUT = {"pyarrow"}
BUILD = {"setuptools"}
"""What installs Masque itself; it does not get into the final image."""

NEWEST_GLIBC = 36
"""That of Debian 12, so that wheels for newer ones are not taken."""

HEADER = "# From requirements/lock.txt, with its hashes; written by `make lock`, do not edit.\n\n"


def needed() -> set[str]:
    """The distributions that masque, without its extras, needs in the image."""
    found: set[str] = set()
    waiting = ["masque"]
    while waiting:
        name = waiting.pop()
        for text in importlib.metadata.requires(name) or ():
            wanted = Requirement(text)
            other = canonicalize_name(wanted.name)
            applies = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
            if applies and other not in found | LEFT_OUT:
                found.add(other)
                waiting.append(other)
    return found


def blocks() -> list[tuple[Requirement, str]]:
    """Every locked distribution with its lines."""
    parts = re.split(r"^(?=[a-z0-9])", LOCK.read_text(encoding="utf-8"), flags=re.M)[1:]
    return [(Requirement(part.partition("\\")[0].strip()), part) for part in parts]


def texts() -> dict[Path, str]:
    """The content of both files."""
    wanted = {RUNTIME: needed(), BUILDING: BUILD}
    return {
        path: HEADER + "".join(part for locked, part in blocks() if _name(locked) in names)
        for path, names in wanted.items()
    }


def for_the_image() -> str:
    """The same for `PYTHON` alone: pip looks at markers with the Python that runs it."""
    environment = {
        **{key: str(value) for key, value in default_environment().items()},
        "python_version": PYTHON,
        "python_full_version": f"{PYTHON}.0",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    wanted = needed() | BUILD
    chosen = []
    for locked, part in blocks():
        applies = locked.marker is None or locked.marker.evaluate(environment)
        if _name(locked) in wanted and applies:
            chosen.append(re.sub(r" ;[^\\\n]*", " ", part, count=1))
    return "".join(chosen)


def _name(locked: Requirement) -> str:
    return canonicalize_name(locked.name)


def wheels(directory: Path) -> None:
    """Download the wheels, checked by their hashes, and pip's own; what is there is kept."""
    machine = default_environment()["platform_machine"]
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in range(17, NEWEST_GLIBC + 1)]
    platforms += [f"manylinux2014_{machine}"]
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    download = [*pip, "download", "--no-input", "--only-binary", ":all:", "--no-deps"]
    place = ["--dest", str(directory), "--find-links", str(directory)]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(for_the_image())
        file.flush()
        choice = ["--python-version", PYTHON, "--implementation", "cp"]
        choice += [word for platform in platforms for word in ("--platform", platform)]
        command = [*download, *place, *choice, "--require-hashes", "-r", file.name]
        subprocess.run(command, check=True)
    version = importlib.metadata.version("pip")
    subprocess.run([*download, *place, f"pip=={version}"], check=True)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--wheels", type=Path, metavar="D")
    chosen = parser.parse_args()
    if chosen.wheels:
        wheels(chosen.wheels)
        return 0
    if not chosen.check:
        for path, text in texts().items():
            path.write_text(text, encoding="utf-8")
        return 0
    fresh = all(path.exists() and path.read_text("utf-8") == text for path, text in texts().items())
    if not fresh:
        print("error: deploy/requirements*.txt are stale: run `make lock`", file=sys.stderr)
    return 0 if fresh else 1


if __name__ == "__main__":
    raise SystemExit(main())
