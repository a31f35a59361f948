"""The software bill of materials: everything in requirements/lock.txt, with its hashes (CycloneDX).

    python -m deploy.sbom FILE    write it; the same tree gives the same bytes

What the image has is `required`; what is for clients, exports, development and other versions of
Python is `optional`. Nothing is asked of the network.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.requirements import BUILD, LOCK, ROOT, for_the_image
from masque.version import __version__

VERSION = SchemaVersion.V1_6


def bill() -> dict[str, Any]:
    """The whole document."""
    command = [sys.executable, "-W", "ignore", "-m", "cyclonedx_py", "requirements", str(LOCK)]
    options = ["--pyproject", str(ROOT / "pyproject.toml"), "--output-reproducible"]
    options += ["--spec-version", VERSION.to_version()]
    ran = subprocess.run([*command, *options], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(ran.stdout)
    root = found["metadata"]["component"]
    root |= {"version": __version__, "purl": f"pkg:pypi/masque@{__version__}"}
    wanted = in_the_image()
    for component in found["components"]:
        del component["description"]  # the line of the lock: version and hashes once more
        place = (component["name"], component["version"])
        component["scope"] = "required" if place in wanted else "optional"
    ours = _direct()
    direct = sorted(part["bom-ref"] for part in found["components"] if part["name"] in ours)
    others = [part for part in found["dependencies"] if part["ref"] != root["bom-ref"]]
    found["dependencies"] = [*others, {"ref": root["bom-ref"], "dependsOn": direct}]
    return found


def in_the_image() -> set[tuple[str, str]]:
    """Name and version of everything that the image has."""
    locked = re.findall(r"^([a-z0-9-]+)==(\S+)", for_the_image(), re.M)
    return {(name, version) for name, version in locked if name not in BUILD}


def problem(text: str) -> str | None:
    """What the schema of CycloneDX has against a document; None if nothing."""
    wrong = JsonStrictValidator(VERSION).validate_str(text)
    return str(wrong) if wrong is not None else None


def _direct() -> set[str]:
    """What masque itself asks for, without extras."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        wanted = tomllib.load(file)["project"]["dependencies"]
    return {canonicalize_name(Requirement(text).name) for text in wanted}


def main() -> int:
    """The command."""
    target = Path(sys.argv[1])
    text = json.dumps(bill(), indent=1, sort_keys=True) + "\n"
    wrong = problem(text)
    if wrong is not None:
        print(f"error: the bill of materials is not valid: {wrong}", file=sys.stderr)
        return 1
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
