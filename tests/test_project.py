"""The repository keeps its own promises: dependencies, stubs, lists, links, names."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import masque

ROOT = Path(__file__).resolve().parent.parent
DISTRIBUTIONS = {
    "google": "protobuf",
    "grpc": "grpcio",
    "grpc_health": "grpcio-health-checking",
    "grpc_tools": "grpcio-tools",
    "llvmlite": "numba",
    "opentelemetry": "opentelemetry-sdk",
    "opentelemetry.exporter": "opentelemetry-exporter-otlp-proto-http",
    "opentelemetry.sdk": "opentelemetry-sdk",
    "prometheus_client": "prometheus-client",
    "pydantic_core": "pydantic",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
SKIPPED = {".git", "__pycache__", ".venv", "build", "dist", "local", "node_modules"}
LINES_NOBODY_DEFENDS = 400  # the habit is 300


@cache
def project() -> dict[str, Any]:
    """The parsed pyproject.toml."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)


def declared(*extras: str) -> dict[str, Requirement]:
    """The requirements of the package and of some extras, by normalised name."""
    table = project()["project"]
    texts = list(table["dependencies"])
    for extra in extras:
        texts += table["optional-dependencies"][extra]
    return {Requirement(text).name.lower(): Requirement(text) for text in texts}


def locked() -> dict[str, list[tuple[Version, str]]]:
    """Versions and text block of every locked distribution, by name."""
    found: dict[str, list[tuple[Version, str]]] = {}
    text = (ROOT / "requirements" / "lock.txt").read_text()
    for block in re.split(r"\n(?=[a-z0-9])", text):
        match = re.match(r"([a-z0-9._-]+)==(\S+)", block)
        if match:
            found.setdefault(match[1], []).append((Version(match[2]), block))
    return found


def files(pattern: str) -> list[Path]:
    """The files of the source tree that match, without what is built or installed."""
    found = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in SKIPPED]
        found += [Path(folder) / name for name in names if Path(name).match(pattern)]
    return sorted(found)


def shipped() -> list[Path]:
    """The Python sources that a wheel contains."""
    return [path for path in files("*.py") if path.relative_to(ROOT).parts[0] in packages()]


def packages() -> tuple[str, ...]:
    """The top-level packages that are installed."""
    return ("masque", "services")


def imported(path: Path) -> Iterator[str]:
    """Top-level names of everything a file imports."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (distributed(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield distributed(node.module)


def distributed(module: str) -> str:
    """The part of a module's name that tells its distribution: two words where these share one."""
    two = ".".join(module.split(".")[:2])
    return two if two in DISTRIBUTIONS else module.partition(".")[0]


def third_party() -> dict[str, Path]:
    """Distributions that shipped code imports, each with one file that does."""
    names: dict[str, Path] = {}
    for path in shipped():
        for name in imported(path):
            if name not in sys.stdlib_module_names and name not in packages():
                names.setdefault(DISTRIBUTIONS.get(name, name), path)
    return names


def test_whatever_is_imported_is_declared() -> None:
    known = declared("demo", "export", "otel").keys()
    missing = {name: path for name, path in third_party().items() if name not in known}
    assert not missing, "add to pyproject.toml, then `make lock`"


def test_whatever_is_declared_is_imported() -> None:
    assert declared("demo", "export", "otel").keys() - third_party().keys() == set()


def test_the_lock_satisfies_every_declared_requirement() -> None:
    extras = project()["project"]["optional-dependencies"]
    for name, requirement in declared(*extras).items():
        versions = [version for version, _ in locked().get(name, [])]
        assert versions, f"{name} is not locked: run `make lock`"
        for version in versions:
            assert requirement.specifier.contains(version), f"{name}: run `make lock`"


def test_the_lock_has_hashes_and_names_no_place() -> None:
    for name, entries in locked().items():
        for _, block in entries:
            assert "--hash=sha256:" in block, name
    text = (ROOT / "requirements" / "lock.txt").read_text()
    assert "://" not in text
    assert "--index-url" not in text


