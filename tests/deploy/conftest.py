"""Tests marked `engine` need a Docker engine; where none answers, the last lines say so."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator

import pytest

from tests.deploy.engine import Deployment, a_name, left, missing, run


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("engine")]
    if marked and missing():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=f"NOT RUN: {missing()}"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    count = sum("NOT RUN: " in str(report.longrepr) for report in skipped)
    if count:
        terminalreporter.section("CONTAINERS WERE NOT TESTED", sep="!", red=True, bold=True)
        terminalreporter.line(f"{count} tests did not run here: {missing()}.", red=True, bold=True)
        terminalreporter.line("Run them where Docker Engine and Compose are: make test-deploy")


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image of this source tree, built if need be. MASQUE_TEST_IMAGE names one to be taken."""
    given = os.environ.get("MASQUE_TEST_IMAGE")
    if given:
        return given
    with (tmp_path_factory.getbasetemp().parent / "image.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another worker may be at it
        if run("deploy/source.sh", "--built", "masque", check=False).returncode:
            run("deploy/base-image.sh")  # no attempt at pulling one in tests
            run("make", "image")
    return "masque"


@pytest.fixture(scope="module")
def deployment(
    image: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """As many parties as the module's COUNT, started by `make up`; nothing of it is left."""
    made = Deployment(a_name(), tmp_path_factory.mktemp("deploy"), image)
    try:
        made.make("up", PARTIES=str(request.module.COUNT))
        yield made
    finally:
        made.remove()
    assert left([made.name]) == []
