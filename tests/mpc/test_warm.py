"""No kernel is compiled at its first use."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from numba.core.caching import NullCache
from numba.core.dispatcher import Dispatcher

import masque.mpc
from masque.mpc import warm


def kernels() -> Iterator[Any]:
    """Every function compiled on import; those without a signature are inlined into these."""
    for name in warm.MODULES:
        members: dict[str, Any] = vars(importlib.import_module(name))
        for member, value in members.items():
            if not isinstance(value, Dispatcher):
                continue
            if value.signatures and not isinstance(vars(value)["_cache"], NullCache):
                yield pytest.param(value, id=f"{name}.{member}")


def test_every_module_with_kernels_is_warmed() -> None:
    folder = Path(masque.mpc.__file__).parent
    names = [file.stem for file in folder.glob("*.py") if "def warm() -> None" in file.read_text()]
    found = {f"masque.mpc.{name}" for name in names}
    assert found == set(warm.MODULES)


@pytest.mark.parametrize("kernel", tuple(kernels()))
def test_kernels_are_compiled_when_imported_and_never_again(kernel: Any) -> None:
    assert not kernel._can_compile, "give it an explicit signature"
    assert kernel.targetoptions.get("nogil"), "kernels run without the GIL"


def test_warming_says_what_it_warmed(capsys: pytest.CaptureFixture[str]) -> None:
    assert warm.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(warm.MODULES)
    assert all(line.endswith(" s") for line in lines)


def test_discarding_takes_cached_kernels_only(tmp_path: Path) -> None:
    cache = tmp_path / "inner" / "__pycache__"
    cache.mkdir(parents=True)
    for name in ("a.nbi", "a.1.nbc", "a.cpython-311.pyc", "a.txt"):
        (cache / name).touch()
    (tmp_path / "outside.nbi").touch()
    assert warm.discard(tmp_path) == 2
    left = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["a.cpython-311.pyc", "a.txt", "outside.nbi"]
