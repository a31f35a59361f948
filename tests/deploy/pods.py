"""Pods on a Docker engine: what a kubelet does with the manifests, as far as containers go.

Volumes are filled as it fills them: secrets and configurations belong to root, lie in a directory
that a link is moved to, and are lent to the pod's fsGroup; claims may be written by that group.
"""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.deploy.engine import BIN, a_name, inspect, run
from tests.deploy.kustomizing import Resource
from tests.deploy.overlays import container, door, only, pod, port

Files = Mapping[str, bytes]

PLACE = """
cd /volume
new=..$(date +%s%N)
mkdir "$new"
tar -x -C "$new"
chmod 0755 "$new"
chown -R "0:$GROUP" "$new"
chmod "$MODE" "$new"/*
ln -s "$new" ..data_tmp
for file in "$new"/*; do ln -sfn "..data/${file##*/}" "${file##*/}"; done
mv -T ..data_tmp ..data
"""
"""New content of a volume, all of it in one step."""

NODE = """
import asyncio, sys

async def copy(source, target):
    while data := await source.read(65536):
        target.write(data)
        await target.drain()
    target.close()

async def meet(reader, writer):
    there = await asyncio.open_connection(sys.argv[2], 7000)
    await asyncio.gather(copy(reader, there[1]), copy(there[0], writer))

async def main():
    async with await asyncio.start_server(meet, "0.0.0.0", int(sys.argv[1])) as server:
        await server.serve_forever()

asyncio.run(main())
"""
"""The door of a node: what comes to its port goes to the pod."""


@dataclass(frozen=True)
class Cluster:
    """Pods of several overlays, in one network instead of the world between them."""

    name: str
    image: str

    def start(self, service: str, found: list[Resource], secrets: Mapping[str, Files]) -> None:
        """A pod, with what its Secrets and optional ConfigMaps hold."""
        spec, its = pod(found)["spec"], container(found)
        security = {**spec["securityContext"], **its["securityContext"]}
        command = ["--name", f"{self.name}-{service}", "--network", f"{self.name}-net"]
        command += ["--user", f"{security['runAsUser']}:{security['runAsGroup']}"]
        command += ["--group-add", str(security["fsGroup"])]
        for right in security["capabilities"]["drop"]:
            command += ["--cap-drop", right]
        if security["readOnlyRootFilesystem"]:
            command += ["--read-only"]
        if not security["allowPrivilegeEscalation"]:
            command += ["--security-opt", "no-new-privileges"]
        for entry in its["env"]:
            command += ["--env", f"{entry['name']}={entry['value']}"]
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        for mount in its["volumeMounts"]:
            volume = volumes.get(mount["name"])
            if volume and "emptyDir" in volume:
                command += ["--tmpfs", f"{mount['mountPath']}:size=64m,mode=1777"]
                continue
            files = _content(volume, found, secrets) if volume else None
            command += self._mount(service, mount, security["fsGroup"], files)
        command += ["--publish", f"127.0.0.1::{port(found, 'grpc')}"]
        self._door(service, found)
        run("docker", "run", "--detach", *command, self.image)

    def _mount(self, service: str, mount: Resource, group: int, files: Files | None) -> list[str]:
        """A volume with these files, or one that the pod's group may write."""
        name = f"{self.name}-{service}-{mount['name']}"
        if files is None:
            self._root(name, f"chown 0:{group} /volume && chmod 2775 /volume")
        else:
            self.fill(service, mount["name"], files, group)
        return ["--volume", f"{name}:{mount['mountPath']}{':ro' if mount.get('readOnly') else ''}"]

    def fill(self, service: str, volume: str, files: Files, group: int = 10001) -> None:
        """Content of a volume, also while a pod uses it. Secrets are 0400, and lent: 0440."""
        mode = "0444" if volume in ("config", "recipients") else "0440"
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name, content in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        self._root(
            f"{self.name}-{service}-{volume}",
            PLACE.replace("$GROUP", str(group)).replace("$MODE", mode),
            buffer.getvalue(),
        )

    def _root(self, volume: str, script: str, given: bytes = b"") -> None:
        command = ["docker", "run", "--rm", "--interactive", "--network", "none", "--user", "0"]
        command += ["--volume", f"{volume}:/volume", self.image, "sh", "-euc", script]
        feed(command, given)

    def _door(self, service: str, found: list[Resource]) -> None:
        """A node that listens where others look for the service: `<service>.example`."""
        command = ["--name", f"{self.name}-{service}-node", "--network", f"{self.name}-net"]
        command += ["--network-alias", f"{service}.example", self.image, "python", "-c", NODE]
        run("docker", "run", "--detach", *command, str(door(found)), f"{self.name}-{service}")

    def probe(self, service: str, found: list[Resource], kind: str = "readiness") -> str:
        """Nothing if the probe succeeds, otherwise what it says."""
        command = container(found)[f"{kind}Probe"]["exec"]["command"]
        done = run("docker", "exec", f"{self.name}-{service}", *command, check=False)
        return done.stderr.strip() or "it says nothing" if done.returncode else ""

    def wait(self, service: str, found: list[Resource], patience: float = 120) -> None:
        """Until the startup probe succeeds."""
        end = time.monotonic() + patience
        while said := self.probe(service, found, "startup"):
            assert time.monotonic() < end, f"{service}: {said}\n{self.logs(service)}"
            time.sleep(0.5)

    def logs(self, service: str) -> str:
        done = run("docker", "logs", f"{self.name}-{service}")
        return done.stdout + done.stderr

    def address(self, service: str) -> str:
        """Where this host reaches a pod."""
        return run("docker", "port", f"{self.name}-{service}", "7000").stdout.split()[0]

    def stop(self, service: str, seconds: int) -> int:
        """End a pod as a kubelet does; its exit code."""
        run("docker", "stop", "--time", str(seconds), f"{self.name}-{service}")
        return int(inspect("container", f"{self.name}-{service}")["State"]["ExitCode"])


def _content(volume: Resource, found: list[Resource], secrets: Mapping[str, Files]) -> Files:
    source = volume.get("secret") or volume["configMap"]
    made = only(found, "ConfigMap")
    if source.get("name") == made["metadata"]["name"]:
        return {name: text.encode() for name, text in made["data"].items()}
    return secrets[volume["name"]]


def masque(profile: Path, *arguments: str | Path) -> Any:
    """The command line of this host; its JSON."""
    done = run(BIN / "masque", *arguments, "--json", MASQUE_PROFILE=str(profile))
    return json.loads(done.stdout)


def feed(command: list[str], given: bytes) -> None:
    done = subprocess.run(command, input=given, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")


def a_cluster(image: str) -> Cluster:
    found = Cluster(a_name(), image)
    run("docker", "network", "create", f"{found.name}-net")
    return found
