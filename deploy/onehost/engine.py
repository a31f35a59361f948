"""The Docker engine and compose, called as commands; their errors in our words."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.onehost.host import Host, Service
from masque.errors import MasqueError, Unavailable

_REPLACE = (
    "cd /etc/masque && tar -xvf - > /tmp/new && sort -o /tmp/new /tmp/new"
    " && find . ! -type d | sort | comm -23 - /tmp/new | xargs -r rm -f --"
)
"""Put the files of a tar stream into the volume and, once all are there, remove others."""


@dataclass(frozen=True)
class State:
    """A container as the engine sees it. `health`: starting, healthy, unhealthy or nothing."""

    status: str
    health: str
    restarts: int
    image: str

    @property
    def shown(self) -> str:
        """In a word or two."""
        return f"{self.status}, {self.health}" if self.health else self.status


def check() -> None:
    """Raises Unavailable if no engine answers or compose is missing."""
    if shutil.which("docker") is None:
        raise Unavailable("docker is not installed.", hint="Install Docker Engine and Compose.")
    version = _run(["docker", "version", "--format", "{{.Server.Version}}"], check=False)
    if version.returncode:
        raise Unavailable(
            f"No Docker engine answers: {_last(version.stderr)}",
            hint="Start it, or let your user talk to it (on Debian: the group docker).",
        )
    compose()


def compose() -> list[str]:
    """A compose command's beginning: the plugin, or docker-compose 1.29. Raises Unavailable."""
    if os.environ.get("COMPOSE"):
        return os.environ["COMPOSE"].split()
    if _run(["docker", "compose", "version"], check=False).returncode == 0:
        return ["docker", "compose"]
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    raise Unavailable(
        "Compose is not installed.",
        hint="Install Docker's compose plugin, or docker-compose 1.29 or newer.",
    )


def composing(host: Host, *arguments: str, shown: bool = False) -> None:
    """Run compose on a deployment; what it prints is shown, or told when it fails."""
    command = [*compose(), "-p", host.name, "-f", str(host.compose_file), *arguments]
    if shown:
        code = subprocess.run(command, check=False).returncode
        if code not in (0, 130, -2):
            raise MasqueError(f"`{' '.join(command)}` ended with {code}.")
        return
    _run(command)


def image_labels(image: str) -> dict[str, str] | None:
    """The labels of an image, or None if there is no such image."""
    found = _run(["docker", "image", "inspect", image], check=False)
    if found.returncode:
        return None
    return dict(json.loads(found.stdout)[0]["Config"]["Labels"] or {})


def states(host: Host) -> dict[Service, State | None]:
    """Every service's container, or None where there is none."""
    return {service: _state(host.container(service)) for service in host.services}


def _state(container: str) -> State | None:
    found = _run(["docker", "container", "inspect", container], check=False)
    if found.returncode:
        return None
    record: dict[str, Any] = json.loads(found.stdout)[0]
    health = record["State"].get("Health", {}).get("Status", "")
    return State(
        record["State"]["Status"], health, record["RestartCount"], record["Config"]["Image"]
    )


def volumes(names: Sequence[str]) -> list[str]:
    """Those of these volumes that exist."""
    listed = _run(["docker", "volume", "ls", "--format", "{{.Name}}"]).stdout.splitlines()
    return [name for name in names if name in listed]


def last_words(container: str) -> str:
    """The line with which a service said what went wrong, or its last one."""
    log = _run(["docker", "logs", "--tail", "40", container], check=False)
    lines = (log.stdout + log.stderr).strip().splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    return (errors or lines or [""])[-1].removeprefix("error: ")


def fill(host: Host, service: Service, image: str) -> None:
    """Copy a service's files into its config volume, as the user that the service runs as."""
    volume = f"{host.volume(service, 'config')}:/etc/masque"
    command = ["docker", "run", "--rm", "--interactive", "--network", "none", "--cap-drop", "ALL"]
    command += ["--security-opt", "no-new-privileges", "--volume", volume, image]
    _run([*command, "sh", "-euc", _REPLACE], given=_archive(host.folder(service)))


def _archive(folder: Path) -> bytes:
    """A tar of everything in `folder`; names begin with ./ as `find` writes them."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in sorted(folder.rglob("*")):
            entry = archive.gettarinfo(path, f"./{path.relative_to(folder).as_posix()}")
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            if entry.isfile():
                with path.open("rb") as file:
                    archive.addfile(entry, file)
            elif entry.isdir():
                archive.addfile(entry)
    return buffer.getvalue()


def _run(
    command: Sequence[str], *, check: bool = True, given: bytes | None = None
) -> subprocess.CompletedProcess[str]:
    ran = subprocess.run(list(command), input=given or b"", capture_output=True, check=False)
    done = subprocess.CompletedProcess(
        ran.args,
        ran.returncode,
        ran.stdout.decode(errors="replace"),
        ran.stderr.decode(errors="replace"),
    )
    if check and done.returncode:
        print(done.stderr.strip(), file=sys.stderr)
        raise MasqueError(f"`{' '.join(command[:8])}` failed: {_last(done.stderr)}")
    return done


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it said nothing."
