"""Villages of real services, started once a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import masque.wire  # noqa: F401 - before grpc
from tests.services.village import Village


@pytest.fixture(scope="module")
def village(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Village]:
    """A dealer and two parties that run handmade programs."""
    yield from _running(Village(tmp_path_factory.mktemp("village"), ("party-a", "party-b")))


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Village]:
    """The same with three parties."""
    names = ("party-a", "party-b", "party-c")
    yield from _running(Village(tmp_path_factory.mktemp("trio"), names))


def _running(village: Village) -> Iterator[Village]:
    try:
        village.start()
        yield village
    finally:
        village.stop()
