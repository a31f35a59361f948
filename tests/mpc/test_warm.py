"""No kernel is compiled at its first use."""

from __future__ import annotations

import importlib
import os
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
    assert warm.main() == 0
    lines = [x for x in capsys.readouterr().out.splitlines() if not x.startswith("discarded")]
    assert [line.split()[0] for line in lines] == list(warm.MODULES)
    assert all(line.endswith(" s") for line in lines)


def test_what_was_cached_before_an_inlined_file_changed_is_discarded(tmp_path: Path) -> None:
    cache = tmp_path / "__pycache__"
    cache.mkdir()
    ages = {"old.nbi": 1, "old.1.nbc": 1, "old.cpython-311.pyc": 1, "new.nbi": 3, "new.1.nbc": 3}
    for name, age in ages.items():
        (cache / name).touch()
        os.utime(cache / name, (age, age))
    for name in warm.INLINED:
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (2, 2))
    assert warm.discard_stale(tmp_path) == 2
    left = sorted(path.name for path in cache.iterdir())
    assert left == ["new.1.nbc", "new.nbi", "old.cpython-311.pyc"]
