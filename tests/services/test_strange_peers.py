"""A peer's address that leads nowhere, to plain text, or to another version: named, with a cure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from masque.errors import JobFailed, ProtocolError
from masque.wire.server import Server
from tests.services.village import Village, patients
from tests.wire.test_server import http_server

Stand = Callable[[Village, str], AbstractContextManager[str]]


@contextmanager
def nowhere(village: Village, name: str) -> Iterator[str]:
    yield "no-such-host.invalid:7000"


@contextmanager
def plain_text(village: Village, name: str) -> Iterator[str]:
    with http_server() as address:
        yield address


@contextmanager
def another_version(village: Village, name: str) -> Iterator[str]:
    """A server with the right certificate that knows none of our calls."""
    with Server(village.stolen(name), "127.0.0.1:0", {}, [], grace=0.5) as server:
        server.ready()
        yield server.address


SYMPTOMS: list[tuple[Stand, str]] = [
    (nowhere, "its host name has no address"),
    (plain_text, "does not speak TLS"),
    (another_version, "it runs another version of Masque"),
]


@pytest.fixture(scope="module")
def village(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Village]:
    limits = {"lease_seconds": 2.0}
    root = tmp_path_factory.mktemp("strange")
    made = Village(root, ("party-a", "party-b"), limits=limits)
    try:
        made.start()
        yield made
    finally:
        made.stop()


@contextmanager
def believing(village: Village, changes: dict[str, Any]) -> Iterator[None]:
    """Party a with other addresses in its file."""
    service = village.services["party-a"]
    path: Path = service.directory / "config.yaml"
    before = path.read_text()
    service.stop()
    path.write_text(yaml.safe_dump(yaml.safe_load(before) | changes))
    village.revive("party-a")
    yield
    service.stop()
    path.write_text(before)
    village.revive("party-a")


def failure(village: Village) -> JobFailed:
    """What the first training round of a job ends with at party a."""
    matrix, info = patients()
    job = village.bound([village.share(matrix, info, "patients")], training__epochs=1)
    village.prepare(job)
    error = village.run_round(job, 0)["party-a"]
    assert isinstance(error, JobFailed), error
    return error


@pytest.mark.parametrize(("stand", "words"), SYMPTOMS)
def test_in_the_place_of_the_dealer(village: Village, stand: Stand, words: str) -> None:
    with (
        stand(village, "dealer") as address,
        believing(village, {"dealer": {"name": "dealer", "address": address}}),
    ):
        error = failure(village)
    assert error.where["service"] == "dealer"
    assert words in str(error) and address in str(error)


@pytest.mark.parametrize(("stand", "words"), SYMPTOMS)
def test_in_the_place_of_another_party(village: Village, stand: Stand, words: str) -> None:
    with (
        stand(village, "party-b") as address,
        believing(village, {"peers": {"party-b": address}}),
    ):
        error = failure(village)
    assert error.where["service"] == "party-b"
    assert words in str(error), error


def test_another_version_is_told_to_whoever_calls(village: Village) -> None:
    with another_version(village, "party-b") as address:
        service = village.services["party-b"]
        before, service.address = service.address, address
        try:
            with pytest.raises(ProtocolError, match="it runs another version of Masque"):
                village.share(*patients(), "patients")
        finally:
            service.address = before