def test_lower_bounds_admit_no_runtime_older_than_the_stubs() -> None:
    bounds = declared()
    for path in sorted((ROOT / "masque" / "v1").glob("*_pb2*.py")):
        text = path.read_text()
        for name, pattern in (
            ("grpcio", r"GRPC_GENERATED_VERSION = '([\d.]+)'"),
            ("protobuf", r"# Protobuf Python Version: ([\d.]+)"),
        ):
            for generator in re.findall(pattern, text):
                lowest = min(Version(part.version) for part in bounds[name].specifier)
                assert lowest >= Version(generator), f"{path.name} needs {name}>={generator}"


def test_every_proto_has_its_stubs() -> None:
    sources = {path.stem for path in (ROOT / "protos" / "masque" / "v1").glob("*.proto")}
    for suffix in ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi"):
        stubs = {
            path.name.removesuffix(suffix) for path in (ROOT / "masque" / "v1").glob(f"*{suffix}")
        }
        assert stubs == sources, "run `make protos`"


def test_no_drawer_for_everything() -> None:
    forbidden = {"common", "shared", "utils", "util", "helpers", "misc"}
    named = [p for p in files("*.py") if forbidden & {*p.relative_to(ROOT).parts[:-1], p.stem}]
    assert named == []


def test_files_stay_readable() -> None:
    sources = [path for path in shipped() if "_pb2" not in path.name]
    lengths = {path: path.read_text("utf-8").count("\n") for path in sources}
    assert {path: n for path, n in lengths.items() if n > LINES_NOBODY_DEFENDS} == {}


def test_every_package_is_a_package() -> None:
    folders = {path.parent for path in shipped()}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


def test_every_file_beside_the_sources_is_packaged() -> None:
    patterns = project()["tool"]["setuptools"]["package-data"]["masque"]
    beside = {
        path
        for path in (p.relative_to(ROOT) for p in files("*"))
        if path.parts[0] in packages() and path.suffix not in (".py", ".pyc")
    }
    packed = {path for pattern in patterns for path in (ROOT / "masque").glob(pattern)}
    assert beside == {path.relative_to(ROOT) for path in packed}


@pytest.mark.parametrize("page", files("*.md"), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text("utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target or target.startswith(("#", "mailto:")):
            continue
        assert (page.parent / target.partition("#")[0]).exists(), f"{page}: {target}"


def test_decisions_are_numbered_and_listed() -> None:
    folder = ROOT / "docs" / "decisions"
    records = sorted(path for path in folder.glob("*.md") if path.name != "README.md")
    index = (folder / "README.md").read_text()
    for number, path in enumerate(records, start=1):
        assert path.name.startswith(f"{number:04d}-")
        assert path.read_text().startswith(f"# {number:04d}. ")
        assert f"({path.name})" in index


def test_the_version_is_one() -> None:
    from importlib.metadata import version

    assert version("masque") == masque.__version__


def test_the_changelog_knows_what_is_new() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert "## [Unreleased]" in text or f"## [{masque.__version__}]" in text


def test_the_license_is_whole() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert project()["project"]["license"] == "Apache-2.0"


def test_make_lists_its_targets() -> None:
    text = (ROOT / "Makefile").read_text()
    phony = " ".join(re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE))
    assert phony
    printed = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for target in phony.split():
        assert f"make {target} " in printed


def test_make_refuses_an_old_python_and_says_what_to_do(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = -V ] && echo "Python 3.8.18" && exit 0\nexit 1\n')
    old.chmod(0o755)
    command = ["make", "setup", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "Python 3.8.18, and Masque needs 3.11 or newer" in result.stderr
    assert "make setup PYTHON=" in result.stderr
    assert not (tmp_path / "venv").exists()


def test_make_says_when_python_is_absent(tmp_path: Path) -> None:
    command = ["make", "setup", "PYTHON=python-of-nowhere", f"VENV={tmp_path / 'venv'}"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "python-of-nowhere is not installed" in result.stderr


def test_ci_is_a_sound_script() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)
    text = script.read_text()
    assert "set -euo pipefail" in text
    assert re.search(r"^make test$", text, re.MULTILINE)


def test_the_readme_starts_with_two_commands() -> None:
    text = (ROOT / "README.md").read_text()
    assert "make demo" in text
    assert "make test" in text
