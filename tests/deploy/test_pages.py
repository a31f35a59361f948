"""docs/deployment.md keeps its word: its commands run, in order, on a real engine."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.engine import BIN, ROOT, inspect, left, run
from tests.test_docs import script, snippets

pytestmark = pytest.mark.engine

NAMES = ("masque", "masque-three")
PAGE = ROOT / "docs" / "deployment.md"


def commands(test: str, page: Path = PAGE) -> str:
    """The blocks of a page that name a test, as one script."""
    parts = [part for part in snippets(page) if part.by and part.by.endswith(f"::{test}")]
    assert parts, "the page names this test"
    return script(parts, page.name)


@pytest.fixture
def unused() -> Iterator[None]:
    """The page uses the default name: not where somebody's deployment has it."""
    if any(present(name) for name in NAMES):
        pytest.skip("NOT RUN: this clone or engine has a deployment called masque")
    yield
    for name in NAMES:
        run("make", "down", check=False, NAME=name, ARGS="--wipe")
        shutil.rmtree(ROOT / "local" / name, ignore_errors=True)
    assert not any(present(name) for name in NAMES)


def present(name: str) -> bool:
    """Whether there is a deployment of this very name."""
    its = {f"{name}-dealer", f"{name}-dealer-state", f"{name}-exchange"}
    return bool(its & set(left([name]))) or (ROOT / "local" / name).exists()


def bash(text: str, image: str) -> str:
    """What a script says, with the image of this test run."""
    path = os.pathsep.join([str(BIN), os.environ["PATH"]])
    build = "yes" if image == "masque" else "no"
    return run("bash", "-s", given=text, PATH=path, IMAGE=image, BUILD=build).stdout


def test_the_readme(image: str, unused: None) -> None:
    said = bash(commands("test_the_readme", ROOT / "README.md"), image)
    assert "scikit-learn, in the clear" in said


def test_the_page_of_deployment(image: str, unused: None) -> None:
    said = bash(commands("test_the_page_of_deployment"), image)
    assert "export MASQUE_PROFILE=" in said
    assert said.count("running, healthy") > 10


def test_the_image_is_built_as_the_page_says(image: str) -> None:
    """It was, by the fixture; here from what is there already, so that no test waits twice."""
    text = commands("test_the_image_is_built_as_the_page_says")
    if image != "masque":
        text = text.replace("make image", "make image IMAGE=masque-test-page")
    run("bash", "-s", given=text)
    built = "masque" if image == "masque" else "masque-test-page"
    try:
        assert inspect("image", built)["Config"]["Labels"]["org.masque.source"] == source()
    finally:
        if built != "masque":
            run("docker", "image", "rm", built)


def source() -> str:
    return run(Path("deploy/source.sh")).stdout.strip()


def test_the_table_of_networks_is_whole() -> None:
    from deploy.onehost.composing import DOORS, INNER

    named = set(re.findall(r"`masque-([a-z-]+)`", PAGE.read_text("utf-8")))
    assert {*INNER, *DOORS.values()} <= named
