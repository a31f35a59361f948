"""Which errors may go well another time: what breaks an attempt off, and what ends the job."""

from __future__ import annotations

import inspect

import pytest

from masque import errors
from masque.errors import MasqueError, NotFound, Unavailable, passing
from masque.wire.failures import pack, unpack

KINDS = [
    kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, MasqueError)
]
PASSING = {MasqueError, Unavailable, NotFound}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_what_somebody_has_said_no_to_does_not_pass(kind: type[MasqueError]) -> None:
    """Nor what was wrong; only who is away, forgetful or in trouble may be asked again."""
    assert passing(kind("x")) is (kind in PASSING)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("again", [True, None])
def test_who_raises_it_may_say_so_across_the_wire(
    kind: type[MasqueError], again: bool | None
) -> None:
    error = unpack(pack(kind("x", again=again)))
    assert error is not None
    assert passing(error) is (kind in PASSING or again is True)


@pytest.mark.parametrize("error", [OSError("disk"), MemoryError(), RuntimeError("ours")])
def test_an_accident_of_ours_may_not_happen_again(error: Exception) -> None:
    assert passing(error)
