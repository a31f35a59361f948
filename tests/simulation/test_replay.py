"""A seed is replayed exactly: the same turns of the same tasks at the same times."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.__main__ import main
from tests.simulation.mutations import PLANTS
from tests.simulation.seeds import run
from tests.simulation.villages import ground as prepared

ROOT = Path(__file__).parents[2]
SEEDS = (2, 3, 7, 16)


def fingerprints() -> list[str]:
    """Of all that happens in some worlds, one after the other."""
    found = []
    with prepared() as ground:
        for seed in SEEDS:
            trace = run(seed, ground, tracing=True).trace
            assert len(trace) > 100
            found.append(hashlib.sha256(repr(trace).encode()).hexdigest())
    return found


def test_a_seed_is_the_same_world_in_every_process() -> None:
    code = "from tests.simulation.test_replay import fingerprints; print(*fingerprints())"
    told = []
    for number in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": number}
        told.append(
            subprocess.run(
                [sys.executable, "-c", code],
                env=environment,
                capture_output=True,
                text=True,
                check=True,
                timeout=300,
            ).stdout.split()
        )
    assert told[0] == told[1] and len(set(told[0])) == len(SEEDS)


def test_a_seed_is_the_same_world_whatever_came_before_it() -> None:
    assert fingerprints()[::-1] == _backwards()


def _backwards() -> list[str]:
    with prepared() as ground:
        traces = [run(seed, ground, tracing=True).trace for seed in reversed(SEEDS)]
    return [hashlib.sha256(repr(trace).encode()).hexdigest() for trace in traces]


def test_a_seed_that_fails_is_told_with_the_command_that_replays_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["simulate", *arguments])
        assert main() == 1
        return capsys.readouterr().out

    with PLANTS["one thing more"].how():
        first = told("1-2").partition("replay it: ")
        command = first[2].splitlines()[0]
        assert command == "make simulate SEED=1"
        replays = [told("--seed", command.partition("=")[2]) for _ in range(2)]
    assert "\nseed 1: declared: " in first[0]
    assert replays[0] == replays[1]
    seen, again = events(first[0]), events(replays[0])
    assert len(again) >= len(seen) > 10
    assert again[-len(seen) :] == seen


def events(told: str) -> list[str]:
    return [line for line in told.splitlines() if re.match(r" +\d+\.\d{4}  ", line)]


def test_the_commands_of_the_page_run() -> None:
    """With fewer seeds."""
    for command in ("make simulate SEEDS=4", "make simulate SEEDS=5-8", "make simulate SEED=17"):
        done = subprocess.run(
            command.split(), cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert len(done.stdout.splitlines()) > 20, "a replay prints all that happened"
