"""Organisations that share nothing but a network: a host each, with an address and a disk.

Hosts are network namespaces with the relay of `benchmarks.wire` between them: 20 ms from one to
the other. A program at a host sees that host's disk, at the same path at every host, and no
other's; what services keep in /var/lib/masque is on it; the names of hosts are in /etc/hosts.
Needs Linux and root.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.relay import Link
from benchmarks.wire import wire
from masque.client import lifeline
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.prefix) / "bin"
LINK = Link(delay=0.020, rate=350e6)
PATIENCE = 300.0
"""Seconds: kernels are compiled first where nobody has warmed them."""
SERVING = '"event": "serving"'
IN_CONTAINER = "docker compose run --rm keys "

_ENTER = """
mount --bind "$1/disks/$2" "$1/host"
mount -t tmpfs none "$1/disks"
mount --bind "$1/names" /etc/hosts
mount -t tmpfs none /var/lib
mkdir /var/lib/masque
mount --bind "$1/host/state" /var/lib/masque
cd "$1/host/$3"
shift 3
exec "$@"
"""
"""At the disk's own mount point, in a mount namespace of the program's own."""


@dataclass
class Host:
    """One organisation's; its kit is in a directory of its name, on its disk."""

    name: str
    base: Path
    entering: tuple[str, ...]
    services: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def disk(self) -> Path:
        """Its disk, as we see it."""
        return self.base / "disks" / self.name

    @property
    def kit(self) -> Path:
        """Its kit, as we see it."""
        return self.disk / self.name

    def command(self, *words: str | Path, folder: str = "") -> list[str]:
        """A command line that runs there, in a folder of its kit."""
        place = [str(self.base), self.name, f"{self.name}/{folder}"]
        inside = ["unshare", "--mount", "sh", "-euc", _ENTER, "sh", *place]
        return [*self.entering, *inside, *map(str, words)]

    def run(
        self, text: str, *, folder: str = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """A line of shell there, without its container; what it says is in the error."""
        script = f'PATH="{BIN}:$PATH"; {text.replace(IN_CONTAINER, "")}'
        command = self.command("bash", "-euc", script, folder=folder)
        return run(command, f"{self.name}: {text}", check=check)

    def masque(self, text: str, *, folder: str = "") -> Any:
        """What a command says as JSON."""
        return json.loads(self.run(f"masque {text} --json", folder=folder).stdout)

    def log(self, service: str) -> Path:
        """What a service says."""
        return self.disk / f"{service}.log"

    def start(self, service: str, role: str) -> None:
        """Start a service with the configuration of the kit; it ends with us at the latest."""
        tied = [sys.executable, "-E", "-S", lifeline.__file__, str(os.getpid())]
        program = [sys.executable, "-m", f"services.{role}"]
        with self.log(service).open("wb") as log:
            self.services[service] = subprocess.Popen(
                self.command(*tied, *program, "--config", f"{service}/{role}.yaml"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
            )

    def stop(self, service: str) -> None:
        """SIGTERM, and wait for a good end."""
        process = self.services.pop(service)
        process.terminate()
        assert process.wait(timeout=PATIENCE) == 0, self.log(service).read_text()[-3000:]

    def wait(self, service: str) -> None:
        """Until a service says that it serves."""
        process = self.services[service]

        def serving() -> bool:
            said = self.log(service).read_text()
            assert process.poll() is None, f"{service} has ended:\n{said[-3000:]}"
            return SERVING in said

        until(serving, f"{service} does not serve", PATIENCE)


@contextmanager
def hosts(base: Path, names: Mapping[str, str]) -> Iterator[dict[str, Host]]:
    """A host for each organisation; `names`: the name at which its host is reached.

    Raises NoWire where the machine cannot. Services that still run at the end are killed.
    """
    with wire(list(names), LINK) as wired:
        (base / "host").mkdir()
        lines = [f"{wired[organisation].address} {name}" for organisation, name in names.items()]
        (base / "names").write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))
        made = {name: Host(name, base, wired[name].entering) for name in names}
        for host in made.values():
            (host.disk / "state").mkdir(parents=True)
        try:
            yield made
        finally:
            running = [process for host in made.values() for process in host.services.values()]
            for process in running:
                process.kill()
            for process in running:
                process.wait()


def run(
    command: list[str], what: str, *, cwd: Path | None = None, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """A command; what it says is in the error if it fails."""
    done = subprocess.run(
        command,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if check and done.returncode:
        raise AssertionError(f"{what}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done


def commands(instructions: Path) -> list[str]:
    """Every command of an INSTRUCTIONS.md, in order."""
    found = re.findall(r"`([^`]+)`", instructions.read_text("utf-8"))
    return [text for text in found if re.match(r"(masque|docker|sudo) ", text)]
