"""A Docker engine for tests: is there one, and deployments on it that leave nothing behind."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from deploy.onehost import engine
from deploy.onehost.host import Host, find
from masque.data import bundled

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.prefix) / "bin"


@cache
def missing() -> str:
    """Why no engine can be used, or nothing."""
    if shutil.which("docker") is None:
        return "docker is not installed"
    asked = run("docker", "version", "--format", "{{.Server.Version}}", check=False)
    if asked.returncode:
        return "no Docker engine answers"
    try:
        engine.compose()
    except Exception as error:
        return str(error)
    return ""


def run(
    *command: str | Path, check: bool = True, given: str | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """A command in the repository; what it said is in the error if it fails."""
    done = subprocess.run(
        [str(word) for word in command],
        input=given if given is not None else "",
        cwd=ROOT,
        env={**_surroundings(), "NO_COLOR": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if check and done.returncode:
        text = f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        raise AssertionError(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{text}")
    return done


def _surroundings() -> dict[str, str]:
    """Ours, without what `make test-deploy` was told about itself."""
    ours = {"ARGS", "NAME", "PARTIES", "PORT", "WHERE", "IMAGE", "BUILD", "MASQUE_PROFILE"}
    made = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES"}
    return {name: value for name, value in os.environ.items() if name not in ours | made}


def inspect(kind: str, name: str) -> Any:
    """What the engine knows about a container, network, volume or image."""
    return json.loads(run("docker", kind, "inspect", name).stdout)[0]


@dataclass(frozen=True)
class Deployment:
    """A deployment started by `make up`, and the command line that talks to it."""

    name: str
    base: Path
    image: str

    @property
    def host(self) -> Host:
        return find(self.name, self.base)

    def make(
        self, target: str, *, check: bool = True, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """`make up` and the others, as a user calls them."""
        given = {
            "NAME": self.name,
            "IMAGE": self.image,
            "WHERE": str(self.base),
            "BUILD": "no",
            **variables,
        }
        return run("make", target, check=check, **given)

    def masque(self, *arguments: str | Path, check: bool = True, lines: bool = False) -> Any:
        """`masque` with the deployment's profile; its JSON, `lines` of it, or the error's text."""
        done = run(
            BIN / "masque", *arguments, "--json", check=check, MASQUE_PROFILE=str(self.host.profile)
        )
        if done.returncode:
            return done.stderr
        texts = done.stdout.splitlines() if lines else [done.stdout]
        found = [json.loads(text) for text in texts]
        return found if lines else found[0]

    def python(self, service: str, program: str, *arguments: str) -> str:
        """What a Python program says that runs inside a service's container."""
        container = f"{self.name}-{service}"
        return run(
            "docker", "exec", "-i", container, "python", "-", *arguments, given=program
        ).stdout

    def addresses(self, service: str) -> dict[str, str]:
        """A container's address in each of its networks."""
        networks = inspect("container", f"{self.name}-{service}")["NetworkSettings"]["Networks"]
        return {
            name.removeprefix(f"{self.name}-"): str(found["IPAddress"])
            for name, found in networks.items()
        }

    def remove(self) -> None:
        """Everything of it, whatever state it is in."""
        self.make("down", check=False, ARGS="--wipe")
        sweep(self.name)
        shutil.rmtree(self.base / self.name, ignore_errors=True)


def sweep(name: str) -> None:
    """Containers, networks and volumes of a deployment."""
    for kind in ("container", "network", "volume"):
        flags = ["--all"] if kind == "container" else []
        field = "{{.Names}}" if kind == "container" else "{{.Name}}"
        listed = run("docker", kind, "ls", *flags, "--format", field).stdout.split()
        ours = [item for item in listed if item.startswith(f"{name}-")]
        force = ["--force"] if kind != "network" else []
        if ours:
            run("docker", kind, "rm", *force, *ours, check=False)


def a_name() -> str:
    """For a deployment beside whatever else there is."""
    return f"masque-test-{secrets.token_hex(3)}"


def left(names: Sequence[str]) -> list[str]:
    """Containers, networks and volumes that the engine still has of some deployments."""
    found = run("docker", "container", "ls", "--all", "--format", "{{.Names}}").stdout.split()
    for kind in ("network", "volume"):
        found += run("docker", kind, "ls", "--format", "{{.Name}}").stdout.split()
    return [item for item in found if item.startswith(tuple(f"{name}-" for name in names))]


JOB = """
name: breast-cancer
data: {rows: [a, b], label: malignant, standardize: true, holdout: 0.2}
model: {kind: logistic_regression, l2: 0.001}
training: {epochs: %d, batch_size: 32, seed: 7,
  optimizer: {kind: sgd, learning_rate: 0.1, momentum: 0.9}}
reveal: {metrics: [accuracy, auc], to: [analyst]}
model_output: {sealed_to: [analyst]}
"""


def share(deployment: Deployment, folder: Path) -> bundled.Files:
    """Two hospitals' files to all parties, as data sets a and b."""
    files = bundled.write("breast-cancer", folder, hospitals=2)
    for name, path in zip("ab", files.hospitals, strict=True):
        deployment.masque("share", path, "--schema", files.schema, "--name", name, "--replace")
    return files


def train(
    deployment: Deployment, folder: Path, job: str, *, epochs: int, watch: bool = True
) -> None:
    """Submit a job on a and b; wait for its end if wished."""
    (folder / "job.yaml").write_text(JOB % epochs)
    more = ["--watch"] if watch else []
    deployment.masque("train", folder / "job.yaml", "--id", job, *more)
