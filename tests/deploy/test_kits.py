"""A kit on a real engine: keys made in its container without a network, and a party that serves."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.onehost import engine
from tests.deploy.engine import BIN, inspect, left, run
from tests.deploy.organisations import commands
from tests.deploy.test_hosts import PAGE, mail, page, spoken
from tests.test_docs import snippets

pytestmark = pytest.mark.engine

PATIENCE = 240
SHIM = """\
#!/bin/sh
# What the page calls, with the compose that is here, and without a terminal.
case "$1" in compose) ;; *) exec {docker} "$@" ;; esac
shift
case "$1" in run | exec) verb=$1; shift; exec {compose} "$verb" -T "$@" ;; esac
exec {compose} "$@"
"""


class Kit:
    """hospital-a's, unpacked on this host; project, port and containers of this test alone."""

    def __init__(self, base: Path, image: str) -> None:
        self.name = f"masque-test-{secrets.token_hex(3)}"
        self.base, self.keeper, self.folder = base, base / "keeper", base / "hospital-a"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.keeper.mkdir()
        (text,) = (s.text for s in snippets(PAGE) if s.text.startswith("project: cancer-study"))
        text = self.ours(text).replace("hospital-a.example:7000", f"hospital-a.example:{self.port}")
        (self.keeper / "project.yaml").write_text(text)
        (base / "bin").mkdir()
        shim = SHIM.format(docker=shutil.which("docker"), compose=" ".join(engine.compose()))
        for name, content in (("docker", shim), ("sudo", '#!/bin/sh\nexec "$@"\n')):
            (base / "bin" / name).write_text(content)
            (base / "bin" / name).chmod(0o755)
        init, provision = page("test_four_hosts_train_and_renew")[:2]
        self.keep(init)
        self.keep(f"{provision} --image {image}")

    def ours(self, text: str) -> str:
        """What the page says, for this test's project."""
        return text.replace("cancer-study", self.name)

    def bash(self, text: str, folder: Path) -> str:
        """A line of the page."""
        script = f'cd "{folder}"; {self.ours(text)}'
        path = os.pathsep.join([str(self.base / "bin"), str(BIN), os.environ["PATH"]])
        return run("bash", "-euc", script, PATH=path, COMPOSE_PROJECT_NAME=self.name).stdout

    def keep(self, text: str) -> str:
        """The keeper types a command."""
        return self.bash(text, self.keeper)

    def state(self) -> str:
        """How the engine finds the container."""
        container = self.bash("docker compose ps -q hospital-a", self.folder).strip()
        return str(inspect("container", container)["State"]["Health"]["Status"])


@pytest.fixture
def kit(image: str, tmp_path: Path) -> Iterator[Kit]:
    if os.geteuid() != 0:
        pytest.skip("NOT RUN: giving files to the containers' user needs root")
    made = Kit(tmp_path, image)
    yield made
    if made.folder.exists():
        made.bash("docker compose down --volumes --remove-orphans", made.folder)
    assert left([made.name]) == []


def test_a_kit_on_a_real_engine(kit: Kit) -> None:
    unpack, own, request, install, up, ps = page("test_a_kit_on_a_real_engine")
    mail(kit.keeper / "kits" / "hospital-a.tar.gz", kit.base)
    kit.bash(unpack, kit.base)
    kit.bash(own, kit.folder)
    told = spoken(kit.bash(request, kit.folder))
    csr = kit.folder / "hospital-a/certificates/hospital-a.party.csr"
    mail(csr, kit.keeper)
    approve = page("test_four_hosts_train_and_renew")[2]
    theirs = spoken(kit.keep(f"{approve} --fingerprint '{told}'"))
    mail(kit.keeper / "reply/hospital-a.party.pem", kit.folder)
    kit.bash(f"{install} --authority-fingerprint '{theirs}'", kit.folder)
    kit.bash(up, kit.folder)
    end = time.monotonic() + PATIENCE
    while kit.state() != "healthy":
        assert time.monotonic() < end, kit.bash("docker compose logs", kit.folder)
        time.sleep(0.5)
    assert "hospital-" in kit.bash(ps, kit.folder), "in columns that may break the name there"
    confined(kit)
    looks_around(kit)


def confined(kit: Kit) -> None:
    """The container may do little, and publishes its port alone; keys are its user's."""
    container = kit.bash("docker compose ps -q hospital-a", kit.folder).strip()
    found = inspect("container", container)
    host = found["HostConfig"]
    assert host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"] and not host["Privileged"]
    assert "no-new-privileges:true" in host["SecurityOpt"]
    ((port, (binding,)),) = host["PortBindings"].items()
    assert (port, binding["HostPort"]) == (f"{kit.port}/tcp", str(kit.port))
    mounts = {mount["Destination"]: mount["RW"] for mount in found["Mounts"]}
    home = "/etc/masque/hospital-a"
    assert mounts == {home: False, f"{home}/store": True, "/var/lib/masque": True}
    for key in ("certificates/hospital-a.party.key", "store/store.key"):
        status = (kit.folder / "hospital-a" / key).stat()
        assert (status.st_uid, status.st_mode & 0o777) == (10001, 0o600), key
    denied = run("docker", "exec", container, "touch", f"{home}/certificates/x", check=False)
    assert denied.returncode != 0


def looks_around(kit: Kit) -> None:
    """The doctor runs in the container, and finds that nobody else is there yet."""
    (line,) = (
        text
        for text in commands(kit.folder / "INSTRUCTIONS.md")
        if text.startswith("docker compose exec")
    )
    with pytest.raises(AssertionError) as told:
        kit.bash(line, kit.folder)
    assert "dealer.trustee.example" in str(told.value)
    assert f"masque://{kit.name}/party/hospital-a" in str(told.value)


def test_keys_are_made_without_a_network(kit: Kit) -> None:
    mail(kit.keeper / "kits" / "hospital-a.tar.gz", kit.base)
    kit.bash("tar xzf hospital-a.tar.gz", kit.base)
    looked = kit.bash("docker compose run --rm keys cat /proc/net/dev", kit.folder)
    devices = {line.split(":")[0].strip() for line in looked.splitlines() if ":" in line}
    assert devices <= {"lo", "tunl0", "sit0", "ip6tnl0", "gre0", "gretap0", "erspan0"}
