"""Where the product takes apart what it did not write itself: found in its text."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
GENERATED = "masque/v1/"

TAKES_APART = frozenset(
    {
        *("literal_eval", "safe_load", "full_load", "get_single_node"),
        *("model_validate", "model_validate_json", "model_validate_strings"),
        *("validate_python", "validate_json", "validate_strings"),
        *("FromString", "ParseFromString", "MergeFromString", "ParseDict"),
        *("frombuffer", "fromfile", "memmap", "unpack_from", "iter_unpack"),
        *("from_private_bytes", "from_public_bytes", "from_encoded_point"),
        *("safe_open", "open_csv", "read_csv", "ParquetFile", "DictReader"),
    }
)
"""Names of functions that do it, of whatever module or class."""

OF_MODULES = {
    "json": {"load", "loads"},
    "yaml": {"load", "load_all", "parse", "compose", "compose_all"},
    "pickle": {"load", "loads"},
    "marshal": {"load", "loads"},
    "tomllib": {"load", "loads"},
    "np": {"load", "loadtxt", "genfromtxt", "fromstring"},
    "csv": {"reader"},
    "struct": {"unpack"},
}
"""Of modules only: other things have such names as well. Of a `struct.Struct`: see `_of_struct`."""

PREFIXES = ("load_pem_", "load_der_", "load_ssh_")


def sites(path: Path, root: Path = ROOT) -> Iterator[str]:
    """The functions in a module that call one of them, as `package.module.Class.function`."""
    module = ".".join(path.relative_to(root).with_suffix("").parts)
    yield from _sites(ast.parse(path.read_text(encoding="utf-8")), module)


def of_product(root: Path = ROOT) -> set[str]:
    """All of them, in everything that is installed and nobody generates."""
    found: set[str] = set()
    for package in ("masque", "services"):
        for path in sorted((root / package).rglob("*.py")):
            if not str(path.relative_to(root)).startswith(GENERATED):
                found.update(sites(path, root))
    return found


def _sites(node: ast.AST, where: str) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        inside = where
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inside = f"{where}.{child.name}"
        elif isinstance(child, ast.ImportFrom):
            names = OF_MODULES.get(child.module or "", set())
            assert not names & {alias.name for alias in child.names}, f"{where}: name the module"
        elif _takes_apart(child):
            yield where  # called, or handed on to be called
        yield from _sites(child, inside)


def _takes_apart(node: ast.AST) -> bool:
    if isinstance(node, ast.Name):
        return node.id in TAKES_APART or node.id.startswith(PREFIXES)
    if not isinstance(node, ast.Attribute):
        return False
    if node.attr in TAKES_APART or node.attr.startswith(PREFIXES):
        return True
    of = node.value.id if isinstance(node.value, ast.Name) else ""
    return node.attr in OF_MODULES.get(of, ()) or _of_struct(of, node.attr)


def _of_struct(of: str, name: str) -> bool:
    """A compiled `struct.Struct` is a constant of its module."""
    return name == "unpack" and of.isupper()
